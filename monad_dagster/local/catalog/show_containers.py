"""SHOW and DESCRIBE of databases and schemas."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.engine.information_schema import information_schemas
from monad_dagster.local.protocol.results import ResultSet, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.show_options import parse_show, yes_no
from monad_dagster.local.sql.statements import Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_FIRST = [timestamp("created_on"), text("name"), text("is_default"), text("is_current")]
_MIDDLE = [text("owner"), text("comment"), text("options"), text("retention_time")]


@statement("SHOW DATABASES")
def show_databases(session: "Session", statement: Statement) -> ResultSet:
    """List visible databases."""
    options = parse_show(session, statement.cursor, level="ACCOUNT")
    columns = [*_FIRST, text("origin"), *_MIDDLE, text("kind"), text("owner_role_type")]
    rows = [
        _row(found, found.name == session.database, "", "STANDARD", "ROLE")
        for found in options.select(session.visible("DATABASE"), _name)
    ]
    return table(columns, rows)


@statement("SHOW SCHEMAS")
def show_schemas(session: "Session", statement: Statement) -> ResultSet:
    """List visible schemas, INFORMATION_SCHEMA too."""
    options = parse_show(session, statement.cursor, level="DATABASE")
    columns = [*_FIRST, text("database_name"), *_MIDDLE, text("owner_role_type")]
    found = session.visible("SCHEMA", options.database)
    found = [*found, *information_schemas(session, options.database)]
    current = (session.database, session.schema)
    rows = [
        _row(s, (s.database, s.name) == current, s.database, "ROLE" if s.owner else "")
        for s in options.select(sorted(found, key=lambda s: (s.database, s.name)), _name)
    ]
    return table(columns, rows)


def _row(found: CatalogObject, is_current: bool, place: str, *last: str) -> tuple[Any, ...]:
    options = "MANAGED ACCESS" if found.properties.get("MANAGED") else ""
    comment = found.properties.get("COMMENT", "")
    return (
        found.created_on, found.name, "N", yes_no(is_current), place, found.owner, comment, options,
        "1", *last,
    )  # fmt: skip


def _name(found: CatalogObject) -> str:
    return found.name


@statement("DESCRIBE DATABASE", "DESCRIBE SCHEMA")
def describe_container(session: "Session", statement: Statement) -> ResultSet:
    """List what a database or schema directly holds."""
    kind = statement.words()[1]
    found = session.lookup(kind, statement.cursor.name())
    columns = [timestamp("created_on"), text("name"), text("kind")]
    if kind == "DATABASE":
        schemas = [
            *session.visible("SCHEMA", found.name), *information_schemas(session, found.name)
        ]  # fmt: skip
        children = [(s.created_on, s.name, "SCHEMA") for s in schemas]
    else:
        children = [
            (c.created_on, c.name, each)
            for each in ("TABLE", "VIEW", "STAGE", "SERVICE")
            for c in session.visible(each, found.database, found.name)
        ]
    return table(columns, children)
