"""DROP of anything: the statement, its privilege and its words are the same for every kind."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.handlers import StatementHandler, statement
from monad_dagster.local.sql.statements import Statement

if TYPE_CHECKING:
    from monad_dagster.local.catalog.catalog import CatalogObject
    from monad_dagster.local.session import Session

_CONTAINERS = frozenset({"DATABASE", "SCHEMA"})  # take CASCADE and RESTRICT
Dropper = Callable[["Session", "CatalogObject"], None]


def drop_statement(kind: str, *, label: str | None = None) -> Callable[[Dropper], StatementHandler]:
    """Register DROP *kind* [IF EXISTS] name.

    The decorated function gets an object that the session's role owns, and removes it; its
    docstring describes the statement.

    Args:
        kind: The catalog's kind.
        label: The kind as errors name it, where that differs.
    """

    def register(drop: Dropper) -> StatementHandler:
        def handler(session: "Session", parsed: Statement) -> ResultSet:
            cursor = parsed.cursor
            if_exists = cursor.accept("IF EXISTS")
            name = cursor.name()
            if kind in _CONTAINERS:
                cursor.accept_any("CASCADE", "RESTRICT")
            cursor.expect_end()
            if if_exists and session.find(kind, name) is None:
                return already_dropped(name.name)
            found = session.require_ownership(kind, name, label)
            if found.properties.get("SYSTEM"):
                raise errors.insufficient_privileges(kind, found.name)
            drop(session, found)
            return status(f"{found.name} successfully dropped.")

        handler.__doc__ = drop.__doc__
        return statement(f"DROP {kind}")(handler)

    return register


def already_dropped(name: str) -> ResultSet:
    """Return what DROP IF EXISTS says when there is nothing to drop."""
    return status(f"Drop statement executed successfully ({name} already dropped).")
