"""Decides who executes a statement: a registered handler or the SQL engine."""

import itertools
from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.engine import engine_sql
from monad_dagster.local.protocol import describing
from monad_dagster.local.protocol.arrow_results import ArrowRows
from monad_dagster.local.protocol.results import ResultSet, single, table, text
from monad_dagster.local.sql import handlers, variables
from monad_dagster.local.sql.statements import Statement, Token

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

SELECT = 0x1000

# First words of statements the SQL engine executes; everything else must have a handler.
_ENGINE_FIRST = frozenset(
    {"SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "BEGIN",
     "START", "COMMIT", "ROLLBACK"}
)  # fmt: skip
# First words Snowflake knows; anything else is a syntax error rather than a missing feature.
_KNOWN_FIRST = _ENGINE_FIRST | frozenset(
    {"SET", "UNSET", "CREATE", "ALTER", "DROP", "UNDROP", "SHOW", "DESCRIBE", "DESC", "GRANT", "REVOKE", "COPY",
     "CALL", "EXECUTE", "EXPLAIN", "USE", "COMMENT", "LIST", "LS", "PUT", "GET", "REMOVE", "RM"}
)  # fmt: skip
_ENGINE_SECOND = frozenset({"TABLE", "VIEW"})


def execute(session: "Session", statement: Statement) -> tuple[ResultSet | ArrowRows, int]:
    """Run one statement and return its result and Snowflake's statement type id.

    Raises:
        StatementError: Whatever Snowflake would report.
    """
    if not statement.tokens:
        raise errors.StatementError(900, "42601", "SQL compilation error: Empty SQL statement.")
    if describing.must_not_run(statement):
        return describing.describe(statement), 0
    session.account.extensions["local_uploads"].settle()
    _refuse_pipes(statement)
    variables.inline(session, statement)
    handler = handlers.find_statement(statement)
    if handler is not None:
        result = handler(session, statement)
        return result, result.statement_type_id
    special = _call(session, statement) or _sole_function(session, statement)
    if special is not None:
        return special, SELECT
    if _is_for_engine(statement):
        return engine_sql.execute(session, statement)
    words = statement.words(3)
    if not words or words[0] not in _KNOWN_FIRST:
        raise statement.cursor.error()
    raise errors.unsupported(" ".join(words))


def _refuse_pipes(statement: Statement) -> None:
    for token, following in itertools.pairwise(statement.tokens):
        if token.value == "->" and following.value == ">" and token.end == following.start:
            raise errors.unsupported("the pipe operator ->>")


def _is_for_engine(statement: Statement) -> bool:
    first = statement.tokens[0]
    if first.kind == "op" and first.value == "(":
        return True
    words = [word for word in statement.words() if word not in _SKIPPED]
    if not words:
        return False
    if words[0] in _ENGINE_FIRST:
        return True
    return words[0] in {"CREATE", "DROP", "ALTER"} and (
        len(words) > 1 and words[1] in _ENGINE_SECOND
    )


_SKIPPED = frozenset(
    {"OR", "REPLACE", "TEMP", "TEMPORARY", "TRANSIENT", "LOCAL", "GLOBAL", "VOLATILE", "SECURE"}
)


def _call(session: "Session", statement: Statement) -> ResultSet | None:
    """Run CALL function(...) or CALL object!METHOD(...)."""
    cursor = statement.cursor
    if not cursor.accept("CALL"):
        return None
    name = cursor.name()
    if cursor.accept_op("!"):
        method = cursor.identifier()
        entry = handlers.METHODS.get(method)
        if entry is None:
            raise errors.compilation_error(
                2141, "42601", f"Unknown user-defined function {name}!{method}"
            )
        value = entry.handler(session, statement, name, cursor.arguments())
        return single(method, value)
    entry = handlers.FUNCTIONS.get(str(name))
    if entry is None:
        raise errors.compilation_error(2140, "42601", f"Unknown function {name}")
    return single(name.name, entry.handler(session, statement, cursor.arguments()))


def _sole_function(session: "Session", statement: Statement) -> ResultSet | None:
    """Run `SELECT function(...) [AS name]`, so that its column is named as Snowflake names it."""
    tokens = statement.tokens
    if len(tokens) < 4 or not tokens[0].is_word("SELECT") or tokens[1].kind != "word":
        return None
    entry = handlers.FUNCTIONS.get(tokens[1].value)
    if entry is None or not _is(tokens[2], "("):
        return None
    cursor = statement.cursor
    cursor.at = 2
    try:
        args = cursor.arguments()
    except errors.StatementError:
        cursor.at = 0
        return None
    name = statement.text[tokens[1].start : tokens[cursor.at - 1].end].upper()
    if cursor.accept("AS") or (cursor.peek() and cursor.peek(1) is None):
        name = cursor.identifier()
    if not cursor.at_end():
        cursor.at = 0
        return None
    if statement.describe_only:
        return table([text(name)], [])
    return single(name, entry.handler(session, statement, args))


def _is(token: Token, operator: str) -> bool:
    return token.kind == "op" and token.value == operator
