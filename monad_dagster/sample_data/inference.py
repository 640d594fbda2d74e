"""Column types of a CSV table, inferred from every value and not from the first block.

Each column starts with all candidate types; each block of text crosses off what it cannot be.
Identifiers survive: values with leading zeros, or integers beyond 64 bits, stay text.
"""

# pyarrow.compute makes its functions at run time, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc


class ColumnType(StrEnum):
    """Snowflake types that a column of a user's file can get."""

    BOOLEAN = "BOOLEAN"
    NUMBER = "NUMBER(38,0)"
    FLOAT = "FLOAT"
    DATE = "DATE"
    TIMESTAMP = "TIMESTAMP_NTZ"
    TEXT = "TEXT"


ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.NUMBER: pa.int64(),
    ColumnType.FLOAT: pa.float64(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMP: pa.timestamp("us"),
    ColumnType.TEXT: pa.string(),
}

# Spellings of "no value" in columns that are not text; in text only the empty field is null.
_NULL_WORDS = pa.array(["", "NA", "N/A", "NULL", "null", "NaN", "nan", "\\N"])
_LEADING_ZERO = r"^[+-]?0\d"
# Some tools write 100000 as 1e+05. Without sign or point, 12E5 is more likely a code than a number.
_WHOLE_EXPONENT = r"^[+-]?\d+(\.\d+)?[eE]\+\d{1,2}$"
_INTEGER = rf"^[+-]?\d{{1,19}}$|{_WHOLE_EXPONENT}"
_DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]\d{1,3})?$|^[+-]?(\d+\.\d*|\.\d+)[eE]\d{1,3}$"
_LONG_INTEGER = r"^[+-]?\d{17,}$"  # a 64-bit float would change its last digits
_BOOLEAN = r"^(?i:true|false)$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)"
_TIMESTAMP = rf"^\d{{4}}-\d{{2}}-\d{{2}}([ T]\d{{2}}:\d{{2}}((:\d{{2}}(\.\d{{1,6}})?){_ZONE}?)?)?$"
_ZONED = rf":\d{{2}}(\.\d{{1,6}})?{_ZONE}$"


class TypeInference:
    """Narrows the type of one column block by block."""

    def __init__(self) -> None:
        self._candidates = [kind for kind in ColumnType if kind is not ColumnType.TEXT]
        self._saw_value = False

    def observe(self, values: pa.Array) -> None:
        """Cross off the types that some of *values* (text) cannot have."""
        if not self._candidates:
            return
        present = values_for(values, ColumnType.NUMBER).drop_null()
        if len(present) == 0:
            return
        self._saw_value = True
        distinct = present.unique() if len(present) > 1 else present
        self._candidates = [kind for kind in self._candidates if _fits(distinct, kind)]

    @property
    def result(self) -> ColumnType:
        """The narrowest type that fits all values seen; TEXT for a column without values."""
        if not self._saw_value or not self._candidates:
            return ColumnType.TEXT
        return self._candidates[0]


def values_for(values: pa.Array, kind: ColumnType) -> pa.Array:
    """Return text with what means "no value" for *kind* turned into nulls."""
    if kind is ColumnType.TEXT:
        return pc.if_else(pc.equal(values, ""), None, values)
    trimmed = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.is_in(trimmed, value_set=_NULL_WORDS), None, trimmed)


def convert(values: pa.Array, kind: ColumnType) -> pa.Array:
    """Convert text to the Arrow type of *kind*.

    Raises:
        pa.ArrowInvalid: A value does not have that type.
    """
    cleaned = values_for(values, kind)
    if kind is ColumnType.BOOLEAN:
        return pc.equal(pc.utf8_lower(cleaned), "true")
    if kind in (ColumnType.NUMBER, ColumnType.FLOAT):
        cleaned = pc.utf8_ltrim(cleaned, characters="+")
    if kind is ColumnType.NUMBER:
        return _to_integers(cleaned)
    if kind is ColumnType.TIMESTAMP:
        return _to_timestamps(cleaned)
    return cleaned.cast(ARROW_TYPES[kind])


def _to_integers(values: pa.Array) -> pa.Array:
    """Convert text to integers, those written with an exponent included."""
    exponents = pc.match_substring_regex(values, _WHOLE_EXPONENT)
    if not pc.any(exponents).as_py():
        return values.cast(pa.int64())
    plain = pc.if_else(exponents, None, values).cast(pa.int64())
    large = pc.if_else(exponents, values, None).cast(pa.float64()).cast(pa.int64())
    return pc.coalesce(plain, large)


def _to_timestamps(values: pa.Array) -> pa.Array:
    """Convert text to timestamps; those with a zone become UTC."""
    target = ARROW_TYPES[ColumnType.TIMESTAMP]
    zoned = pc.match_substring_regex(values, _ZONED)
    if not pc.any(zoned).as_py():
        return values.cast(target)
    local = pc.if_else(zoned, None, values).cast(target)
    universal = pc.if_else(zoned, values, None).cast(pa.timestamp("us", "UTC")).cast(target)
    return pc.coalesce(local, universal)


def _fits(values: pa.Array, kind: ColumnType) -> bool:
    """Tell whether all *values* can be converted to *kind* without losing anything."""
    return _FITS[kind](values) and _converts(values, kind)


def _converts(values: pa.Array, kind: ColumnType) -> bool:
    try:
        convert(values, kind)
    except pa.ArrowInvalid:
        return False
    return True


def _all_match(pattern: str) -> Callable[[pa.Array], bool]:
    """Return a test that all values match *pattern*."""
    return lambda values: bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _is_plain_number(pattern: str, forbidden: str = _LEADING_ZERO) -> Callable[[pa.Array], bool]:
    """Return a test for *pattern* where no value looks like an identifier."""
    matches = _all_match(pattern)

    def test(values: pa.Array) -> bool:
        marks = (_LEADING_ZERO, forbidden)
        return matches(values) and not any(
            pc.any(pc.match_substring_regex(values, mark)).as_py() for mark in marks
        )

    return test


_FITS: dict[ColumnType, Callable[[pa.Array], bool]] = {
    ColumnType.BOOLEAN: _all_match(_BOOLEAN),
    ColumnType.NUMBER: _is_plain_number(_INTEGER),
    ColumnType.FLOAT: _is_plain_number(_DECIMAL, forbidden=_LONG_INTEGER),
    ColumnType.DATE: _all_match(_DATE),
    ColumnType.TIMESTAMP: _all_match(_TIMESTAMP),
}
