"""Canceling a statement stops that one, and never the session's next."""

import threading

import pytest

SLOW = "SELECT COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 30000)) a, TABLE(GENERATOR(ROWCOUNT => 30000)) b"


def holder(session, query_id, seconds=30.0):
    """Wait until a statement holds the session's connection."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if query_id in session.holding._by:
            return True
        waiting.wait(0.01)
    return False


@pytest.mark.parametrize("sql", [SLOW, f"SELECT 1; {SLOW}"])
def test_a_running_statement_is_interrupted(account, sql):
    """The engine stops at once, for a statement of a script by the script's id."""
    session = account.create_session("ADMIN", "ACCOUNTADMIN")
    count = {"MULTI_STATEMENT_COUNT": 0}
    query = account.queries.submit(session, sql, parameters=count)
    assert holder(session, query.id)
    assert account.queries.cancel(query)
    assert query.done.wait(4)  # before the account would give the statement up
    assert query.error is not None
    assert query.error.errno == 604


def test_an_interruption_that_comes_late_spares_the_next_statement(account):
    """The canceled statement has ended and another one runs when the engine is told to stop."""
    session = account.create_session("ADMIN", "ACCOUNTADMIN")
    first = account.queries.submit(session, "SELECT SYSTEM$WAIT(60)")
    following = []

    def end_and_go_on():
        assert first.statement is not None
        plain(first.statement)
        assert first.done.wait(30)
        following.append(account.queries.submit(session, SLOW.replace("30000", "12000")))
        assert holder(session, following[0].id)

    while first.statement is None:
        threading.Event().wait(0.01)
    plain = type(first.statement).cancel
    first.statement.cancel = end_and_go_on
    assert account.queries.cancel(first)
    assert first.error is not None
    assert first.error.errno == 604
    assert following[0].done.wait(60)
    assert following[0].error is None
