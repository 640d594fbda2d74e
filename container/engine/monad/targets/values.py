"""`ColumnValues`: an array that remembers the column it came from, and how values are named.

Recommendation targets are made of item values; the engine must know whose values they are. A value
has one name, whichever array it stands in: a whole number is named alike in a column with holes,
which numpy holds as floats, and in one without.
"""

from typing import Any

import numpy as np


class ColumnValues(np.ndarray):
    """A numpy array with an `origin` of (source name, column name), kept by slicing."""

    origin: tuple[str, str] | None

    @classmethod
    def of(cls, values: np.ndarray, origin: tuple[str, str] | None) -> "ColumnValues":
        """View *values* as an array from *origin*."""
        made = np.asarray(values).view(cls)
        made.origin = origin
        return made

    def __array_finalize__(self, other: Any) -> None:
        self.origin = getattr(other, "origin", None)


def label(value: Any) -> str | None:
    """Return the name of a value: numbers as they are written, None for a missing value."""
    if value is None:
        return None
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if number != number:
            return None
        # Columns are stored in single precision: 0.1 is the number that is nearest to it there.
        single = np.float32(number) if abs(number) < np.finfo(np.float32).max else number
        shown = single if float(single) == number else number
        return np.format_float_positional(shown, unique=True, trim="-")
    return str(value)


def labels(values: Any) -> np.ndarray:
    """Return the names of values as an object array; None where a value is missing."""
    values = np.asarray(values)
    if values.dtype.kind in "iub":
        return values.astype(str).astype(object)
    return np.array([label(value) for value in values.tolist()], dtype=object)


def wanted_label(value: Any, column: np.ndarray) -> str:
    """Return the name under which a value that the user wrote stands in *column*."""
    kind = column.dtype.kind
    text = label(value) or str(value)
    if kind == "b" or (kind == "O" and any(isinstance(v, bool) for v in column.tolist())):
        return text.capitalize()
    if kind == "f":
        try:
            return label(float(text)) or text
        except ValueError:
            return text
    return text
