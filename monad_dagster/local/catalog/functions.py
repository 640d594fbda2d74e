"""System functions of the core: cancel, client information, parameters of the account."""

import json
from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.engine import result_scan as _result_scan  # noqa: F401 - registers its function
from monad_dagster.local.sql.handlers import function
from monad_dagster.local.sql.statements import Arguments, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@function("SYSTEM$CANCEL_QUERY")
def cancel_query(session: "Session", statement: Statement, args: Arguments) -> str:
    """Cancel one statement of the same user."""
    query = session.account.queries.get(str(args.get(0, "QUERY_ID")))
    if query is None or not _may_cancel(session, query.session):
        raise errors.StatementError(
            709, "02000", "Identified SQL statement is not currently executing."
        )
    if not session.account.queries.cancel(query):
        return "Identified SQL statement is not currently executing."
    return f"query [{query.id}] terminated."


@function("SYSTEM$CANCEL_ALL_QUERIES")
def cancel_all_queries(session: "Session", statement: Statement, args: Arguments) -> str:
    """Cancel every statement of a session, this one excepted."""
    wanted = args.integer(0, "SESSION_ID", session.id)
    target = session.account.sessions.get(wanted)
    if target is None or not _may_cancel(session, target):
        raise errors.StatementError(709, "02000", f"Session {wanted} does not exist.")
    for query in session.account.queries.recent():
        if query.session.id == wanted and query.id != statement.query_id:
            session.account.queries.cancel(query)
    return f"{wanted} session queries cancelled."


def _may_cancel(session: "Session", target: "Session") -> bool:
    return session.user == target.user or session.role == "ACCOUNTADMIN"


_WAIT_UNITS = {"MILLISECONDS": 0.001, "SECONDS": 1, "MINUTES": 60, "HOURS": 3600, "DAYS": 86400}


@function("SYSTEM$WAIT")
def wait(session: "Session", statement: Statement, args: Arguments) -> str:
    """Wait for an amount of time; cancellation ends the wait."""
    unit = str(args.get(1, "TIME_UNIT", "SECONDS")).upper()
    if unit not in _WAIT_UNITS:
        raise errors.invalid_value(unit, "TIME_UNIT")
    amount = args.integer(0, "AMOUNT")
    if statement.cancelled.wait(max(0, amount) * _WAIT_UNITS[unit]):
        raise errors.canceled()
    return f"waited {amount} {unit.lower()}"


@function("SYSTEM$CLIENT_VERSION_INFO")
def client_version_info(session: "Session", statement: Statement, args: Arguments) -> str:
    """Return no version advice."""
    return json.dumps([])


@function("SYSTEM$BOOTSTRAP_DATA_REQUEST")
def bootstrap_data_request(session: "Session", statement: Statement, args: Arguments) -> str:
    """Return what client libraries ask for at start."""
    return json.dumps(
        {"serverVersion": session.account.version, "currentSession": {"id": session.id}}
    )


@function("SYSTEM$TYPEOF")
def typeof(session: "Session", statement: Statement, args: Arguments) -> str:
    """Return the type of a constant."""
    value = args.get(0, "VALUE")
    if isinstance(value, bool):
        return "BOOLEAN[SB1]"
    return "NUMBER(38,0)[SB16]" if isinstance(value, int) else "VARCHAR[LOB]"
