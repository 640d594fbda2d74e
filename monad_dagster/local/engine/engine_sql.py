"""Runs SELECT, DML and table DDL: prepares the text, checks privileges, keeps the catalog true."""

import decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from monad_dagster.local import errors
from monad_dagster.local.engine import access, engine_errors, engine_functions, rewriting
from monad_dagster.local.engine.projections import source_texts
from monad_dagster.local.protocol.arrow_results import ArrowRows, rowtype_of
from monad_dagster.local.protocol.results import Column, ResultSet, status
from monad_dagster.local.sql.statements import Bind, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

SELECT = 0x1000


def execute(session: "Session", statement: Statement) -> tuple[ResultSet | ArrowRows, int]:
    """Execute a statement of the SQL engine."""
    from monad_dagster.local.engine import result_scan

    stored = result_scan.whole(session, statement)
    if stored is not None:
        return stored, SELECT
    prepared = rewriting.prepare(session, statement)
    try:
        return _execute(session, statement, prepared)
    finally:
        for name in prepared.tables:
            session.account.engine.run(session, f'DROP TABLE IF EXISTS temp.main."{name}"')


def _execute(
    session: "Session", statement: Statement, prepared: rewriting.Prepared
) -> tuple[ResultSet | ArrowRows, int]:
    from fakesnow.statement_type import statement_type_id
    from sqlglot import exp

    engine = session.account.engine
    expression = _parse(prepared.sql)
    type_id = statement_type_id(expression)
    engine_functions.check(expression)
    plan = access.analyze(session, expression)
    plan.check()
    if plan.computes and not statement.describe_only:
        session.require_warehouse()
    plan.prepare_information_schema(prepared.tables)
    if isinstance(expression, exp.Query):
        access.name_columns(expression, prepared.names, source_texts(statement.source))
        if statement.describe_only:
            return ArrowRows(engine.describe(session, expression)), SELECT
        rows = _select(session, expression, prepared.binds)
        return rows, SELECT
    if (words := plan.without_effect()) is not None:
        return status(words), type_id
    prepared.sql = engine_functions.escape_comments(expression) or prepared.sql
    batch = _batch(prepared.binds)
    if batch is None:
        table = engine.execute(session, prepared.sql, [bind_value(b) for b in prepared.binds])
        result = small_result(table)
    else:
        result = _execute_batch(session, expression, prepared.sql, batch)
    plan.apply()
    result.statement_type_id = type_id
    return result, type_id


def _parse(sql: str) -> Any:
    from fakesnow.dialect import parse_one

    try:
        return parse_one(sql)
    except Exception as error:
        raise engine_errors.translate(error) from error


def _select(session: "Session", expression: Any, binds: list[Bind]) -> ArrowRows:
    return session.account.engine.select(session, expression, [bind_value(b) for b in binds])


def _batch(binds: list[Bind]) -> list[list[Any]] | None:
    """Return rows of an array binding, or None for a plain one."""
    if not any(isinstance(bind.value, list) for bind in binds):
        return None
    columns = [[bind_value(Bind(b.type, v)) for v in b.value] for b in binds]
    return [list(row) for row in zip(*columns, strict=True)]


def _execute_batch(
    session: "Session", expression: Any, sql: str, batch: list[list[Any]]
) -> ResultSet:
    """Run an array binding as the one statement that it is: all rows or none."""
    from sqlglot import exp

    engine = session.account.engine
    with engine.atomic(session):
        values = expression.args.get("expression")
        if isinstance(expression, exp.Insert) and isinstance(values, exp.Values):
            engine.insert_many(session, expression, batch)
            inserted = len(batch) * len(values.expressions)
            return ResultSet([Column("number of rows inserted", "fixed")], [(inserted,)])
        return _run_batch(session, sql, batch)


def _run_batch(session: "Session", sql: str, batch: list[list[Any]]) -> ResultSet:
    total, columns = 0, [Column("number of rows inserted", "fixed")]
    for row in batch:
        result = small_result(session.account.engine.execute(session, sql, row))
        columns = list(result.columns)
        total += int(result.rows[0][0] or 0) if result.rows else 0
    return ResultSet(columns, [(total, *(0 for _ in columns[1:]))])


def small_result(table: pa.Table) -> ResultSet:
    """Return the result of DML or DDL as a JSON result."""
    types = [_duck_type(field.type) for field in table.schema]
    infos = rowtype_of(zip(table.schema.names, types, strict=True))
    columns = [Column(i["name"], i["type"], i["scale"], i["precision"]) for i in infos]
    return ResultSet(columns, [tuple(row.values()) for row in table.to_pylist()])


def _duck_type(type_: pa.DataType) -> str:
    if pa.types.is_integer(type_):
        return "BIGINT"
    if pa.types.is_boolean(type_):
        return "BOOLEAN"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP WITH TIME ZONE" if type_.tz else "TIMESTAMP"
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision},{type_.scale})"
    return "VARCHAR"


def bind_value(bind: Bind) -> Any:
    """Return the Python value of a bound variable."""
    from fakesnow.converter import from_binding

    if bind.value is None:
        return None
    try:
        if bind.type == "REAL":
            return float(bind.value)
        if bind.type == "FIXED" and "." in str(bind.value):
            return decimal.Decimal(bind.value)
        return from_binding({"type": bind.type, "value": bind.value})
    except (
        ValueError,
        AttributeError,
        OverflowError,
        OSError,
        TypeError,
        decimal.InvalidOperation,
    ):
        raise errors.StatementError(
            100038, "22018", f"Numeric value '{bind.value}' is not recognized"
        ) from None
