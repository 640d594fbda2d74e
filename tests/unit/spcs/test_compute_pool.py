"""Compute pools: what is known of a pool's nodes, and what an unanswered question means."""

import pytest

from monad_dagster.errors import ConnectionFailedError
from monad_dagster.spcs.compute_pool import describe_compute_pool, family_of
from tests.support.scripted_account import POOL
from tests.support.scripted_connection import lost_answer, refused, scripted_session


def pool_and_session(families):
    """Return a pool and a session in which *families* answers what the account offers."""
    session, _ = scripted_session(lambda text: families if "FAMILIES" in text else [POOL])
    return describe_compute_pool(session, "POOL"), session


def test_a_role_that_may_not_list_families_gets_the_documented_shape():
    """A refusal is the same at every attempt, so the shipped table may answer."""
    pool, session = pool_and_session(refused(3001))
    assert family_of(session, pool).vcpu == 3


def test_an_unanswered_list_of_families_is_an_error():
    """The specification depends on the shape: a guess would hide the last attempt's job service."""
    pool, session = pool_and_session(lost_answer())
    with pytest.raises(ConnectionFailedError):
        family_of(session, pool)
