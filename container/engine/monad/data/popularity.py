"""How items sell and which go together at a split point, from all entities' events."""

import dataclasses
from typing import Any

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.store import Table

_DAYS = (3, 7, 14, 30, 90, 365)
_TRENDS = ((3, 14), (7, 30), (30, 90))
_COMPANIONS = 100
_MOST_EVENTS = 400_000  # of the latest, from which companions are counted
_NEVER = 3650.0
_DENSE_WIDTH, _DENSE_VALUES = 20_000, 4_000_000
_DAY_STRIDE = 1 << 14


@dataclasses.dataclass
class ItemContext:
    """Items at one split point.

    Attributes:
        features: (N, Q) features of items, named by `names`.
        by_entity: Cosine of items over the entities that took both; the best companions only.
        by_day: The same over an entity's active days.
        gaps: Usual days between two takes by one entity.
        numbers: Mean of each number column of an item's events.
    """

    features: np.ndarray
    names: list[str]
    by_entity: Any
    by_day: Any
    gaps: np.ndarray
    numbers: list[np.ndarray]
    lately: np.ndarray
    rising: np.ndarray

    def popular(self, most: int) -> np.ndarray:
        """Return the items that most entities took lately, and those that sell best this week."""
        half = max(most // 2, 1)
        best = [np.argsort(-v, kind="stable")[:half] for v in (self.lately, self.rising)]
        found = np.unique(np.concatenate(best))
        return found[found > 1]


class ItemHistory:
    """All takes of items in time order."""

    def __init__(
        self, table: Table, codes: np.ndarray, numbers: list[np.ndarray], num_items: int
    ) -> None:
        order = np.argsort(np.asarray(table.times), kind="stable")
        self.items = codes[order].astype(np.int64)
        self.times = np.asarray(table.times)[order].astype(np.int64)
        self.owners = table.entities[order].astype(np.int64)
        self.days = (self.times - table.first_time) // DAY_SECONDS
        self.numbers = [values[order] for values in numbers]
        self.num_items = num_items

    def _entities(self, low: int, end: int) -> tuple[np.ndarray, int]:
        """Return how many entities took each item, and how many were active."""
        pairs = np.unique(self.owners[low:end] * self.num_items + self.items[low:end])
        counts = np.bincount(pairs % self.num_items, minlength=self.num_items)
        counts[:2] = 0
        return counts.astype(np.float64), max(len(np.unique(pairs // self.num_items)), 1)

    def at(self, stamp: int) -> ItemContext:
        """Return the items at a split point."""
        end = int(np.searchsorted(self.times, stamp, side="right"))
        size, made, rates = self.num_items, {}, {}
        for days in _DAYS:
            low = int(np.searchsorted(self.times, stamp - days * DAY_SECONDS, side="right"))
            counts, active = self._entities(low, end)
            rates[days] = 1000.0 * counts / active
            made[f"sold_{days}"] = np.log1p(rates[days])
        for late, early in _TRENDS:
            made[f"trend_{late}_{early}"] = np.log((rates[late] + 1) / (rates[early] + 1))
        items, times = self.items[:end], self.times[:end]
        first, last = np.full(size, stamp), np.zeros(size)
        first[items[::-1]] = times[::-1]
        last[items] = times
        made["age"] = np.log1p((stamp - first) / DAY_SECONDS)
        made["last"] = np.log1p(np.minimum((stamp - last) / DAY_SECONDS, _NEVER))
        gaps = self._repeats(made, end)
        taken = np.maximum(np.bincount(items, minlength=size), 1)
        numbers = [np.bincount(items, values[:end], size) / taken for values in self.numbers]
        for i, values in enumerate(numbers):
            made[f"number_{i}"] = values
        low = max(0, end - _MOST_EVENTS)
        owners, days = self.owners[low:end], self.days[low:end]
        return ItemContext(
            np.stack(list(made.values()), 1).astype(np.float32),
            list(made),
            self._companions(owners, low, end),
            self._companions(owners * _DAY_STRIDE + days, low, end),
            gaps,
            numbers,
            rates[30],
            rates[7],
        )

    def _repeats(self, made: dict[str, np.ndarray], end: int) -> np.ndarray:
        """Add how items are taken again; returns the usual gap in days."""
        size = self.num_items
        keys = (self.owners[:end] * size + self.items[:end]) * _DAY_STRIDE + self.days[:end]
        keys = np.unique(keys)
        pairs = keys // _DAY_STRIDE
        known, visits = np.unique(pairs, return_counts=True)
        item = known % size
        owners = np.bincount(item, minlength=size)
        made["taken_again"] = (np.bincount(item, visits > 1, size) + 1) / (owners + 8)
        made["takes"] = np.log((np.bincount(item, visits, size) + 1) / (owners + 1))
        again = np.diff(pairs) == 0
        days = np.diff(keys % _DAY_STRIDE)[again]
        which = (pairs[1:] % size)[again]
        mean = days.mean() if len(days) else 30.0
        gaps = (np.bincount(which, days, size) + 5 * mean) / (
            np.bincount(which, minlength=size) + 5
        )
        made["gap"] = np.log1p(gaps)
        return gaps

    def _companions(self, baskets: np.ndarray, low: int, end: int) -> Any:
        """Return the cosine of items over baskets, the best companions of each item only."""
        from scipy import sparse

        size = self.num_items
        rows = np.unique(baskets, return_inverse=True)[1].reshape(-1)
        shape = (int(rows.max(initial=-1)) + 1, size)
        ones = np.ones(len(rows), dtype=np.float32)
        taken = sparse.csr_matrix((ones, (rows, self.items[low:end])), shape=shape)
        taken.data[:] = 1.0
        norm = np.sqrt(np.maximum(np.asarray(taken.sum(0)).ravel(), 1.0)) + 2.0
        weight = 1.0 / np.log2(2.0 + np.asarray(taken.sum(1)).ravel())
        scaled = sparse.diags(weight.astype(np.float32)) @ taken
        common = (taken.T @ scaled).tocsr()
        owner = np.repeat(np.arange(size), np.diff(common.indptr))
        common.data = common.data / (norm[owner] * norm[common.indices]).astype(np.float32)
        common.data[owner == common.indices] = 0.0
        return best_columns(common, _COMPANIONS)


def item_names(numbers: int) -> list[str]:
    """Return the names of item features for a table with so many number columns."""
    made = [f"sold_{days}" for days in _DAYS] + [f"trend_{a}_{b}" for a, b in _TRENDS]
    made += ["age", "last", "taken_again", "takes", "gap"]
    return made + [f"number_{i}" for i in range(numbers)]


def best_columns(matrix: Any, most: int) -> Any:
    """Return a sparse matrix with about the *most* largest positive values of each row."""
    from scipy import sparse

    width = matrix.shape[1]
    if width <= most:
        return matrix
    counts = np.diff(matrix.indptr)
    edges = np.zeros(matrix.shape[0], dtype=matrix.dtype)
    long = np.flatnonzero(counts > most)
    if width <= _DENSE_WIDTH:  # a whole row at a time costs less than sorting what is in it
        step = max(_DENSE_VALUES // width, 1)
        for at in range(0, len(long), step):
            part = long[at : at + step]
            dense = matrix[part].toarray()
            edges[part] = np.partition(dense, width - most, axis=1)[:, width - most]
    else:
        for row in long.tolist():
            values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
            edges[row] = np.partition(values, len(values) - most)[len(values) - most]
    kept = matrix.data >= np.repeat(edges, counts)
    kept &= matrix.data > 0
    total = np.concatenate([[0], np.cumsum(kept)])
    entries = (matrix.data[kept], matrix.indices[kept], total[matrix.indptr])
    return sparse.csr_matrix(entries, shape=matrix.shape)


def top_columns(matrix: Any, most: int) -> np.ndarray:
    """Return the keys row * width + column of the largest values of each row."""
    best = best_columns(matrix, most)
    rows = np.repeat(np.arange(best.shape[0], dtype=np.int64), np.diff(best.indptr))
    return rows * best.shape[1] + best.indices


def matched(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the place of each wanted value among sorted keys, or their number where absent."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, len(keys))
