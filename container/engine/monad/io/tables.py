"""Save predictions to a Snowflake table, all at once.

The table has the columns of the predictions file and PREDICTION_DATE; it is made when it is not
there. The rows of a prediction date are replaced in one transaction: a reader sees the old rows or
the new ones, a run that fails or is killed leaves the table as it was, and a run that is made again
ends with the same rows.

Rows travel in INSERT statements, which need no stage and no file that the server must reach.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from monad.config.schema import DataLocation
from monad.data.snowflake import connect, location_arguments, quoted_name, resolved_table
from monad.errors import DataError, EngineError, problem

logger = logging.getLogger("monad.run")
KEY, DATE = "MAIN_ENTITY_ID", "PREDICTION_DATE"
_WHERE = "remote_save_location"
_MOST_ROWS = 4_000
_MOST_CHARACTERS = 600_000  # a statement may have a megabyte


class PredictionsTable:
    """A predictions table over one connection; a context manager."""

    def __init__(self, location: DataLocation) -> None:
        self._table = resolved_table(location, _WHERE)
        self._arguments = location_arguments(location, _WHERE)
        self._connection: Any = None

    def __enter__(self) -> Self:
        self._connection = connect(
            self._arguments,
            "to save predictions",
            "Check remote_save_location: the account, the login, and that it is running",
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def _run(self, sql: str, values: Any = None) -> Any:
        import snowflake.connector

        try:
            return self._connection.cursor().execute(sql, values)
        except snowflake.connector.errors.Error as error:
            raise DataError(
                problem(
                    f"Predictions cannot be saved to table {self._table}",
                    f"{error.errno}: {error.msg or error}",
                    "Check the table's name and the role's grants: USAGE on database and schema,"
                    " CREATE TABLE on the schema when the table is new, INSERT, DELETE and SELECT"
                    " on the table otherwise; the table's rows are as they were",
                    f"query {error.sfqid}" if getattr(error, "sfqid", None) else "",
                )
            ) from error

    def prepare(self, columns: dict[str, str]) -> None:
        """Make the table if it is not there, and check that it has *columns*.

        This comes before any prediction is made, so that a wrong table costs no time.
        """
        wanted = {KEY: "VARCHAR", **columns, DATE: "TIMESTAMP_NTZ"}
        declared = ", ".join(f"{quoted_name(name)} {kind}" for name, kind in wanted.items())
        self._run(f"CREATE TABLE IF NOT EXISTS {self._table} ({declared})")
        cursor = self._run(f"SELECT * FROM {self._table} LIMIT 0")
        there = [entry[0] for entry in cursor.description]
        if sorted(there) != sorted(wanted):
            missing = [name for name in wanted if name not in there]
            extra = [name for name in there if name not in wanted]
            raise DataError(
                problem(
                    f"Table {self._table} has other columns than these predictions",
                    f"missing there: {', '.join(missing) or 'none'}; not predicted:"
                    f" {', '.join(extra) or 'none'}",
                    "Save each scenario to a table of its own, or drop the table",
                )
            )

    def replace(self, columns: dict[str, str], rows: Iterator[list[Any]], stamp: int) -> int:
        """Replace the rows of one prediction date; returns how many there are now."""
        names = ", ".join(quoted_name(name) for name in (KEY, *columns, DATE))
        one = f"({', '.join(['%s'] * (len(columns) + 2))})"
        date = datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d %H:%M:%S")
        count = 0
        self._run("BEGIN")
        try:
            self._run(f"DELETE FROM {self._table} WHERE {quoted_name(DATE)} = %s", [date])
            for chunk in _chunks(rows):
                flat = [value for row in chunk for value in (*row, date)]
                places = ", ".join([one] * len(chunk))
                self._run(f"INSERT INTO {self._table} ({names}) VALUES {places}", flat)
                count += len(chunk)
            self._run("COMMIT")
        except BaseException:
            with contextlib.suppress(EngineError):  # a lost connection rolls back by itself
                self._run("ROLLBACK")
            raise
        logger.info("Saved %d predictions of %s to table %s", count, date, self._table)
        return count


def _chunks(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    """Group rows so that a statement stays within its limits."""
    chunk: list[list[Any]] = []
    size = 0
    for row in rows:
        length = sum(len(str(value)) + 4 for value in row)
        if chunk and (len(chunk) >= _MOST_ROWS or size + length > _MOST_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += length
    if chunk:
        yield chunk


def table_columns(header: list[str]) -> dict[str, str]:
    """Return the table's columns and types for the columns of a predictions file."""
    return {name.upper(): "VARCHAR" if name.startswith("item_") else "FLOAT" for name in header}


def rows_of_file(path: Path, columns: dict[str, str]) -> Iterator[list[Any]]:
    """Yield the rows of a predictions file; empty cells are NULL."""
    kinds = list(columns.values())
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            name, *cells = line.rstrip("\n").split("\t")
            yield [
                name,
                *(
                    None if cell == "" else float(cell) if kind == "FLOAT" else cell
                    for cell, kind in zip(cells, kinds, strict=True)
                ),
            ]
