"""Prepares SQL text for the engine: what only the account knows becomes literals or tables.

IDENTIFIER(...) becomes the name it stands for, CURRENT_ROLE() and SYSTEM$ functions with constant
arguments become literals, TABLE(...) of the account's own table functions and RESULT_SCAN become
temporary tables. Bind variables that remain are returned in their order.
"""

import decimal
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.sql import handlers
from monad_dagster.local.sql.statements import (
    Arguments,
    Bind,
    Cursor,
    ObjectName,
    Statement,
    Token,
    parse_name,
    quote_literal,
)

if TYPE_CHECKING:
    from monad_dagster.local.protocol.results import ResultSet
    from monad_dagster.local.session import Session


@dataclass
class Prepared:
    """SQL for the engine, the binds left in it and the temporary tables made for it."""

    sql: str
    binds: list[Bind]
    tables: list[str]
    names: dict[str, str]  # literal text -> the call it replaced, for column names


def prepare(session: "Session", statement: Statement) -> Prepared:
    """Rewrite *statement* for the engine."""
    return _Rewriter(session, statement).run()


class _Rewriter:
    def __init__(self, session: "Session", statement: Statement) -> None:
        self.session = session
        self.statement = statement
        self.cursor = Cursor(statement)
        self.pieces: list[str] = []
        self.binds: list[Bind] = []
        self.tables: list[str] = []
        self.names: dict[str, str] = {}
        self.copied = 0

    def run(self) -> Prepared:
        text = self.statement.text
        if not self.statement.tokens:
            return Prepared("", [], [], {})
        while (token := self.cursor.peek()) is not None:
            replacement = self._replacement(token)
            if replacement is None:
                self.cursor.next()
                continue
            self.pieces.append(text[self.copied : token.start])
            self.pieces.append(replacement)
            self._remember(token, replacement)
            self.copied = self.statement.tokens[self.cursor.at - 1].end
        self.pieces.append(text[self.copied : self.statement.tokens[-1].end])
        return Prepared("".join(self.pieces), self.binds, self.tables, self.names)

    def _remember(self, token: Token, replacement: str) -> None:
        if token.kind == "word":
            end = self.statement.tokens[self.cursor.at - 1].end
            self.names[replacement.upper()] = self.statement.text[token.start : end].upper()

    def _replacement(self, token: Token) -> str | None:
        """Return the text that stands for the coming tokens and read them, or None."""
        if token.kind == "bind":
            return self._bind(token)
        if token.kind == "string":
            return self._string(token)
        if token.kind != "word":
            return self._method_call() if token.kind == "name" else None
        if token.value == "IDENTIFIER" and self._opens(1):
            return str(self.cursor.name())
        if token.value == "TABLE" and self._opens(1):
            return self._named_table() or self._table_function()
        if token.value in ("AT", "BEFORE") and self._is_time_travel():
            raise errors.unsupported(f"time travel ({token.value})")
        if token.value == "DIRECTORY" and self._opens(1):
            return self._directory()
        if token.value in _CONTEXT and self._context_applies(token):
            return self._context(token)
        if token.value in handlers.FUNCTIONS and self._opens(1):
            return self._function(token)
        if token.value.startswith("SYSTEM$"):
            raise errors.compilation_error(2140, "42601", f"Unknown function {token.value}")
        return self._method_call()

    def _string(self, token: Token) -> str | None:
        """Rewrite literals whose escapes the engine reads otherwise."""
        source = self.statement.text[token.start : token.end]
        if not source.startswith("$$"):
            return None
        self.cursor.next()
        return quote_literal(token.value)

    def _opens(self, offset: int) -> bool:
        following = self.cursor.peek(offset)
        return following is not None and following.kind == "op" and following.value == "("

    def _bind(self, token: Token) -> str:
        bind = self.statement.binds.get(token.value)
        if bind is None and self.statement.describe_only:
            self.cursor.next()
            return "NULL"
        if bind is None:
            raise errors.compilation_error(2049, "42601", "Bind variable ? not set.")
        self.cursor.next()
        self.binds.append(bind)
        following = self.cursor.peek()
        is_cast = following is not None and following.kind == "op" and following.value == "::"
        return "(?)" if is_cast else "?"  # the parser reads ?: as something else

    def _context_applies(self, token: Token) -> bool:
        before = self.cursor.tokens[self.cursor.at - 1] if self.cursor.at else None
        if before is not None and before.kind == "op" and before.value == ".":
            return False
        return self._opens(1) or token.value in _BARE

    def _context(self, token: Token) -> str:
        self.cursor.next()
        args = self.cursor.arguments() if self._opens(0) else Arguments([])
        if token.value == "LAST_QUERY_ID":
            value = self.session.query_id_at(args.integer(0, "NUM", -1))
        else:
            value = _CONTEXT[token.value](self.session)
        return "NULL" if value is None else literal(value)

    def _function(self, token: Token) -> str:
        self.cursor.next()
        args = self.cursor.arguments()
        if self.statement.describe_only:
            return "NULL"
        return literal(handlers.FUNCTIONS[token.value].handler(self.session, self.statement, args))

    def _table_function(self) -> str | None:
        start = self.cursor.at
        self.cursor.at += 2
        try:
            name = self.cursor.name()
        except errors.StatementError:
            self.cursor.at = start
            return None
        entry, target = self._table_entry(name)
        if entry is None:
            self.cursor.at = start
            return None
        args = self.cursor.arguments()
        self.cursor.expect_op(")")
        if target is None:
            result = entry.handler(self.session, self.statement, args)
        else:
            result = entry.handler(self.session, self.statement, target, args)
        return self.materialize(result)

    def _named_table(self) -> str | None:
        """Replace TABLE('name') by the name."""
        name, closing = self.cursor.peek(2), self.cursor.peek(3)
        if name is None or name.kind != "string" or closing is None or closing.value != ")":
            return None
        self.cursor.at += 4
        return str(parse_name(name.value))

    def _is_time_travel(self) -> bool:
        what, arrow = self.cursor.peek(2), self.cursor.peek(3)
        return (
            self._opens(1)
            and what is not None
            and what.is_word("OFFSET", "TIMESTAMP", "STATEMENT", "STREAM")
            and arrow is not None
            and arrow.value == "=>"
        )

    def _directory(self) -> str:
        """Replace DIRECTORY(@stage) by the stage's directory table."""
        self.cursor.at += 2
        location = self.cursor.stage_location()
        self.cursor.expect_op(")")
        entry = handlers.TABLE_FUNCTIONS["DIRECTORY"]
        return self.materialize(entry.handler(self.session, self.statement, Arguments([location])))

    def _table_entry(self, name: ObjectName) -> tuple[handlers.Entry | None, ObjectName | None]:
        if self.cursor.accept_op("!"):
            method = self.cursor.identifier()
            entry = handlers.TABLE_METHODS.get(method)
            if entry is None:
                raise errors.compilation_error(
                    2143, "42601", f"Unknown user-defined table function {name}!{method}"
                )
            return entry, name
        full = ".".join(name.parts)
        entry = handlers.TABLE_FUNCTIONS.get(full) or handlers.TABLE_FUNCTIONS.get(
            full.removeprefix(f"{self.session.database}.")
        )
        return entry, None

    def _method_call(self) -> str | None:
        """Replace `name!METHOD(...)` by its value."""
        index = self.cursor.at
        while index < len(self.cursor.tokens) and self.cursor.tokens[index].kind in {
            "word",
            "name",
        }:
            following = (
                self.cursor.tokens[index + 1] if index + 1 < len(self.cursor.tokens) else None
            )
            if following is None or following.kind != "op" or following.value not in {".", "!"}:
                return None
            if following.value == "!":
                return self._call_method()
            index += 2
        return None

    def _call_method(self) -> str:
        name = self.cursor.name()
        self.cursor.expect_op("!")
        method = self.cursor.identifier()
        entry = handlers.METHODS.get(method)
        if entry is None:
            raise errors.compilation_error(2140, "42601", f"Unknown function {name}!{method}")
        args = self.cursor.arguments()
        if self.statement.describe_only:
            return "NULL"
        return literal(entry.handler(self.session, self.statement, name, args))

    def materialize(self, result: "ResultSet") -> str:
        """Store a result as a temporary table and return its name."""
        from monad_dagster.local.engine.result_tables import result_table

        name = f"_MONAD_{uuid.uuid4().hex.upper()}"
        self.session.account.engine.register(self.session, name, result_table(result))
        self.tables.append(name)
        return f"TEMP.MAIN.{name}"


def literal(value: Any) -> str:
    """Return a Python value as a SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float | decimal.Decimal):
        return str(value)
    if isinstance(value, dict | list):
        return f"PARSE_JSON({quote_literal(json.dumps(value))})"
    return quote_literal(str(value))


def _available_roles(session: "Session") -> str:
    return json.dumps(sorted(session.catalog.roles_of_user(session.user)))


def _schema_name(session: "Session") -> str | None:
    return session.schema


_CONTEXT = {
    "CURRENT_ROLE": lambda s: s.role,
    "CURRENT_USER": lambda s: s.user,
    "CURRENT_WAREHOUSE": lambda s: s.warehouse,
    "CURRENT_DATABASE": lambda s: s.database,
    "CURRENT_SCHEMA": _schema_name,
    "CURRENT_SESSION": lambda s: str(s.id),
    "CURRENT_ACCOUNT": lambda s: s.account.name,
    "CURRENT_ACCOUNT_NAME": lambda s: s.account.name,
    "CURRENT_ORGANIZATION_NAME": lambda s: s.account.organization,
    "CURRENT_REGION": lambda s: s.account.region,
    "CURRENT_VERSION": lambda s: s.account.version,
    "CURRENT_CLIENT": lambda s: f"{s.client} {s.client_version}".strip(),
    "CURRENT_ROLE_TYPE": lambda s: "ROLE",
    "CURRENT_SECONDARY_ROLES": lambda s: '{"roles":"","value":""}',
    "CURRENT_AVAILABLE_ROLES": _available_roles,
    "LAST_QUERY_ID": lambda s: s.query_id_at(-1),
}
_BARE = frozenset({"CURRENT_USER"})  # may be written without brackets
