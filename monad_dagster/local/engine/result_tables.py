"""Turns metadata results into Arrow tables, so that SQL can query them."""

import datetime as dt
import json
from typing import Any

import pyarrow as pa

from monad_dagster.local.protocol.results import Column, ResultSet

_ARROW = {
    "fixed": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp_ltz": pa.timestamp("us", "UTC"),
    "timestamp_tz": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
}


def result_table(result: ResultSet) -> pa.Table:
    """Return *result* as an Arrow table with DuckDB-friendly types."""
    arrays, fields = [], []
    for index, column in enumerate(result.columns):
        values = [_value(column, row[index]) for row in result.rows]
        array = pa.array(values, _type(column))
        arrays.append(array)
        fields.append(_field(column, array.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _type(column: Column) -> pa.DataType:
    if column.type == "fixed" and column.scale:
        return pa.decimal128(38, column.scale)
    return _ARROW.get(column.type, pa.string())


def _field(column: Column, type_: pa.DataType) -> pa.Field:
    if column.type in {"variant", "object", "array"}:
        return pa.field(column.name, type_, metadata={"ARROW:extension:name": "arrow.json"})
    return pa.field(column.name, type_)


def _value(column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.type in {"variant", "object", "array"}:
        return value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return (
            aware
            if column.type != "timestamp_ntz"
            else aware.astimezone(dt.UTC).replace(tzinfo=None)
        )
    if column.type == "text" and not isinstance(value, str):
        return json.dumps(value) if isinstance(value, dict | list) else str(value)
    return value
