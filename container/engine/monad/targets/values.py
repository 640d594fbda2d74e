"""`ColumnValues`: an array that remembers the column it came from.

Recommendation targets are made of item values; the engine must know whose values they are.
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
