"""`Sketch`: a lazy weighted set of items, the target of a recommendation task.

Algebra: `a + b` adds weights; `a * number` scales; `a * b` keeps common items with the product
of their weights; `a - b` removes the items of *b*. `mask_loss(items)` leaves items out of the
loss and of the evaluation without making them negatives.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from monad.targets.values import value_texts

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
        keep = ~np.isin(value_texts(self.items), value_texts(other.items))
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
        one = isinstance(items, (str, bytes))
        extra = np.asarray(items if isinstance(items, np.ndarray) else [items] if one else [*items])
        masked = np.concatenate([self.masked.astype(object), extra.astype(object)])
        return Sketch(self.items, self.weights, self.origin, masked)


def sketch(items: Any, weights: Any = None) -> Sketch:
    """Build a `Sketch` from item values and their weights (1 each when left out).

    Missing items are left out.

    Raises:
        ValueError: The items are no list of values, or weights are not as many or not finite.
    """
    values = np.asarray(items if hasattr(items, "__len__") else [*items])
    origin = getattr(items, "origin", None)
    if values.ndim != 1:
        raise ValueError(f"sketch needs a list of items, got an array of shape {values.shape}")
    made = np.asarray(1.0 if weights is None else weights, dtype=np.float64)
    if made.ndim and made.shape != values.shape:
        raise ValueError(f"sketch got {len(values)} items and weights of shape {made.shape}")
    if not np.isfinite(made).all():
        raise ValueError("sketch got weights that are NaN or infinite")
    known = _known(values)
    made = np.broadcast_to(made, values.shape)[known]
    return Sketch(values.view(np.ndarray)[known], made, origin)


def _known(values: np.ndarray) -> np.ndarray:
    """Tell which values are not missing, that is not None and not NaN."""
    if values.dtype.kind == "f":
        return ~np.isnan(values).view(np.ndarray)
    if values.dtype.kind == "O":
        return np.array([v is not None and v == v for v in values.tolist()], dtype=bool)
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
