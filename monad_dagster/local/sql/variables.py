"""Session variables: `$name` in a statement becomes the value that SET gave it."""

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.sql.lexer import quote_literal, tokenize
from monad_dagster.local.sql.statements import Cursor, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@dataclass(frozen=True)
class Variable:
    """One variable; `type` as SHOW VARIABLES prints it."""

    value: Any
    type: str
    created_on: dt.datetime
    updated_on: dt.datetime

    @property
    def sql(self) -> str:
        """Return the value as a literal."""
        value = self.value
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return str(value).upper()
        if isinstance(value, dt.datetime):
            return f"{quote_literal(str(value.replace(tzinfo=None)))}::TIMESTAMP_NTZ"
        if isinstance(value, dt.date):
            return f"{quote_literal(str(value))}::DATE"
        is_number = self.type in ("fixed", "real")
        return str(value) if is_number else quote_literal(str(value))


def inline(session: "Session", statement: Statement) -> None:
    """Replace the variables of a statement in place; $1 and $$ bodies stay.

    Raises:
        StatementError: 2211 for a variable that was not set.
    """
    wanted = [t for t in statement.tokens if t.kind == "variable" and not t.value.isdigit()]
    if not wanted:
        return
    pieces, copied = [], 0
    for token in wanted:
        found = session.variables.get(token.value)
        if found is None:
            raise errors.compilation_error(
                2211, "02000", f"Session variable '${token.value}' does not exist"
            )
        pieces += [statement.text[copied : token.start], found.sql]
        copied = token.end
    statement.text = "".join([*pieces, statement.text[copied:]])
    statement.tokens = [t for t in tokenize(statement.text) if (t.kind, t.value) != ("op", ";")]
    statement.cursor = Cursor(statement)
