"""Statements, names and the cursor that hand-written statement parsers use.

Text is tokenised (`lexer.py`) before anything matches. The SQL engine parses SELECT and DML.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from monad_dagster.local import errors
from monad_dagster.local.sql.arguments import Arguments, Bind, Expression, bind_value
from monad_dagster.local.sql.lexer import Token, quote_identifier, quote_literal, tokenize

__all__ = [
    "Arguments", "Bind", "Cursor", "Expression", "ObjectName", "StageLocation", "Statement",
    "Token", "parse_name", "parse_stage_location", "quote_identifier", "quote_literal",
    "split_statements", "tokenize",
]  # fmt: skip


@dataclass(frozen=True)
class ObjectName:
    """A possibly qualified name, each part as stored (upper case unless it was quoted)."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(quote_identifier(part) for part in self.parts)

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]


@dataclass(frozen=True)
class StageLocation:
    """A stage and the path below it; `path` has no leading slash."""

    stage: ObjectName
    path: str = ""


@dataclass
class Statement:
    """One statement being executed.

    `cursor` stands after the leading keywords that selected the handler. Long handlers watch
    `cancelled` (an Event) or register `on_cancel`.
    """

    text: str
    tokens: list[Token]
    binds: dict[str, Bind] = field(default_factory=dict)
    query_id: str = ""
    modifiers: frozenset[str] = frozenset()
    parameters: dict[str, Any] = field(default_factory=dict)
    describe_only: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    _cancel_callbacks: list[Callable[[], None]] = field(default_factory=list)
    cursor: "Cursor" = field(init=False)
    source: str = field(init=False)  # the text before variables were replaced

    def __post_init__(self) -> None:
        self.cursor = Cursor(self)
        self.source = self.text

    @classmethod
    def parse(cls, sql: str, bindings: dict[str, Any] | None = None, **extra: Any) -> "Statement":
        """Tokenise *sql*; *bindings* is the wire's dictionary of numbered values."""
        tokens = tokenize(sql)
        while tokens and tokens[-1].kind == "op" and tokens[-1].value == ";":
            tokens.pop()
        binds = {
            number: Bind(str(bind.get("type", "TEXT")), bind.get("value"))
            for number, bind in (bindings or {}).items()
        }
        return cls(sql, tokens, binds, **extra)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call *callback* when the statement is canceled; at once if it already was."""
        self._cancel_callbacks.append(callback)
        if self.cancelled.is_set():
            callback()

    def cancel(self) -> None:
        """Mark the statement canceled and tell whoever waits for that."""
        self.cancelled.set()
        for callback in list(self._cancel_callbacks):
            callback()

    def words(self, limit: int = 8) -> list[str]:
        """Return the leading unquoted words in upper case."""
        out = []
        for token in self.tokens[:limit]:
            if token.kind != "word":
                break
            out.append(token.value)
        return out


def split_statements(sql: str) -> list[str]:
    """Split a script at top-level semicolons."""
    out, start = [], 0
    for token in tokenize(sql):
        if token.kind == "op" and token.value == ";":
            out.append(sql[start : token.start])
            start = token.end
    out.append(sql[start:])
    return [piece.strip() for piece in out if tokenize(piece)]


class Cursor:
    """Reads a statement's tokens from left to right."""

    def __init__(self, statement: Statement, at: int = 0) -> None:
        self.statement = statement
        self.at = at

    @property
    def tokens(self) -> Sequence[Token]:
        """All tokens of the statement."""
        return self.statement.tokens

    def peek(self, offset: int = 0) -> Token | None:
        """Return a coming token without reading it."""
        index = self.at + offset
        return self.tokens[index] if index < len(self.tokens) else None

    def next(self) -> Token:
        """Read one token."""
        token = self.peek()
        if token is None:
            raise errors.syntax_error("")
        self.at += 1
        return token

    def at_end(self) -> bool:
        """Tell whether every token was read."""
        return self.at >= len(self.tokens)

    def expect_end(self) -> None:
        """Raise a syntax error unless every token was read."""
        if not self.at_end():
            raise self.error()

    def error(self) -> errors.StatementError:
        """Return a syntax error at the current token."""
        token = self.peek()
        if token is None:
            return errors.syntax_error("")
        text = self.statement.text
        line = text.count("\n", 0, token.start) + 1
        position = token.start - (text.rfind("\n", 0, token.start) + 1)
        return errors.syntax_error(text[token.start : token.end], position, line)

    def looking_at(self, words: str) -> bool:
        """Tell whether the coming tokens are *words* (space separated)."""
        for offset, word in enumerate(words.split()):
            token = self.peek(offset)
            if token is None or not token.is_word(word):
                return False
        return True

    def accept(self, words: str) -> bool:
        """Read *words* (space separated) if they come next."""
        if not self.looking_at(words):
            return False
        self.at += len(words.split())
        return True

    def accept_any(self, *choices: str) -> str | None:
        """Read the first of *choices* that comes next and return it."""
        return next((choice for choice in choices if self.accept(choice)), None)

    def expect(self, words: str) -> None:
        """Read *words* or raise a syntax error."""
        if not self.accept(words):
            raise self.error()

    def accept_op(self, operator: str) -> bool:
        """Read *operator* if it comes next."""
        token = self.peek()
        if token is None or token.kind != "op" or token.value != operator:
            return False
        self.at += 1
        return True

    def expect_op(self, operator: str) -> None:
        """Read *operator* or raise a syntax error."""
        if not self.accept_op(operator):
            raise self.error()

    def identifier(self) -> str:
        """Read one identifier part and return it as stored."""
        token = self.peek()
        if token is None or token.kind not in {"word", "name"}:
            raise self.error()
        self.at += 1
        return token.value

    def identifier_as_written(self) -> str:
        """Read one identifier part without changing its case (keys inside a variant)."""
        start = self.peek()
        value = self.identifier()
        if start is None or start.kind == "name":
            return value
        return self.statement.text[start.start : start.end]

    def name(self) -> ObjectName:
        """Read a qualified name; IDENTIFIER(?) and IDENTIFIER('x') are resolved."""
        if self.looking_at("IDENTIFIER") and self._next_is_op("(", 1):
            self.at += 2
            value = self.string()
            self.expect_op(")")
            return parse_name(value)
        parts = [self.identifier()]
        while self.accept_op("."):
            # "db..name" leaves the schema out, which means PUBLIC.
            parts.append("PUBLIC" if self._next_is_op(".") else self.identifier())
        return ObjectName(tuple(parts))

    def _next_is_op(self, operator: str, offset: int = 0) -> bool:
        token = self.peek(offset)
        return token is not None and token.kind == "op" and token.value == operator

    def string(self) -> str:
        """Read a string literal or a bound value."""
        token = self.peek()
        if token is not None and token.kind == "string":
            self.at += 1
            return token.value
        if token is not None and token.kind == "bind":
            self.at += 1
            return str(self._bind(token))
        raise self.error()

    def _bind(self, token: Token) -> Any:
        bind = self.statement.binds.get(token.value)
        if bind is None:
            raise errors.compilation_error(2049, "42601", "Bind variable ? not set.")
        return bind.value

    def integer(self) -> int:
        """Read a whole number, with an optional sign, or a bound one."""
        negative = self.accept_op("-")
        value = self.literal()
        try:
            number = int(str(value))
        except ValueError:
            self.at -= 1
            raise self.error() from None
        return -number if negative else number

    def boolean(self) -> bool:
        """Read TRUE or FALSE (also as a string or a bound value)."""
        value = self.literal()
        if isinstance(value, bool):
            return value
        if str(value).upper() in {"TRUE", "FALSE", "1", "0"}:
            return str(value).upper() in {"TRUE", "1"}
        self.at -= 1
        raise self.error()

    def literal(self) -> Any:
        """Read one value: string, number, bound value, TRUE, FALSE, NULL or a bare word."""
        if self.accept_op("-"):
            value = self.literal()
            return -value if isinstance(value, int | float) else value
        token = self.next()
        if token.kind == "string":
            return token.value
        if token.kind == "bind":
            return bind_value(self.statement.binds.get(token.value))
        if token.kind == "number":
            return float(token.value) if re.search(r"[.eE]", token.value) else int(token.value)
        if token.kind == "word" and token.value in {"TRUE", "FALSE", "NULL"}:
            return {"TRUE": True, "FALSE": False, "NULL": None}[token.value]
        if token.kind in {"word", "name", "stage", "path"}:
            return token.value
        self.at -= 1
        raise self.error()

    def stage_location(self) -> StageLocation:
        """Read `@stage/path`, also quoted as a string or bound."""
        token = self.peek()
        if token is not None and token.kind == "stage":
            self.at += 1
            return parse_stage_location(token.value)
        value = self.string()
        if not value.startswith("@"):
            self.at -= 1
            raise self.error()
        return parse_stage_location(value)

    def arguments(self) -> "Arguments":
        """Read a parenthesised argument list, positional and `name => value`."""
        self.expect_op("(")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        while not self.accept_op(")"):
            token = self.peek()
            if token is not None and token.kind in {"word", "name"} and self._next_is_op("=>", 1):
                self.at += 2
                named[token.value.upper()] = self._argument()
            else:
                positional.append(self._argument())
            if not self.accept_op(",") and not self._next_is_op(")"):
                raise self.error()
        return Arguments(positional, named)

    def _argument(self) -> Any:
        """Read one constant argument; casts after it are skipped."""
        token = self.peek()
        if token is not None and token.kind == "word" and self._next_is_op("(", 1):
            return self._expression()
        value = self.literal()
        while self.accept_op("::"):
            self.identifier()
        if not (self._next_is_op(",") or self._next_is_op(")")):
            raise self.error()
        return value

    def _expression(self) -> "Expression":
        """Take the source text of a constant expression up to the next comma or bracket."""
        start, depth = self.next().start, 0
        end = start
        while (token := self.peek()) is not None:
            if token.kind == "op" and depth == 0 and token.value in {",", ")"}:
                break
            depth += {"(": 1, ")": -1}.get(token.value, 0) if token.kind == "op" else 0
            end = self.next().end
        return Expression(self.statement.text[start:end])

    def properties(self, *allowed: str, kind: str = "") -> dict[str, Any]:
        """Read `KEY = value` pairs to the end; values may be lists or nested in brackets.

        Args:
            allowed: Accepted keys; none means any.
            kind: The object kind, for the error of an unknown key.
        """
        out: dict[str, Any] = {}
        while not self.at_end():
            self.accept("WITH")
            key = self.identifier().upper()
            if allowed and key not in allowed:
                raise errors.invalid_property(key, kind) if kind else self.error()
            self.accept_op("=")
            out[key] = self.value()
            self.accept_op(",")
        return out

    def value(self) -> Any:
        """Read a property value: a literal, `( a, b )` as a list or `( K = v ... )` as a dict."""
        if not self.accept_op("("):
            token = self.peek()
            if token is not None and token.kind == "word" and self._next_is_op(".", 1):
                return str(self.name())
            return self.literal()
        if self._next_is_op("=", 1):
            nested: dict[str, Any] = {}
            while not self.accept_op(")"):
                key = self.identifier().upper()
                self.accept_op("=")
                nested[key] = self.value()
                self.accept_op(",")
            return nested
        items: list[Any] = []
        while not self.accept_op(")"):
            items.append(self.value())
            self.accept_op(",")
        return items


def parse_name(text: str) -> ObjectName:
    """Parse a qualified name given as text, such as the value of IDENTIFIER(?)."""
    cursor = Statement.parse(text).cursor
    if cursor.at_end():
        raise errors.syntax_error("")
    name = cursor.name()
    cursor.expect_end()
    return name


def parse_stage_location(text: str) -> StageLocation:
    """Parse `@db.schema."Stage"/some/path` (the leading @ is optional)."""
    body = text.removeprefix("@")
    at, quoted = 0, False
    while at < len(body) and (quoted or body[at] != "/"):
        quoted ^= body[at] == '"'
        at += 1
    name, path = body[:at], body[at:].lstrip("/")
    if name.startswith(("~", "%")):
        raise errors.unsupported(f"stage location @{name}")
    return StageLocation(parse_name(name), path)
