"""SET, UNSET, SHOW VARIABLES and GETVARIABLE."""

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.ddl import DONE
from monad_dagster.local.engine import engine_sql
from monad_dagster.local.engine.result_scan import stored_rows
from monad_dagster.local.protocol.results import (
    ResultSet,
    number,
    status,
    table,
    text,
    timestamp,
)
from monad_dagster.local.sql.handlers import function, statement
from monad_dagster.local.sql.statements import Arguments, Cursor, Statement
from monad_dagster.local.sql.variables import Variable

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@statement("SET")
def set_variables(session: "Session", parsed: Statement) -> ResultSet:
    """Set one session variable or several."""
    cursor = parsed.cursor
    names = _names(cursor)
    cursor.expect_op("=")
    rest = cursor.peek()
    if rest is None:
        raise cursor.error()
    expressions = parsed.text[rest.start : parsed.tokens[-1].end]
    if len(names) > 1:
        if not (expressions.startswith("(") and expressions.endswith(")")):
            raise cursor.error()
        expressions = expressions[1:-1]
    query = Statement.parse(f"SELECT {expressions}", query_id=parsed.query_id)
    query.binds = parsed.binds
    result, _ = engine_sql.execute(session, query)
    rows = stored_rows(result).rows
    if len(rows) != 1 or len(rows[0]) != len(names):
        raise errors.compilation_error(
            2212, "22023", f"Number of values does not match the number of variables ({len(names)})"
        )
    now = session.now()
    for name, value in zip(names, rows[0], strict=True):
        before = session.variables.get(name)
        created = before.created_on if before else now
        session.variables[name] = Variable(value, _type(value), created, now)
    return status(DONE)


@statement("UNSET")
def unset_variables(session: "Session", parsed: Statement) -> ResultSet:
    """Forget session variables."""
    names = _names(parsed.cursor)
    parsed.cursor.expect_end()
    for name in names:
        session.variables.pop(name, None)
    return status(DONE)


@statement("SHOW VARIABLES")
def show_variables(session: "Session", parsed: Statement) -> ResultSet:
    """List the session's variables."""
    parsed.cursor.expect_end()
    columns = [
        number("session_id"), timestamp("created_on"), timestamp("updated_on"), text("name"),
        text("value"), text("type"), text("comment"),
    ]  # fmt: skip
    rows = [
        (session.id, found.created_on, found.updated_on, name, str(found.value), found.type, "")
        for name, found in sorted(session.variables.items())
    ]
    return table(columns, rows)


@function("GETVARIABLE")
def get_variable(session: "Session", parsed: Statement, args: Arguments) -> str | None:
    """Return a session variable's value as text, NULL when it was not set."""
    found = session.variables.get(str(args.get(0, "NAME")))
    return None if found is None else str(found.value)


def _names(cursor: Cursor) -> list[str]:
    if not cursor.accept_op("("):
        return [cursor.identifier()]
    names = [cursor.identifier()]
    while cursor.accept_op(","):
        names.append(cursor.identifier())
    cursor.expect_op(")")
    return names


def _type(value: Any) -> str:
    kinds = {
        bool: "boolean", int: "fixed", decimal.Decimal: "fixed", float: "real",
        dt.datetime: "timestamp_ntz", dt.date: "date",
    }  # fmt: skip
    return next((name for kind, name in kinds.items() if type(value) is kind), "text")
