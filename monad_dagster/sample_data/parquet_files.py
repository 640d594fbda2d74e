"""Streams Parquet files in the types that a Snowflake table gets from them.

Parquet declares its types, so nothing is inferred: integers, floats, text, booleans, dates
and timestamps are kept, nested and binary columns are refused by name.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from monad_dagster.errors import ConfigError, problem
from monad_dagster.sample_data.csv_files import unreadable
from monad_dagster.sample_data.inference import ARROW_TYPES, ColumnType

SUFFIXES = (".parquet",)
PANDAS_INDEX = "__index_level_0__"  # pandas writes its row labels under this name
_BATCH_ROWS = 65_536
_NUMBER_DIGITS = 18  # decimals up to this fit a 64-bit integer


def read_schema(path: Path) -> tuple[pa.Schema, int]:
    """Return the schema and the number of rows of a Parquet file.

    Raises:
        ConfigError: The file is not readable as Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def column_type(path: Path, field: pa.Field) -> ColumnType:
    """Return the Snowflake type of a Parquet column.

    Raises:
        ConfigError: The column is nested or binary.
    """
    kind = field.type.value_type if pt.is_dictionary(field.type) else field.type
    if pt.is_decimal(kind):
        whole = kind.scale == 0 and kind.precision <= _NUMBER_DIGITS
        return ColumnType.NUMBER if whole else ColumnType.FLOAT
    for test, result in (
        (pt.is_boolean, ColumnType.BOOLEAN),
        (pt.is_integer, ColumnType.NUMBER),
        (pt.is_floating, ColumnType.FLOAT),
        (pt.is_date, ColumnType.DATE),
        (pt.is_timestamp, ColumnType.TIMESTAMP),
        (pt.is_string, ColumnType.TEXT),
        (pt.is_large_string, ColumnType.TEXT),
        (pt.is_null, ColumnType.TEXT),
    ):
        if test(kind):
            return result
    raise ConfigError(
        problem(
            f"{path}: column {field.name} has a type that cannot become a table column.",
            f"Its type is {field.type}.",
            "Leave it out, or write it as numbers, text, booleans, dates or timestamps.",
        )
    )


def stream_typed(path: Path, columns: list[tuple[str, ColumnType]]) -> Iterator[list[pa.Array]]:
    """Yield batches as lists of arrays in the given columns and types.

    Args:
        path: The file.
        columns: Name in the file and wanted type.

    Raises:
        ConfigError: A value does not fit its type, or the file is damaged.
    """
    names = [name for name, _ in columns]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield [_cast(batch.column(name), kind) for name, kind in columns]
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def _cast(values: pa.Array, kind: ColumnType) -> pa.Array:
    """Cast to the table's type; finer timestamps are cut to microseconds, zones become UTC."""
    if pt.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(ARROW_TYPES[kind], safe=kind is not ColumnType.TIMESTAMP)
