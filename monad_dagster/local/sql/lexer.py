"""The SQL lexer: tokens robust to what real clients send.

Comments inside PUT, `$$` bodies, backslash escapes beside doubled quotes, globs that look like
comments, quoted stage names. It knows tokens only; `statements.py` reads them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from monad_dagster.local import errors

_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_PATH = re.compile(r"file://[^\s;]*", re.IGNORECASE)
_OPERATORS = ("<=>", "=>", "||", "::", "<>", "!=", ">=", "<=", "->")
_PLAIN_NAME = re.compile(r"[A-Z_][A-Z0-9_$]*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}


@dataclass(frozen=True)
class Token:
    """One lexical unit.

    Kinds: word (value in upper case), name (a quoted identifier), string, number, bind (value is
    the 1-based number as text), stage (an unquoted stage location), path (an unquoted file://),
    variable ($name or $1), op.
    """

    kind: str
    value: str
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        """Tell whether this is one of the given unquoted words."""
        return self.kind == "word" and self.value in words


def quote_identifier(name: str) -> str:
    """Return *name* as SQL text, quoted only where needed."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Return *value* as a single-quoted SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def tokenize(sql: str) -> list[Token]:
    """Split *sql* into tokens, dropping white space and comments.

    Raises:
        StatementError: 1003 for an unterminated literal or comment.
    """
    return list(_Lexer(sql))


class _Lexer:
    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.at = 0
        self.binds = 0

    def __iter__(self) -> Iterator[Token]:
        while self._skip_blank():
            start = self.at
            kind, value = self._read()
            yield Token(kind, value, start, self.at)

    def _skip_blank(self) -> bool:
        sql = self.sql
        while self.at < len(sql):
            if sql[self.at].isspace():
                self.at += 1
            elif sql.startswith(("--", "//"), self.at):
                end = sql.find("\n", self.at)
                self.at = len(sql) if end < 0 else end + 1
            elif sql.startswith("/*", self.at):
                end = sql.find("*/", self.at + 2)
                if end < 0:
                    raise errors.syntax_error("/*", self.at)
                self.at = end + 2
            else:
                return True
        return False

    def _read(self) -> tuple[str, str]:
        sql, at = self.sql, self.at
        char = sql[at]
        if char == "'":
            return "string", self._string()
        if char == '"':
            return "name", self._quoted('"')
        if sql.startswith("$$", at):
            return "string", self._dollar()
        if char == "@":
            return "stage", self._stage()
        if match := _PATH.match(sql, at):
            self.at = match.end()
            return "path", match.group()
        if match := _WORD.match(sql, at):
            self.at = match.end()
            return "word", match.group().upper()
        if match := _NUMBER.match(sql, at):
            self.at = match.end()
            return "number", match.group()
        return self._symbol()

    def _symbol(self) -> tuple[str, str]:
        sql, at = self.sql, self.at
        if sql[at] == "?":
            self.at += 1
            self.binds += 1
            return "bind", str(self.binds)
        if match := re.compile(r":(\d+)").match(sql, at):
            self.at = match.end()
            return "bind", match.group(1)
        if match := re.compile(r"\$\w+").match(sql, at):
            self.at = match.end()
            return "variable", match.group()[1:].upper()
        for operator in _OPERATORS:
            if sql.startswith(operator, at):
                self.at += len(operator)
                return "op", operator
        self.at += 1
        return "op", sql[at]

    def _string(self) -> str:
        sql, out, at = self.sql, [], self.at + 1
        while at < len(sql):
            char = sql[at]
            if char == "\\" and at + 1 < len(sql):
                piece, at = _escape(sql, at + 1)
                out.append(piece)
            elif char == "'" and sql.startswith("''", at):
                out.append("'")
                at += 2
            elif char == "'":
                self.at = at + 1
                return "".join(out)
            else:
                out.append(char)
                at += 1
        raise errors.syntax_error("'", self.at)

    def _quoted(self, quote: str) -> str:
        sql, at = self.sql, self.at + 1
        out = []
        while at < len(sql):
            if sql.startswith(quote * 2, at):
                out.append(quote)
                at += 2
            elif sql[at] == quote:
                self.at = at + 1
                return "".join(out)
            else:
                out.append(sql[at])
                at += 1
        raise errors.syntax_error(quote, self.at)

    def _dollar(self) -> str:
        end = self.sql.find("$$", self.at + 2)
        if end < 0:
            raise errors.syntax_error("$$", self.at)
        body = self.sql[self.at + 2 : end]
        self.at = end + 2
        return body

    def _stage(self) -> str:
        sql, start, at = self.sql, self.at, self.at + 1
        while at < len(sql) and not (sql[at].isspace() or sql[at] in ",();"):
            if sql[at] == '"':
                self.at = at
                self._quoted('"')
                at = self.at
            else:
                at += 1
        self.at = at
        return sql[start:at]


def _escape(sql: str, at: int) -> tuple[str, int]:
    char = sql[at]
    if char == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", sql[at + 1 : at + 5]):
        return chr(int(sql[at + 1 : at + 5], 16)), at + 5
    if char == "x" and re.fullmatch(r"[0-9a-fA-F]{2}", sql[at + 1 : at + 3]):
        return chr(int(sql[at + 1 : at + 3], 16)), at + 3
    return _ESCAPES.get(char, char), at + 1
