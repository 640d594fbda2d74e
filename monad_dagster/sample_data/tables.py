"""Finds the tables of a user's folder and prepares them as Parquet files for a stage.

A file `orders.csv` or a folder `orders/` of such files is the table ORDERS. Types come from
`inference` (CSV) or from the file (Parquet); names are upper-cased as Snowflake does with
unquoted identifiers. Quote them in DDL all the same: one may be a reserved word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monad_dagster.errors import ConfigError, MonadDagsterError, problem
from monad_dagster.sample_data import csv_files, parquet_files
from monad_dagster.sample_data.inference import ARROW_TYPES, ColumnType, TypeInference, convert

DEFAULT_ROWS_PER_FILE = 1_000_000
_SUFFIXES = csv_files.SUFFIXES + parquet_files.SUFFIXES
_KINDS = "CSV, CSV.GZ, TSV, TSV.GZ or Parquet"


@dataclass(frozen=True)
class TableColumn:
    """One column of a table.

    Attributes:
        name: Name in Snowflake, upper case.
        source_name: Name in the file.
        sql_type: Snowflake type, as DDL takes it.
    """

    name: str
    source_name: str
    sql_type: ColumnType


@dataclass(frozen=True)
class TableSource:
    """A table in a user's folder; files are scanned on first use of its columns.

    Attributes:
        name: Name in Snowflake, upper case.
        paths: Its files, sorted.
    """

    name: str
    paths: tuple[Path, ...]

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """Columns with their types, after a look at the whole table.

        Raises:
            ConfigError: A file is empty, damaged or differs from its siblings.
        """
        return self._scan[0]

    @property
    def row_count(self) -> int:
        """Number of rows, after a look at the whole table."""
        return self._scan[1]

    @property
    def is_parquet(self) -> bool:
        """Whether the files are Parquet; CSV otherwise."""
        return _suffix(self.paths[0]) in parquet_files.SUFFIXES

    @cached_property
    def _scan(self) -> tuple[tuple[TableColumn, ...], int]:
        columns, rows = _scan_parquet(self.paths) if self.is_parquet else _scan_csv(self.paths)
        if rows == 0:
            raise ConfigError(
                problem(
                    f"Table {self.name} has no rows.",
                    f"Read: {', '.join(str(path) for path in self.paths[:5])}.",
                    "Add rows or remove the file.",
                )
            )
        return columns, rows

    def write_parquet(
        self, output_dir: Path, max_rows_per_file: int = DEFAULT_ROWS_PER_FILE
    ) -> list[Path]:
        """Write the table as Parquet files of bounded size, with names and types of `columns`.

        Parquet files that already have these names, types and sizes are not copied: the
        returned list then holds the source's own paths.

        Args:
            output_dir: Folder for the files, created if missing; an earlier call's are replaced.
            max_rows_per_file: Upper bound of the rows of one file.

        Returns:
            The files, in order.

        Raises:
            ConfigError: A file is empty, damaged or differs from its siblings.
            MonadDagsterError: Writing failed, for example on a full disk.
        """
        schema = pa.schema([(c.name, ARROW_TYPES[c.sql_type]) for c in self.columns])
        if self.is_parquet and _all_ready(self.paths, schema, max_rows_per_file):
            return list(self.paths)
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            for stale in output_dir.glob(f"{self.name}-[0-9]*.parquet"):
                stale.unlink()
            return _write_parts(self, schema, output_dir, max_rows_per_file)
        except OSError as error:
            raise MonadDagsterError(
                problem(
                    f"Table {self.name} could not be written to {output_dir}.",
                    f"The file system answered: {error.strerror or error}.",
                    "Free some space or name another folder, then run the command again.",
                    f"`df -h {output_dir}` shows the file system.",
                )
            ) from error

    def batches(self) -> Iterator[list[pa.Array]]:
        """Yield the rows in blocks, one array for each of `columns`."""
        wanted = [(column.source_name, column.sql_type) for column in self.columns]
        for path in self.paths:
            if self.is_parquet:
                yield from parquet_files.stream_typed(path, wanted)
                continue
            names, delimiter = csv_files.read_header(path)
            for batch in csv_files.stream_text(path, names, delimiter):
                yield [convert(batch.column(name), kind) for name, kind in wanted]


def discover_tables(folder: Path) -> list[TableSource]:
    """Find the tables of *folder*: one for each data file or folder of data files.

    Names that begin with `.` or `_` are ignored, and so are files of other kinds.

    Args:
        folder: The user's folder.

    Returns:
        Tables sorted by name.

    Raises:
        ConfigError: There is no table, or two claim the same name.
    """
    if not folder.is_dir():
        raise ConfigError(
            problem(
                f"Data folder {folder} cannot be read.",
                "It is not a folder." if folder.exists() else "It does not exist.",
                f"Name a folder with one {_KINDS} file, or folder of such files, for each table.",
            )
        )
    found: dict[str, TableSource] = {}
    for entry in sorted(folder.iterdir()):
        paths = _data_files(entry)
        if not paths:
            continue
        table = TableSource(_identifier(_stem(entry)), paths)
        if table.name in found:
            raise ConfigError(
                problem(
                    f"Data folder {folder} has two sources for table {table.name}.",
                    f"They are {found[table.name].paths[0]} and {paths[0]}.",
                    "Rename or remove one of them.",
                )
            )
        found[table.name] = table
    if not found:
        raise ConfigError(
            problem(
                f"Data folder {folder} holds no table.",
                f"It has no {_KINDS} file.",
                "Add one file, or one folder of files, for each table.",
            )
        )
    return [found[name] for name in sorted(found)]


def _data_files(entry: Path) -> tuple[Path, ...]:
    """Return the data files behind a folder entry: itself, or what a folder directly holds."""
    if entry.name.startswith((".", "_")):
        return ()
    if entry.is_file():
        return (entry,) if _suffix(entry) else ()
    inside = [path for path in sorted(entry.iterdir()) if not path.name.startswith((".", "_"))]
    paths = tuple(path for path in inside if path.is_file() and _suffix(path))
    if len({_suffix(path) in parquet_files.SUFFIXES for path in paths}) > 1:
        raise ConfigError(
            problem(
                f"Folder {entry} mixes CSV and Parquet files.",
                f"It holds {', '.join(path.name for path in paths[:5])}.",
                "Keep one kind for each table.",
            )
        )
    return paths


def _suffix(path: Path) -> str:
    """Return the data suffix of a file name, or nothing."""
    name = path.name.lower()
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _stem(entry: Path) -> str:
    """Return the name of a file without its data suffix, or of a folder."""
    return entry.name if entry.is_dir() else entry.name[: -len(_suffix(entry))]


def _identifier(name: str) -> str:
    """Turn any name into an upper-case Snowflake identifier that needs no quotes."""
    cleaned = re.sub(r"[^A-Z0-9_$]+", "_", name.strip().upper()).strip("_") or "COLUMN"
    return f"_{cleaned}" if cleaned[0].isdigit() or cleaned[0] == "$" else cleaned


def _name_columns(path: Path, names: list[str]) -> list[str]:
    """Return the Snowflake names of a file's columns; they must differ."""
    identifiers = [_identifier(name) for name in names]
    for position, identifier in enumerate(identifiers):
        first = identifiers.index(identifier)
        if first != position:
            raise ConfigError(
                problem(
                    f"{path}: two columns get the name {identifier}.",
                    f"They are {names[first]!r} and {names[position]!r}.",
                    "Rename one of them; Snowflake names ignore case and punctuation here.",
                )
            )
    return identifiers


def _differs(path: Path, first: Path, names: list[str], expected: list[str]) -> ConfigError:
    """Word a file whose columns are not those of the table's first file."""
    return ConfigError(
        problem(
            f"{path} does not fit {first}, a file of the same table.",
            f"Missing: {sorted(set(expected) - set(names)) or 'none'}; "
            f"additional: {sorted(set(names) - set(expected)) or 'none'}; "
            f"expected: {expected}.",
            "Give all files of a table the same columns in the same order.",
        )
    )


def _scan_csv(paths: tuple[Path, ...]) -> tuple[tuple[TableColumn, ...], int]:
    """Read every value of the files once, to count rows and infer types."""
    expected, _ = csv_files.read_header(paths[0])
    identifiers = _name_columns(paths[0], expected)
    inferences = [TypeInference() for _ in expected]
    rows = 0
    for path in paths:
        names, delimiter = csv_files.read_header(path)
        if names != expected:
            raise _differs(path, paths[0], names, expected)
        for batch in csv_files.stream_text(path, names, delimiter):
            rows += batch.num_rows
            for inference, values in zip(inferences, batch.columns, strict=True):
                inference.observe(values)
    columns = zip(identifiers, expected, (i.result for i in inferences), strict=True)
    return tuple(TableColumn(*column) for column in columns), rows


def _scan_parquet(paths: tuple[Path, ...]) -> tuple[tuple[TableColumn, ...], int]:
    """Compare the schemas of the files; integers widen to floats where they meet them."""
    kinds: dict[str, ColumnType] = {}
    rows = 0
    for path in paths:
        schema, count = parquet_files.read_schema(path)
        rows += count
        fields = [field for field in schema if field.name != parquet_files.PANDAS_INDEX]
        names = [field.name for field in fields]
        if kinds and names != list(kinds):
            raise _differs(path, paths[0], names, list(kinds))
        for field in fields:
            kind = parquet_files.column_type(path, field)
            if pa.types.is_null(field.type):  # a file in which the column is empty
                kinds.setdefault(field.name, kind)
                continue
            kinds[field.name] = _merge(path, field.name, kinds.get(field.name, kind), kind)
    identifiers = _name_columns(paths[0], list(kinds))
    columns = zip(identifiers, kinds, kinds.values(), strict=True)
    return tuple(TableColumn(*column) for column in columns), rows


def _merge(path: Path, name: str, before: ColumnType, now: ColumnType) -> ColumnType:
    """Return the type that holds both; only numbers and dates widen."""
    pair = {before, now}
    if before is now:
        return now
    if pair == {ColumnType.NUMBER, ColumnType.FLOAT}:
        return ColumnType.FLOAT
    if pair == {ColumnType.DATE, ColumnType.TIMESTAMP}:
        return ColumnType.TIMESTAMP
    raise ConfigError(
        problem(
            f"{path}: column {name} changes its type between files of one table.",
            f"It is {now} here and {before} in an earlier file.",
            "Write the column with one type in all files.",
        )
    )


def _all_ready(paths: tuple[Path, ...], schema: pa.Schema, max_rows: int) -> bool:
    """Tell whether the source's own files can be uploaded as they are."""
    found = [parquet_files.read_schema(path) for path in paths]
    return all(own.remove_metadata().equals(schema) and rows <= max_rows for own, rows in found)


def _write_parts(
    table: TableSource, schema: pa.Schema, output_dir: Path, max_rows: int
) -> list[Path]:
    """Write the table's blocks into files of at most *max_rows* rows."""
    written: list[Path] = []
    writer: pq.ParquetWriter | None = None
    room = 0
    try:
        for arrays in table.batches():
            rest = pa.Table.from_arrays(arrays, schema=schema)
            while rest.num_rows:
                if writer is None or room == 0:
                    if writer is not None:
                        writer.close()
                    written.append(output_dir / f"{table.name}-{len(written):05d}.parquet")
                    writer, room = pq.ParquetWriter(written[-1], schema), max_rows
                piece = rest.slice(0, room)
                writer.write_table(piece)
                room -= piece.num_rows
                rest = rest.slice(piece.num_rows)
    finally:
        if writer is not None:
            writer.close()
    return written
