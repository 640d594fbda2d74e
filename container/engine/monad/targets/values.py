"""`ColumnValues`: an array that remembers the column it came from; and values as text.

Recommendation targets are made of item values; the engine must know whose values they are.
"""

from typing import Any

import numpy as np


def value_text(value: Any) -> str:
    """Return a value as text; whole numbers have no decimals, as where none is missing."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def value_texts(values: np.ndarray) -> np.ndarray:
    """Return values as text, of one spelling whether one of them is missing or none is."""
    if values.dtype.kind == "f":
        return np.array([value_text(value) for value in values.tolist()], dtype=str)
    return values.astype(str)


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
