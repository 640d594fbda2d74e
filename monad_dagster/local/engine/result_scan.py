"""RESULT_SCAN: read the stored result of an earlier statement."""

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from monad_dagster.local import errors
from monad_dagster.local.protocol.arrow_results import ArrowRows
from monad_dagster.local.protocol.results import Column, ResultSet
from monad_dagster.local.sql import handlers
from monad_dagster.local.sql.statements import Arguments, Expression, Statement

if TYPE_CHECKING:
    from monad_dagster.local.protocol.queries import Query
    from monad_dagster.local.session import Session

_LAST = re.compile(r"LAST_QUERY_ID\s*\(\s*(-?\d+)?\s*\)", re.IGNORECASE)
_WHOLE = ("SELECT", "*", "FROM", "TABLE", "(", "RESULT_SCAN", "(")


def whole(session: "Session", statement: Statement) -> ResultSet | ArrowRows | None:
    """Return the stored result when the statement is `SELECT * FROM TABLE(RESULT_SCAN('id'))`."""
    tokens = statement.tokens
    if len(tokens) != len(_WHOLE) + 3 or tuple(t.value for t in tokens[: len(_WHOLE)]) != _WHOLE:
        return None
    if tokens[len(_WHOLE)].kind != "string":
        return None
    query = _find(session, tokens[len(_WHOLE)].value)
    assert query.result is not None
    return query.result


def _find(session: "Session", query_id: str) -> "Query":
    query = session.account.queries.get(query_id)
    if query is None or query.session.user != session.user:
        raise errors.StatementError(709, "02000", f"Statement {query_id} not found")
    query.done.wait()
    if query.error is not None:
        raise query.error
    return query


@handlers.table_function("RESULT_SCAN")
def result_scan(session: "Session", statement: Statement, args: Arguments) -> ResultSet:
    """Return a stored result as rows for further SQL."""
    value = args.get(0, "QUERY_ID")
    if isinstance(value, Expression):
        found = _LAST.fullmatch(value.sql.strip())
        value = session.query_id_at(int(found[1] or -1)) if found else None
    if value is None:
        raise errors.StatementError(709, "02000", "Statement not found")
    result = _find(session, str(value)).result
    assert result is not None
    return stored_rows(result)


def stored_rows(result: ResultSet | ArrowRows) -> ResultSet:
    """Return a result as plain rows."""
    if isinstance(result, ResultSet):
        return result
    columns = [Column(i["name"], i["type"], i["scale"], i["precision"]) for i in result.rowtype]
    rows: list[tuple[object, ...]] = []
    for table in result.read_tables():
        rows.extend(tuple(row.values()) for row in _plain(table).to_pylist())
    return ResultSet(columns, rows)


def _plain(table: pa.Table) -> pa.Table:
    """Undo the struct encoding of timestamps."""
    from monad_dagster.local.protocol.arrow_results import pc

    for index, field in enumerate(table.schema):
        if pa.types.is_struct(field.type) and field.type.get_field_index("epoch") >= 0:
            column = table.column(index)
            micros = pc.add(
                pc.multiply(pc.struct_field(column, "epoch"), 1_000_000),
                pc.divide(pc.struct_field(column, "fraction").cast(pa.int64()), 1000),
            )
            zone = "UTC" if field.type.get_field_index("timezone") >= 0 else None
            table = table.set_column(index, field.name, micros.cast(pa.timestamp("us", zone)))
    return table
