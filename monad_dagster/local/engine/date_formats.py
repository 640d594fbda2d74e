"""TO_CHAR and TO_VARCHAR with a format: Snowflake's elements in DuckDB's words.

Without this DuckDB would ignore the format. Elements that it cannot make, and formats of numbers,
are refused.
"""

import re
from typing import Any

from monad_dagster.local import errors

# Longest first; times are in UTC here.
_ELEMENTS = {
    "YYYY": "%Y", "MMMM": "%B", "HH24": "%H", "HH12": "%I", "TZH": "+00", "TZM": "00",
    "MON": "%b", "FF0": "", "FF3": "%g", "FF6": "%f", "FF9": "%n", "FF": "%n", "YY": "%y",
    "MM": "%m", "DD": "%d", "DY": "%a", "HH": "%H", "MI": "%M", "SS": "%S", "AM": "%p", "PM": "%p",
}  # fmt: skip
_PIECE = re.compile(rf'"([^"]*)"|({"|".join(_ELEMENTS)})|([A-Z]+\d*)|(.)', re.I | re.S)
_NUMERIC = re.compile(r"(?:FM|[09.,$SXBGDEM+-]|TM[9E]?|\s)+", re.I)


def format_times(expression: Any) -> None:
    """Replace TO_CHAR(time, format) in place by what DuckDB formats times with.

    Raises:
        StatementError: 2 for a format that cannot be made here.
    """
    from sqlglot import exp

    for node in list(expression.find_all(exp.ToChar)):
        given = node.args.get("format")
        if given is None:
            continue
        if not isinstance(given, exp.Literal) or not given.is_string:
            raise errors.unsupported("TO_CHAR with a format that is not a literal")
        time = exp.cast(node.this, "timestamp")
        made = exp.Literal.string(translated(given.name))
        node.replace(exp.Anonymous(this="STRFTIME", expressions=[time, made]))


def translated(given: str) -> str:
    """Return a format of dates and times as DuckDB writes it."""
    if _NUMERIC.fullmatch(given) and not re.fullmatch(r"(?:MM|DD|[\s/.-])+", given, re.I):
        raise errors.unsupported(f"TO_CHAR with the numeric format '{given}'")
    out = []
    for quoted, element, unknown, other in _PIECE.findall(given):
        if unknown and unknown.upper() != "T":
            raise errors.unsupported(f"the element '{unknown}' of the format '{given}'")
        out.append(_ELEMENTS[element.upper()] if element else _plain(quoted or unknown or other))
    return "".join(out)


def _plain(text: str) -> str:
    return text.replace("%", "%%")
