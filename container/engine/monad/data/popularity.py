"""How items sell and which go together at a split point, from all entities' events."""

import dataclasses

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.affinity import Affinity, Takes, affinity, matched
from monad.data.own import DAY_STRIDE
from monad.data.store import Table

_DAYS = (3, 7, 14, 30, 90, 365)
_TRENDS = ((3, 14), (7, 30), (30, 90))
_MOST_EVENTS = 400_000  # of the latest, from which affinities are fitted
_TAKEN_DAYS = (14, 30, 60)
_HALF_LIVES = (7.0, 21.0, 60.0)
_DOUBT = 20.0  # owners that an item's own share of repeats weighs against the mean
_NEVER = 3650.0


@dataclasses.dataclass
class ItemContext:
    """Items at one split point.

    Attributes:
        features: (N, Q) features of items, named by `names`.
        affinity: What goes with what.
        gaps: Usual days between two takes by one entity.
        numbers: Mean of each number column of an item's events.
    """

    features: np.ndarray
    names: list[str]
    affinity: Affinity
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
        self.num_owners = len(table.offsets) - 1

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
        self._lately(made, stamp, end)
        low = max(0, end - _MOST_EVENTS)
        takes = Takes(
            self.owners[low:end],
            self.items[low:end],
            (stamp - self.times[low:end]) / DAY_SECONDS,
            self.days[low:end],
            self.num_owners,
            size,
        )
        return ItemContext(
            np.stack(list(made.values()), 1).astype(np.float32),
            list(made),
            affinity(takes),
            gaps,
            numbers,
            rates[30],
            rates[7],
        )

    def _lately(self, made: dict[str, np.ndarray], stamp: int, end: int) -> None:
        """Add how many owners took items again in the last days, and how many took them first."""
        size = self.num_items
        for days in _TAKEN_DAYS:
            low = int(np.searchsorted(self.times, stamp - days * DAY_SECONDS, side="right"))
            before = np.unique(self.owners[:low] * size + self.items[:low])
            now = np.unique(self.owners[low:end] * size + self.items[low:end])
            active = np.zeros(self.num_owners, dtype=bool)
            active[self.owners[low:end]] = True
            owned = np.bincount((before % size)[active[before // size]], minlength=size)
            known = matched(before, now) < len(before)
            again = np.bincount((now % size)[known], minlength=size)
            first = np.bincount((now % size)[~known], minlength=size)
            usual = (again.sum() + 1) / (owned.sum() + 20)
            made[f"again_{days}"] = np.log((again + _DOUBT * usual) / (owned + _DOUBT) / usual)
            strangers = np.maximum(active.sum() - owned, 1)
            made[f"adopted_{days}"] = np.log1p(1000.0 * first / strangers)
        age = (stamp - self.times[:end]) / DAY_SECONDS
        for life in _HALF_LIVES:
            made[f"sales_{life:g}"] = np.log1p(
                np.bincount(self.items[:end], np.exp2(-age / life), size)
            )
        made["sales_trend"] = made["sales_7"] - made["sales_60"]

    def _repeats(self, made: dict[str, np.ndarray], end: int) -> np.ndarray:
        """Add how items are taken again; returns the usual gap in days."""
        size = self.num_items
        keys = (self.owners[:end] * size + self.items[:end]) * DAY_STRIDE + self.days[:end]
        keys = np.unique(keys)
        pairs = keys // DAY_STRIDE
        known, visits = np.unique(pairs, return_counts=True)
        item = known % size
        owners = np.bincount(item, minlength=size)
        made["taken_again"] = (np.bincount(item, visits > 1, size) + 1) / (owners + 8)
        made["takes"] = np.log((np.bincount(item, visits, size) + 1) / (owners + 1))
        again = np.diff(pairs) == 0
        days = np.diff(keys % DAY_STRIDE)[again]
        which = (pairs[1:] % size)[again]
        mean = days.mean() if len(days) else 30.0
        gaps = (np.bincount(which, days, size) + 5 * mean) / (
            np.bincount(which, minlength=size) + 5
        )
        made["gap"] = np.log1p(gaps)
        return gaps


def item_names(numbers: int) -> list[str]:
    """Return the names of item features for a table with so many number columns."""
    made = [f"sold_{days}" for days in _DAYS] + [f"trend_{a}_{b}" for a, b in _TRENDS]
    made += ["age", "last", "taken_again", "takes", "gap"]
    made += [f"number_{i}" for i in range(numbers)]
    for days in _TAKEN_DAYS:
        made += [f"again_{days}", f"adopted_{days}"]
    return [*made, *(f"sales_{life:g}" for life in _HALF_LIVES), "sales_trend"]
