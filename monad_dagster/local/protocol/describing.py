"""Answers to describe-only requests: a statement's columns and bind variables, without running it.

Queries are described by the SQL engine (`engine_sql.py`), which knows their columns; here is the
rest. Clients ask before an `executemany` and for `cursor.describe()`.
"""

from typing import Any

from monad_dagster.local.protocol.results import ResultSet, number, table, text
from monad_dagster.local.sql.statements import Statement

# Statements that only read, so that running them describes them.
_READS = frozenset({"SHOW", "DESCRIBE", "DESC", "LIST", "LS"})
_QUERIES = frozenset({"SELECT", "WITH", "VALUES"})
_DML = {
    "INSERT": ("inserted",),
    "UPDATE": ("updated",),
    "DELETE": ("deleted",),
    "MERGE": ("inserted", "updated"),
}


def must_not_run(statement: Statement) -> bool:
    """Tell whether a describe-only request is about a statement that changes something."""
    if not statement.describe_only or not statement.tokens:
        return False
    first = statement.tokens[0]
    return first.value != "(" and first.value not in _READS | _QUERIES


def describe(statement: Statement) -> ResultSet:
    """Return the columns that the statement's result would have, and no row."""
    changed = _DML.get(statement.tokens[0].value)
    if changed is None:
        return table([text("status")], [])
    columns = [number(f"number of rows {what}") for what in changed]
    if statement.tokens[0].value == "UPDATE":
        columns.append(number("number of multi-joined rows updated"))
    return table(columns, [])


def bind_facts(statement: Statement) -> dict[str, Any]:
    """Return what a describe-only answer says of the statement's bind variables."""
    binds = sum(token.kind == "bind" for token in statement.tokens)
    is_insert = bool(statement.tokens) and statement.tokens[0].is_word("INSERT")
    supported = is_insert and any(token.is_word("VALUES") for token in statement.tokens)
    return {"numberOfBinds": binds, "arrayBindSupported": supported and binds > 0}
