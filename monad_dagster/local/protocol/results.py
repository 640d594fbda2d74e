"""Result sets of metadata statements: typed columns and rows, sent to clients as JSON.

Query results of the SQL engine are Arrow and do not pass through here.
"""

import datetime as dt
import decimal
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Snowflake wire types: fixed, real, text, boolean, date, timestamp_ltz, timestamp_ntz, variant...
TEXT_LENGTH = 16777216


@dataclass(frozen=True)
class Column:
    """One result column, named exactly as clients see it."""

    name: str
    type: str = "text"
    scale: int | None = None
    precision: int | None = None
    nullable: bool = True

    def rowtype(self) -> dict[str, Any]:
        """Describe the column as the wire protocol does."""
        is_text = self.type in {"text", "variant", "object", "array"}
        is_time = self.type.startswith(("timestamp", "time"))
        return {
            "name": self.name,
            "database": "",
            "schema": "",
            "table": "",
            "nullable": self.nullable,
            "type": self.type,
            "length": TEXT_LENGTH if is_text else None,
            "byteLength": TEXT_LENGTH if is_text else None,
            "precision": _default(
                self.precision, 38 if self.type == "fixed" else 0 if is_time else None
            ),
            "scale": _default(self.scale, 0 if self.type == "fixed" else 9 if is_time else None),
            "collation": None,
        }


def _default(value: int | None, fallback: int | None) -> int | None:
    return fallback if value is None else value


def text(name: str) -> Column:
    """Return a VARCHAR column."""
    return Column(name, "text")


def number(name: str, scale: int = 0) -> Column:
    """Return a NUMBER column."""
    return Column(name, "fixed", scale=scale)


def boolean(name: str) -> Column:
    """Return a BOOLEAN column."""
    return Column(name, "boolean")


def timestamp(name: str) -> Column:
    """Return a TIMESTAMP_LTZ column; give rows aware datetimes."""
    return Column(name, "timestamp_ltz", scale=9)


def timestamp_ntz(name: str) -> Column:
    """Return a TIMESTAMP_NTZ column; give rows naive or UTC datetimes."""
    return Column(name, "timestamp_ntz", scale=9)


def variant(name: str) -> Column:
    """Return a VARIANT column; give rows JSON-able values or JSON text."""
    return Column(name, "variant")


@dataclass
class ResultSet:
    """Columns and rows of one statement.

    `rows` hold Python values: str, int, float, bool, Decimal, date, datetime, dict, list, None.
    `statement_type_id` is Snowflake's number for the kind of statement (0x1000 SELECT and so on).
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]] = field(default_factory=list)
    statement_type_id: int = 0x6000
    command: dict[str, Any] | None = None  # PUT and GET answer with a transfer command instead

    def rowset(self) -> list[list[str | None]]:
        """Encode every cell as the JSON result format does: text or null."""
        return [
            [_cell(column, value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def dicts(self) -> list[dict[str, Any]]:
        """Return rows as dictionaries, for callers inside the account and tests."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def status(message: str) -> ResultSet:
    """Return the one-row result of a DDL statement."""
    return ResultSet([text("status")], [(message,)])


def single(name: str, value: Any) -> ResultSet:
    """Return the one-cell result of a function call."""
    if isinstance(value, bool):
        column = boolean(name)
    elif isinstance(value, int):
        column = number(name)
    else:
        column = text(name)
    return ResultSet([column], [(value,)], statement_type_id=0x1000)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> ResultSet:
    """Return a result with all rows of *rows*."""
    return ResultSet(list(columns), [tuple(row) for row in rows])


def _cell(column: Column, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        # JSON results carry booleans as "1"/"0" in boolean columns, as words elsewhere.
        return ("1" if value else "0") if column.type == "boolean" else str(value).lower()
    if isinstance(value, dt.datetime):
        return _timestamp_cell(column, value)
    if isinstance(value, dt.date):
        return str((value - dt.date(1970, 1, 1)).days)
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, int | float | decimal.Decimal):
        return str(value)
    return str(value)


def _timestamp_cell(column: Column, value: dt.datetime) -> str:
    if not column.type.startswith("timestamp"):
        return value.isoformat()
    aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    delta = aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    micros = (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds
    sign = "-" if micros < 0 else ""
    seconds, fraction = divmod(abs(micros), 1_000_000)
    return f"{sign}{seconds}.{fraction:06d}000"
