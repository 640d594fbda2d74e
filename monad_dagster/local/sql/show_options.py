"""The clauses SHOW statements share: LIKE, IN, STARTS WITH, LIMIT."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from monad_dagster.local import errors
from monad_dagster.local.sql.statements import Cursor, ObjectName, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

MAX_ROWS = 10_000  # SHOW returns at most this many rows
# What a compute pool's workloads can be, as ALLOWED_SPCS_WORKLOAD_TYPES lists them.
WORKLOAD_TYPES = frozenset(
    {"ALL", "USER", "SERVICE", "JOB", "NOTEBOOK", "STREAMLIT", "MODEL_SERVING", "ML_JOB"}
)
T = TypeVar("T")


@dataclass
class ShowOptions:
    """Parsed clauses; `database` and `schema` are None where the scope is wider.

    `extra` holds other IN targets, such as {"COMPUTE POOL": ObjectName}.
    """

    like: str | None = None
    database: str | None = None
    schema: str | None = None
    starts_with: str | None = None
    limit: int | None = None
    limit_from: str | None = None
    extra: dict[str, ObjectName] | None = None
    types: frozenset[str] = frozenset()

    def select(self, items: Sequence[T], name: Callable[[T], str]) -> list[T]:
        """Return the items the clauses let through, in order."""
        chosen = [item for item in items if self._matches(name(item))]
        return chosen[: min(self.limit or MAX_ROWS, MAX_ROWS)]

    def _matches(self, name: str) -> bool:
        if self.like is not None and not matches_like(name, self.like):
            return False
        if self.starts_with is not None and not name.startswith(self.starts_with):
            return False
        return self.limit_from is None or name > self.limit_from


def parse_show(
    session: "Session", cursor: Cursor, *, extra: Sequence[str] = (), level: str = "SCHEMA"
) -> ShowOptions:
    """Read the clauses to the end of the statement.

    Args:
        session: Gives the default scope and checks what IN names.
        cursor: Stands after the words that name the objects.
        extra: Other object kinds IN may name, such as "COMPUTE POOL".
        level: SCHEMA for schema-level objects, DATABASE for schemas, ACCOUNT for the rest.
    """
    options = ShowOptions()
    if cursor.accept("LIKE"):
        options.like = cursor.string()
    if cursor.accept("IN"):
        _parse_scope(session, cursor, options, extra, level)
    elif level != "ACCOUNT":
        options.database = session.database
        options.schema = session.schema if level == "SCHEMA" and session.database else None
    if cursor.accept("STARTS WITH"):
        options.starts_with = cursor.string()
    if cursor.accept("LIMIT"):
        options.limit = cursor.integer()
        if cursor.accept("FROM"):
            options.limit_from = cursor.string()
    if extra and cursor.accept("OF TYPE"):
        options.types = frozenset(_types(cursor))
    cursor.expect_end()
    return options


def _types(cursor: Cursor) -> list[str]:
    found = [cursor.identifier().upper()]
    while cursor.accept_op(","):
        found.append(cursor.identifier().upper())
    for name in set(found) - WORKLOAD_TYPES:
        raise errors.invalid_value(name, "TYPE")
    return found


def _parse_scope(
    session: "Session", cursor: Cursor, options: ShowOptions, extra: Sequence[str], level: str
) -> None:
    for kind in extra:
        if cursor.accept(kind):
            options.extra = {kind: cursor.name()}
            return
    if cursor.accept("ACCOUNT"):
        return
    if cursor.accept("DATABASE"):
        options.database = _named_database(session, cursor)
    elif cursor.accept("SCHEMA") or level == "SCHEMA":
        _named_schema(session, cursor, options)
    else:
        options.database = _named_database(session, cursor)


def _named_database(session: "Session", cursor: Cursor) -> str:
    if _nothing_more(cursor):
        if session.database is None:
            raise errors.no_current_database()
        return session.database
    return session.lookup("DATABASE", cursor.name()).name


def _named_schema(session: "Session", cursor: Cursor, options: ShowOptions) -> None:
    if _nothing_more(cursor):
        options.database, options.schema = session.database, session.schema
        return
    name = cursor.name()
    database, schema = session.qualify_schema(name)
    options.database, options.schema = database, schema
    if database == "SNOWFLAKE" and session.catalog.get("SCHEMA", schema, database):
        return
    found = session.find("SCHEMA", ObjectName((database, schema)))
    if found is None:
        fqn = f"{quote_identifier(database)}.{quote_identifier(schema)}"
        raise errors.does_not_exist("Schema", fqn)


def _nothing_more(cursor: Cursor) -> bool:
    return cursor.at_end() or any(map(cursor.looking_at, ("STARTS WITH", "LIMIT", "OF TYPE")))


def matches_like(name: str, pattern: str) -> bool:
    """Compare with a SQL LIKE pattern, without regard to case as SHOW does."""
    out, escaped = [], False
    for char in pattern:
        if escaped:
            out.append(re.escape(char))
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "%":
            out.append(".*")
        elif char == "_":
            out.append(".")
        else:
            out.append(re.escape(char))
    return re.fullmatch("".join(out), name, re.IGNORECASE | re.DOTALL) is not None


def yes_no(value: Any) -> str:
    """Return Y or N."""
    return "Y" if value else "N"
