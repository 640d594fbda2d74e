"""Text columns and user-supplied embeddings: inputs that are vectors, not values of a vocabulary.

Text becomes hashed n-grams: words, pairs of words and letter triples, each hashed to one of a
fixed number of buckets. Nothing is downloaded and no vocabulary is kept, so unseen text works.
An embedding column holds a list of numbers (or its JSON text), of one length everywhere; it is
standardised with the training range's mean and deviation. That is how image columns come in, too.

Each batch carries the distinct values it needs once: index 0 stands for "no value".
"""

import itertools
import json
import re
import zlib
from typing import Any

import numpy as np
import torch

from monad.data.fields import TEXT, VECTOR, Field
from monad.data.store import Column
from monad.errors import DataError, problem

_WORDS = re.compile(r"\w+", re.UNICODE)
_MOST_GRAMS = 256


def text_grams(text: str, buckets: int) -> list[int]:
    """Return the buckets of a text's n-grams; an empty text has none."""
    words = _WORDS.findall(text.lower())
    grams = [f"w:{word}" for word in words]
    grams += [f"p:{a} {b}" for a, b in itertools.pairwise(words)]
    for word in words:
        padded = f"<{word}>"
        grams += [f"c:{padded[i : i + 3]}" for i in range(len(padded) - 2)]
    return [zlib.crc32(gram.encode()) % buckets for gram in grams[:_MOST_GRAMS]]


def parsed_vectors(owner: str, column: str, values: list[Any], width: int | None) -> np.ndarray:
    """Return the vectors of an embedding column's distinct values, all of one length.

    Raises:
        DataError: A value is not a list of numbers, or has another length than the others.
    """
    made: list[np.ndarray] = []
    for value in values:
        try:
            text = str(value).replace("NULL", "null").replace("nan", "NaN")
            text = re.sub(r"\binf\b", "Infinity", text)
            parsed = json.loads(text)
            vector = np.array([np.nan if x is None else x for x in parsed], dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise _unusable(
                owner, column, f"`{str(value)[:80]}` is not a list of numbers"
            ) from error
        if vector.ndim != 1:
            raise _unusable(owner, column, f"`{str(value)[:80]}` is not one list")
        width = len(vector) if width is None else width
        if len(vector) != width:
            raise _unusable(owner, column, f"a value has {len(vector)} numbers, others {width}")
        made.append(np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0))
    return np.stack(made) if made else np.zeros((0, width or 1), np.float32)


def _unusable(owner: str, column: str, observed: str) -> DataError:
    return DataError(
        problem(
            f"Column {owner}.{column} cannot be read as an embedding",
            observed,
            "Give every row a list of the same number of numbers, or no value",
        )
    )


class DenseColumn:
    """The vectors or n-grams of one column's distinct values."""

    def __init__(self, field: Field, column: Column) -> None:
        self.field = field
        self.column = column
        values = column.distinct.tolist()
        if field.kind == TEXT:
            grams = [text_grams(str(value), field.buckets) for value in values]
            self._sizes = np.array([len(g) for g in grams], dtype=np.int64)
            self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
            self._grams = np.array([g for found in grams for g in found], dtype=np.int64)
        else:
            vectors = parsed_vectors(field.owner, field.column, values, len(field.center))
            self._vectors = (vectors - np.array(field.center)) / np.array(field.scale)

    def part(self, codes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return index, values and starts for codes (-1: no value)."""
        found, index = np.unique(codes, return_inverse=True)
        index = index.reshape(codes.shape)
        if len(found) and found[0] < 0:
            found = found[1:]
        else:
            index = index + 1
        if self.field.kind == VECTOR:
            values = torch.from_numpy(self._vectors[found].astype(np.float32))
            return torch.from_numpy(index), values, torch.zeros(0, dtype=torch.long)
        sizes = self._sizes[found]
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1] if len(found) else np.zeros(0, int)
        flat = np.repeat(self._starts[found] - starts, sizes) + np.arange(int(sizes.sum()))
        return (
            torch.from_numpy(index),
            torch.from_numpy(self._grams[flat]),
            torch.from_numpy(starts.astype(np.int64)),
        )


def add_parts(batch: dict[str, Any], prefix: str, parts: list[tuple[torch.Tensor, ...]]) -> None:
    """Put the parts of several columns into a batch."""
    for name, position in (("index", 0), ("values", 1), ("starts", 2)):
        batch[f"{prefix}_{name}"] = [part[position] for part in parts]
