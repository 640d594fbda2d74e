"""Query results as Snowflake's Arrow: row types, column conversion, spooled chunks.

The first chunk travels inline; the rest lies on disk until a client fetches it, so the account's
memory does not grow with the result.
"""

import io
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute as _compute

pc: Any = _compute  # its functions are made at import, so type checkers do not see them

BATCH_ROWS = 122_880  # DuckDB's row group: batches come without copying
_INLINE_ROWS = 10_000
_CHUNK_BYTES = 12 * 1024 * 1024
_TEXT_LENGTH = 16777216
_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT",
     "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
)  # fmt: skip
_SIMPLE = {
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIME": "time",
    "JSON": "variant",
    "BLOB": "binary",
    "DOUBLE": "real",
    "FLOAT": "real",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP_S": "timestamp_ntz",
    "TIMESTAMP_MS": "timestamp_ntz",
    "TIMESTAMP_NS": "timestamp_ntz",
    "TIMESTAMP WITH TIME ZONE": "timestamp_tz",
}


def snowflake_type(duck: str) -> tuple[str, int | None, int | None]:
    """Return (wire type, precision, scale) of a DuckDB type."""
    if duck in _INTEGERS:
        return "fixed", 38, 0
    if match := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", duck):
        return "fixed", int(match.group(1)), int(match.group(2))
    if duck.endswith("]"):
        return "array", None, None
    if duck.startswith(("STRUCT", "MAP")):
        return "object", None, None
    kind = _SIMPLE.get(duck, "text")
    return (kind, 0, 9) if kind.startswith("time") else (kind, None, None)


def rowtype_of(columns: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Describe result columns, given as (name, DuckDB type), as the wire protocol does."""
    out = []
    for name, duck in columns:
        kind, precision, scale = snowflake_type(duck)
        length = _TEXT_LENGTH if kind in {"text", "variant", "object", "array"} else None
        length = 8388608 if kind == "binary" else length
        out.append(
            {
                "name": name, "database": "", "schema": "", "table": "", "nullable": True,
                "type": kind, "length": length, "byteLength": length,
                "precision": precision, "scale": scale, "collation": None,
            }
        )  # fmt: skip
    return out


@dataclass
class ArrowRows:
    """A complete result: the first chunk in memory, further chunks as files."""

    rowtype: list[dict[str, Any]]
    inline: bytes = b""
    total: int = 0
    chunks: list["Chunk"] = field(default_factory=list)
    directory: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def collect(
        cls, rowtype: list[dict[str, Any]], reader: pa.RecordBatchReader, spool: Path
    ) -> "ArrowRows":
        """Drain *reader* into an inline chunk and files below *spool*."""
        result = cls(rowtype)
        writer: _ChunkWriter | None = None
        for batch in _batches(reader):
            converted = convert_batch(batch, rowtype)
            if not result.inline:
                head = converted.slice(0, _INLINE_ROWS)
                result.inline = _to_ipc(head)
                result.total = head.num_rows
                converted = converted.slice(_INLINE_ROWS)
            if not converted.num_rows:
                continue
            if writer is None:
                result.directory = spool / uuid.uuid4().hex
                result.directory.mkdir(parents=True)
                writer = _ChunkWriter(result.directory, result.chunks)
            writer.write(converted)
            result.total += converted.num_rows
        if writer is not None:
            writer.finish()
        if not result.inline:
            result.inline = _to_ipc(convert_batch(_empty(reader.schema), rowtype))
        return result

    @classmethod
    def from_table(cls, rowtype: list[dict[str, Any]], table: pa.Table, spool: Path) -> "ArrowRows":
        """Wrap a small in-memory table."""
        return cls.collect(rowtype, table.to_reader(), spool)

    def read_tables(self) -> Iterator[pa.Table]:
        """Yield the chunks back as Arrow tables (in Snowflake's encoding)."""
        yield pa.ipc.open_stream(self.inline).read_all()
        for chunk in self.chunks:
            with pa.OSFile(str(chunk.path)) as file:
                yield pa.ipc.open_stream(file).read_all()

    def discard(self) -> None:
        """Remove the files."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Chunk:
    """One spooled part of a result."""

    path: Path
    row_count: int
    size_bytes: int


class _ChunkWriter:
    def __init__(self, directory: Path, chunks: list[Chunk]) -> None:
        self._directory = directory
        self._chunks = chunks
        self._sink: pa.OSFile | None = None
        self._writer: Any = None
        self._rows = 0
        self._path = directory

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._path = self._directory / f"{len(self._chunks)}.arrow"
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa.ipc.new_stream(self._sink, batch.schema)
        self._writer.write_batch(batch)
        self._rows += batch.num_rows
        if self._sink is not None and self._sink.tell() >= _CHUNK_BYTES:
            self.finish()

    def finish(self) -> None:
        if self._writer is None or self._sink is None:
            return
        self._writer.close()
        size = self._sink.tell()
        self._sink.close()
        self._chunks.append(Chunk(self._path, self._rows, size))
        self._writer, self._sink, self._rows = None, None, 0


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        if batch.num_rows:
            yield batch


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def _to_ipc(batch: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        if batch.num_rows:  # the connector's reader crashes on an empty batch of structs
            writer.write_batch(batch)
    return sink.getvalue()


def convert_batch(batch: pa.RecordBatch, rowtype: list[dict[str, Any]]) -> pa.RecordBatch:
    """Convert DuckDB's Arrow columns to the layout Snowflake's clients expect."""
    arrays, fields = [], []
    for column, info in zip(batch.columns, rowtype, strict=True):
        array = _convert(column, info["type"])
        metadata = {
            "logicalType": info["type"].upper(),
            "precision": str(info["precision"] or 38),
            "scale": str(info["scale"] or 0),
            "charLength": str(info["length"] or 0),
        }
        arrays.append(array)
        fields.append(pa.field(info["name"], array.type, True, metadata))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _convert(array: pa.Array, kind: str) -> pa.Array:
    type_ = array.type
    if pa.types.is_timestamp(type_):
        return _timestamp(array)
    if pa.types.is_time(type_):
        return pc.multiply(array.cast(pa.time64("us")).cast(pa.int64()), 1000)
    if pa.types.is_unsigned_integer(type_):
        return array.cast(pa.int64())
    if pa.types.is_float32(type_):
        return array.cast(pa.float64())
    if pa.types.is_nested(type_):
        import json

        return pa.array(
            [None if v is None else json.dumps(v, default=str) for v in array.to_pylist()]
        )
    if pa.types.is_null(type_) or (kind == "text" and not pa.types.is_string(type_)):
        return array.cast(pa.string())
    return array


_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _timestamp(array: pa.Array) -> pa.Array:
    """Return the struct of epoch seconds and nanoseconds, with a UTC offset where zoned."""
    unit = _PER_SECOND[array.type.unit]
    ticks = array.cast(pa.int64())
    # Integer division truncates towards zero, so take the remainder's sign into account.
    quotient = pc.divide(ticks, unit)
    remainder = pc.subtract(ticks, pc.multiply(quotient, unit))
    negative = pc.less(remainder, 0)
    epoch = pc.subtract(quotient, negative.cast(pa.int64()))
    fraction = pc.add(remainder, pc.multiply(negative.cast(pa.int64()), unit))
    nanos = pc.multiply(fraction, 1_000_000_000 // unit).cast(pa.int32())
    names, columns = ["epoch", "fraction"], [epoch, nanos]
    if array.type.tz:
        names.append("timezone")
        columns.append(pa.array([1440] * len(array), pa.int32()))
    fields = [pa.field(n, c.type, False) for n, c in zip(names, columns, strict=True)]
    filled = [pc.fill_null(c, 0) for c in columns]
    return pa.StructArray.from_arrays(filled, fields=fields, mask=array.is_null())
