"""The options that SHOW statements of SPCS objects share: LIKE, IN, STARTS WITH, LIMIT, OF TYPE."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from monad_dagster.local import errors
from monad_dagster.local.statements import Cursor, ObjectName, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

T = TypeVar("T")
MAX_ROWS = 10_000


@dataclass
class ShowOptions:
    """What a SHOW statement asks for."""

    like: str | None = None
    starts_with: str | None = None
    limit: int = MAX_ROWS
    after: str | None = None
    database: str | None = None
    schema: str | None = None
    pool: str | None = None
    excludes_jobs: bool = False

    def select(self, items: Iterable[T]) -> list[T]:
        """Return the items whose `name` matches, in order of name."""
        pattern = _like_pattern(self.like) if self.like is not None else None
        chosen = [
            item
            for item in sorted(items, key=lambda item: item.name)  # type: ignore[attr-defined]
            if (pattern is None or pattern.fullmatch(item.name))  # type: ignore[attr-defined]
            and item.name.startswith(self.starts_with or "")  # type: ignore[attr-defined]
            and (self.after is None or item.name > self.after)  # type: ignore[attr-defined]
        ]
        return chosen[: self.limit]


def parse_show_options(session: "Session", cursor: Cursor, *, scoped: bool = True) -> ShowOptions:
    """Read the options in the order Snowflake documents them, to the statement's end."""
    options = ShowOptions()
    options.excludes_jobs = cursor.accept("EXCLUDE JOBS")
    if cursor.accept("LIKE"):
        options.like = cursor.string()
    if scoped:
        _read_scope(session, cursor, options)
    if cursor.accept("STARTS WITH"):
        options.starts_with = cursor.string()
    if cursor.accept("LIMIT"):
        options.limit = min(cursor.integer(), MAX_ROWS)
        if cursor.accept("FROM"):
            options.after = cursor.string()
    if cursor.accept("OF TYPE"):
        cursor.identifier()
        while cursor.accept_op(","):
            cursor.identifier()
    cursor.expect_end()
    return options


def _read_scope(session: "Session", cursor: Cursor, options: ShowOptions) -> None:
    if not cursor.accept("IN"):
        options.database, options.schema = session.database, session.schema
        return
    if cursor.accept("ACCOUNT"):
        return
    if cursor.accept("COMPUTE POOL"):
        options.pool = session.lookup("COMPUTE POOL", cursor.name()).name
        return
    if cursor.accept("DATABASE"):
        name = None if cursor.at_end() or _is_option(cursor) else cursor.name()
        options.database = name.name if name else session.database
        if options.database is None:
            raise errors.no_current_database()
        _require(session, "DATABASE", ObjectName((options.database,)))
        return
    cursor.accept("SCHEMA")
    if cursor.at_end() or _is_option(cursor):
        options.database, options.schema = session.database, session.schema
        if options.schema is None:
            raise errors.no_current_schema()
        return
    options.database, options.schema = session.qualify_schema(cursor.name())
    _require(session, "SCHEMA", ObjectName((options.database, options.schema)))


def _is_option(cursor: Cursor) -> bool:
    return any(cursor.looking_at(word) for word in ("STARTS WITH", "LIMIT", "OF TYPE"))


def _require(session: "Session", kind: str, name: ObjectName) -> None:
    if session.find(kind, name) is None:
        text = ".".join(quote_identifier(part) for part in name.parts)
        raise errors.does_not_exist(kind, text)


def _like_pattern(like: str) -> re.Pattern[str]:
    parts = []
    at = 0
    while at < len(like):
        char = like[at]
        if char == "\\" and at + 1 < len(like):
            at += 1
            parts.append(re.escape(like[at]))
        else:
            parts.append({"%": ".*", "_": "."}.get(char, re.escape(char)))
        at += 1
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def truth(value: object) -> str:
    """Return a flag as SHOW prints it."""
    return "true" if value else "false"
