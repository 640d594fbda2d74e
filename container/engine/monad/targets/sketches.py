"""`Sketch`: a lazy weighted set of items, the target of a recommendation task.

Algebra: `a + b` adds weights; `a * number` scales; `a * b` keeps common items with the product
of their weights; `a - b` removes the items of *b*. `mask_loss(items)` leaves items out of the
loss and of the evaluation without making them negatives.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from monad.targets.values import labels

SECONDS_PER_DAY = 86_400.0


class Sketch:
    """A weighted item set; *origin* names the column the items come from, when known."""

    __slots__ = ("items", "masked", "origin", "weights")

    def __init__(
        self,
        items: np.ndarray,
        weights: np.ndarray,
        origin: tuple[str, str] | None = None,
        masked: np.ndarray | None = None,
    ) -> None:
        self.items = items
        self.weights = weights
        self.origin = origin
        self.masked = masked if masked is not None else items[:0]

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        """Return distinct items and the sum of their weights, zero weights left out."""
        if not len(self.items):
            return self.items, self.weights
        keys = self.items if self.items.dtype != object else labels(self.items).astype(str)
        _, first, codes = np.unique(keys, return_index=True, return_inverse=True)
        found = self.items[first]
        weights = np.bincount(codes.reshape(-1), weights=self.weights, minlength=len(found))
        keep = weights != 0
        return found[keep], weights[keep]

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(
            _joined(self.items, other.items),
            np.concatenate([self.weights, other.weights]),
            self.origin or other.origin,
            _joined(self.masked, other.masked),
        )

    def __radd__(self, other: Any) -> "Sketch":
        if isinstance(other, int) and other == 0:  # what `sum` begins with
            return self
        return NotImplemented

    def __sub__(self, other: "Sketch") -> "Sketch":
        theirs = set(labels(other.items))
        keep = np.array([name not in theirs for name in labels(self.items)], dtype=bool)
        return Sketch(self.items[keep], self.weights[keep], self.origin, self.masked)

    def __mul__(self, other: Any) -> "Sketch":
        if not isinstance(other, Sketch):
            return Sketch(self.items, self.weights * float(other), self.origin, self.masked)
        mine, my_weights = self.combined()
        items, weights = other.combined()
        theirs = dict(zip(labels(items), weights.tolist(), strict=True))
        factor = np.array([theirs.get(name, 0.0) for name in labels(mine)], dtype=np.float64)
        keep = factor != 0
        return Sketch(mine[keep], (my_weights * factor)[keep], self.origin, self.masked)

    __rmul__ = __mul__

    def mask_loss(self, items: Iterable[Any]) -> "Sketch":
        """Leave *items*, or those of a sketch, out of the loss: neither wanted nor unwanted."""
        if isinstance(items, Sketch):
            items = items.items
        elif isinstance(items, str):
            items = [items]
        extra = np.asarray(items if isinstance(items, np.ndarray) else list(items))
        masked = np.concatenate([self.masked.astype(object), extra.astype(object)])
        return Sketch(self.items, self.weights, self.origin, masked)


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Concatenate items; those of different kinds keep their own."""
    if len(first) and len(second) and first.dtype.kind != second.dtype.kind:
        first, second = first.astype(object), second.astype(object)
    return (
        np.concatenate([first, second])
        if len(first) and len(second)
        else (first if len(first) else second)
    )


def sketch(items: Any, weights: Any = None) -> Sketch:
    """Build a `Sketch` from item values and their weights (1 each when left out).

    Missing items are left out with their weights; a weight that is no number counts nothing.
    """
    values = np.asarray(items)
    origin = getattr(items, "origin", None)
    values = values.view(np.ndarray)
    if values.ndim != 1:
        raise ValueError(f"A sketch needs a list of items, not an array of shape {values.shape}")
    if weights is None:
        weights = np.ones(len(values))
    given = np.asarray(weights, dtype=np.float64)
    if given.ndim and len(given) != len(values):
        raise ValueError(f"A sketch of {len(values)} items and {len(given)} weights")
    given = np.where(np.isfinite(given), given, 0.0)
    given = np.broadcast_to(given, values.shape)
    present = _present(values)
    if not present.all():
        values, given = values[present], given[present]
        if values.dtype.kind == "f" and (values == np.floor(values)).all():
            values = values.astype(np.int64)  # whole numbers were floats for the holes' sake
    return Sketch(values, given, origin)


def _present(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    if values.dtype.kind == "O":
        return np.array([item is not None and item == item for item in values.tolist()], dtype=bool)
    return np.ones(len(values), dtype=bool)


def _times(events: Any) -> np.ndarray:
    return np.asarray(getattr(events, "timestamps", events), dtype=np.float64)


def sequential_decay(events: Any, gamma: float) -> np.ndarray:
    """Weigh events by the order of their basket: `gamma ** basket`, with `0 ** 0 = 1`.

    A basket is all events of one timestamp. 0 keeps the first basket only; 1 weighs all alike.
    """
    times = _times(events)
    if not times.size:
        return np.zeros(0)
    basket = np.unique(times, return_inverse=True)[1].reshape(-1)
    return np.power(float(gamma), basket)


def time_decay(events: Any, daily_decay: float) -> np.ndarray:
    """Weigh events by `daily_decay ** days` since the first of them."""
    times = _times(events)
    if not times.size:
        return np.zeros(0)
    return np.power(float(daily_decay), (times - times.min()) / SECONDS_PER_DAY)
