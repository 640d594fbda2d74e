"""SHOW PARAMETERS: values with the level that set them."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local.protocol.results import ResultSet, table, text
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.show_options import matches_like
from monad_dagster.local.sql.statements import Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@statement("SHOW PARAMETERS")
def show_parameters(session: "Session", statement: Statement) -> ResultSet:
    """List parameters of the session, the account, a database, a schema or a service."""
    cursor = statement.cursor
    like = cursor.string() if cursor.accept("LIKE") else None
    scopes: list[str] = []
    level = "SESSION"
    if cursor.accept("IN") or cursor.accept("FOR"):
        level = cursor.accept_any("ACCOUNT", "SESSION", "DATABASE", "SCHEMA", "SERVICE")
        level = level or "SESSION"
        if level == "DATABASE":
            scopes = [f"DATABASE:{session.lookup('DATABASE', cursor.name()).name}"]
        elif level == "SCHEMA":
            found = session.lookup("SCHEMA", cursor.name())
            scopes = [f"SCHEMA:{found.database}.{found.name}", f"DATABASE:{found.database}"]
        elif level == "SERVICE":  # a job service has none of its own and inherits its schema's
            found = session.lookup("SERVICE", cursor.name())
            scopes = [f"SCHEMA:{found.database}.{found.schema}", f"DATABASE:{found.database}"]
    cursor.expect_end()
    columns = [
        text("key"),
        text("value"),
        text("default"),
        text("level"),
        text("description"),
        text("type"),
    ]
    rows = []
    for name, default in sorted(_PARAMETERS.items()):
        if like is not None and not matches_like(name, like):
            continue
        value, found_level = _parameter(session, name, scopes, level)
        shown = default if value is None else value
        rows.append((name, _text(shown), _text(default), found_level, "", _kind(default)))
    return table(columns, rows)


def _parameter(session: "Session", name: str, scopes: list[str], level: str) -> tuple[Any, str]:
    if level == "SESSION" and name in session.parameters:
        return session.parameters[name], "SESSION"
    for scope in scopes:
        value = session.catalog.get_document("parameters", f"{scope}|{name}")
        if value is not None:
            return value, scope.split(":", maxsplit=1)[0]
    value = session.account.parameter(name)
    return value, "ACCOUNT" if value is not None else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: Any) -> str:
    return {bool: "BOOLEAN", int: "NUMBER"}.get(type(value), "STRING")


_PARAMETERS: dict[str, Any] = {
    "AUTOCOMMIT": True,
    "CLIENT_SESSION_KEEP_ALIVE": False,
    "EVENT_TABLE": "snowflake.telemetry.events",
    "LOG_EVENT_LEVEL": "OFF",
    "LOG_LEVEL": "OFF",
    "METRIC_LEVEL": "NONE",
    "MULTI_STATEMENT_COUNT": 1,
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "ARROW",
    "QUERY_TAG": "",
    "STATEMENT_TIMEOUT_IN_SECONDS": 172800,
    "TIMEZONE": "Etc/UTC",
    "TRACE_LEVEL": "OFF",
    "WEEK_START": 0,
}
