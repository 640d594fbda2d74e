"""How long sessions live, with a clock that tests move."""

import pytest
from job_fakes import FakeClock

from monad_dagster.local.account import Account
from monad_dagster.local.protocol.tokens import MASTER_SECONDS, SESSION_SECONDS


@pytest.fixture
def clock():
    """A clock."""
    return FakeClock()


@pytest.fixture
def account(tmp_path, clock):
    """An account in this process."""
    (tmp_path / "runner.json").write_text('{"stage_mounts": "off"}')
    account = Account(tmp_path, clock=clock)
    yield account
    account.close()


def test_heartbeats_keep_a_session_alive(account, clock):
    """Each heartbeat gives the tokens their whole life again; without one they run out."""
    tokens = account.tokens
    session, master = tokens.issue("session", 7, "U"), tokens.issue("master", 7, "U")
    other = tokens.issue("session", 8, "U")
    for _ in range(3):
        clock.move(seconds=SESSION_SECONDS - 1)
        tokens.touch(7)
    assert not tokens.is_expired(tokens.find(session))
    assert tokens.is_expired(tokens.find(other))
    assert tokens.abandoned_sessions() == {8}
    clock.move(seconds=SESSION_SECONDS)
    assert tokens.is_expired(tokens.find(session))
    assert not tokens.is_expired(tokens.find(master))
    clock.move(seconds=MASTER_SECONDS)
    assert tokens.abandoned_sessions() == {7, 8}
