"""One column as the network sees it: its kind, its known values, its quantiles.

Index 0 of every embedding table stands for no event, 1 for a missing value.
"""

import dataclasses
import zlib

import numpy as np

ABSENT, MISSING, FIRST = 0, 1, 2
TEXT, VECTOR = "text", "vector"


@dataclasses.dataclass
class Field:
    """One column as the network sees it.

    Attributes:
        owner: The event source or attribute source.
        values: Known values of a category, most frequent first; code i is index FIRST + i.
        buckets: Number of hashed buckets for all other values.
            For text: the number of buckets of its n-grams.
        edges: Quantiles of a number after `squash`, for its piecewise-linear encoding.
        center: Mean of an embedding's dimensions, and `scale` their deviation.
        shared: Name of the shared entity, whose fields have one vocabulary and one embedding.
    """

    owner: str
    column: str
    kind: str
    values: list[str] = dataclasses.field(default_factory=list)
    buckets: int = 0
    edges: list[float] = dataclasses.field(default_factory=list)
    center: list[float] = dataclasses.field(default_factory=list)
    scale: list[float] = dataclasses.field(default_factory=list)
    shared: str = ""

    @property
    def size(self) -> int:
        """Number of rows of the embedding table."""
        return FIRST + len(self.values) + self.buckets

    def lookup(self, dictionary: np.ndarray) -> np.ndarray:
        """Return the index of every dictionary value; the last entry is for missing values."""
        known = {value: FIRST + i for i, value in enumerate(self.values)}
        tail = FIRST + len(self.values)
        made = np.full(len(dictionary) + 1, MISSING, dtype=np.int64)
        for code, value in enumerate(dictionary.tolist()):
            index = known.get(str(value))
            if index is None and self.buckets:
                index = tail + zlib.crc32(str(value).encode()) % self.buckets
            made[code] = MISSING if index is None else index
        return made
