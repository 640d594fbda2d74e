"""`Sketch`: a lazy weighted set of items, the target of a recommendation task.

Algebra: `a + b` adds weights; `a * number` scales; `a * b` keeps common items with the product
of their weights; `a - b` removes the items of *b*. `mask_loss(items)` leaves items out of the
loss and of the evaluation without making them negatives.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

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
        found, codes = np.unique(self.items, return_inverse=True)
        weights = np.bincount(codes.reshape(-1), weights=self.weights, minlength=len(found))
        keep = weights != 0
        return found[keep], weights[keep]

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(
            np.concatenate([self.items, other.items]),
            np.concatenate([self.weights, other.weights]),
            self.origin or other.origin,
            np.concatenate([self.masked, other.masked]),
        )

    def __sub__(self, other: "Sketch") -> "Sketch":
        keep = ~np.isin(self.items.astype(str), other.items.astype(str))
        return Sketch(self.items[keep], self.weights[keep], self.origin, self.masked)

    def __mul__(self, other: Any) -> "Sketch":
        if not isinstance(other, Sketch):
            return Sketch(self.items, self.weights * float(other), self.origin, self.masked)
        mine, my_weights = self.combined()
        theirs = dict(zip(*(part.tolist() for part in other.combined()), strict=True))
        factor = np.array([theirs.get(item, 0.0) for item in mine.tolist()], dtype=np.float64)
        keep = factor != 0
        return Sketch(mine[keep], (my_weights * factor)[keep], self.origin, self.masked)

    __rmul__ = __mul__

    def mask_loss(self, items: Iterable[Any]) -> "Sketch":
        """Leave *items* out of the loss: neither wanted nor unwanted."""
        extra = np.asarray(items if isinstance(items, np.ndarray) else list(items))
        masked = np.concatenate([self.masked.astype(object), extra.astype(object)])
        return Sketch(self.items, self.weights, self.origin, masked)


def sketch(items: Any, weights: Any = None) -> Sketch:
    """Build a `Sketch` from item values and their weights (1 each when left out)."""
    values = np.asarray(items)
    origin = getattr(items, "origin", None)
    if weights is None:
        weights = np.ones(len(values))
    weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), values.shape)
    return Sketch(values.view(np.ndarray), weights, origin)


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
