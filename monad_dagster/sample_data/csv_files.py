"""Streams CSV files as blocks of text columns, with errors that name file, line and remedy.

Every field is read as text; types are decided in `inference` after the whole file was seen.
"""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pacsv

from monad_dagster.errors import ConfigError, problem

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_DELIMITERS = (",", ";", "\t", "|")
_BLOCK_BYTES = 4 << 20
_FORMAT_HINT = "Files need a header line, UTF-8 text and one record a line, as RFC 4180 has it."


def read_header(path: Path) -> tuple[list[str], str]:
    """Return the column names and the delimiter of a CSV file.

    Raises:
        ConfigError: The file is empty, unreadable, or its header is not usable.
    """
    try:
        with _open_text(path) as stream:
            line = stream.readline()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    if not line.strip():
        raise ConfigError(
            problem(f"{path} is empty.", "It has no header line.", "Remove it or fill it.")
        )
    delimiter = max(_DELIMITERS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if "" in names:
        raise ConfigError(
            problem(
                f"{path}: column {names.index('') + 1} of {len(names)} has no name.",
                f"The header is: {line.strip()[:200]}",
                "Name every column in the first line.",
                _FORMAT_HINT,
            )
        )
    return names, delimiter


def stream_text(path: Path, names: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV file as batches of text columns.

    Args:
        path: The file.
        names: Its columns, from `read_header`.
        delimiter: Its delimiter, from `read_header`.

    Raises:
        ConfigError: A row has another number of fields, or the text is not UTF-8.
    """
    bad_rows: list[pacsv.InvalidRow] = []

    def on_bad_row(row: pacsv.InvalidRow) -> str:
        bad_rows.append(row)
        return "error"

    try:
        reader = pacsv.open_csv(
            path,
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, column_names=names, skip_rows=1
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=on_bad_row
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
        yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        if bad_rows:
            raise _bad_row(path, bad_rows[0]) from error
        if "Empty CSV file" in str(error):
            return
        raise unreadable(path, error) from error


def _open_text(path: Path) -> IO[str]:
    """Open a file, compressed or not, without its byte order mark."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("rt", encoding="utf-8-sig", newline="")


def _bad_row(path: Path, row: pacsv.InvalidRow) -> ConfigError:
    """Word a row whose number of fields differs from the header's."""
    where = f"record {row.number}" if row.number is not None else "a record"
    return ConfigError(
        problem(
            f"{path}: {where} has {row.actual_columns} fields and the header has "
            f"{row.expected_columns}.",
            f"The record is: {row.text[:200]}",
            "Repair the record, or quote fields that hold the delimiter.",
            _FORMAT_HINT,
        )
    )


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Word a file that cannot be read."""
    return ConfigError(
        problem(
            f"{path} cannot be read.",
            f"The reader answered: {str(error).splitlines()[0]}.",
            "Check that the file is complete and readable, and save it as UTF-8.",
            _FORMAT_HINT,
        )
    )
