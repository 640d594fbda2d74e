"""Features of (main entity, item) pairs and of items at a split point, for recommendation.

How often, how recently and how regularly the entity took the item, how it fits what the entity took
last, and how the item sells; for the entity's own items, companions of those, and what is popular
now. All from events with `time <= split`.
"""

import dataclasses
import time
from typing import Any

import numpy as np
import torch

from monad.config.time_range import DAY_SECONDS
from monad.data.affinity import Takes, matched, neighbours, recent, scaled, top_columns
from monad.data.aggregates import squash
from monad.data.batches import Batch, RowReader
from monad.data.own import DAY_STRIDE, NEVER, VISIT_LIVES, Own, in_visits, row_features
from monad.data.popularity import ItemContext, ItemHistory, item_names

ITEM_NUMBERS = 3
_OWN_ITEMS, _POPULAR, _NEAR, _FORECAST = 200, 50, 40, 40
_MOST_EVENTS = 1_000  # of one entity
_CACHED_POINTS = 16
_HALF_LIVES = (7.0, 15.0, 30.0, 60.0, 120.0)
_RECENT_DAYS = (30, 90, 180)
_DENSE_VALUES = 8_000_000  # up to so many, a whole matrix costs less than sorting a sparse one
_PREPARED_ROWS = 1_024  # at once
_PROFILES = (
    "near_0",
    "near_1",
    "near_2",
    "near_3",
    "lately",
    "lately_last",
    "next",
    "next_recent",
    "alike",
)
_CANDIDATE_PROFILES = ("near_0", "near_1", "next", "alike")


@dataclasses.dataclass
class Pairs:
    """Candidate pairs sorted by row: the row, the item and the features of each."""

    rows: np.ndarray
    items: np.ndarray
    features: np.ndarray


class PairReader:
    """Adds pair and item features to the batches of a row reader."""

    def __init__(self, reader: RowReader, item_position: int) -> None:
        self.reader = reader
        self.item_position = item_position
        index = reader.categories[item_position]
        field = reader.representation.fields[index]
        self.num_items = field.size
        self.table = reader.store.table(field.owner)
        column = self.table.column(field.column)
        self.codes = field.lookup(column.distinct)[column.raw(slice(None))].astype(np.int32)
        names = [c.name for c in self.table.columns if c.modelled and c.kind == "number"]
        self.numbers = [
            np.nan_to_num(squash(self.table.values(name, slice(None)))).astype(np.float32)
            for name in names[:ITEM_NUMBERS]
        ]
        self.history = ItemHistory(self.table, self.codes, self.numbers, self.num_items)
        self._points: dict[int, ItemContext] = {}
        self._prepared: dict[int, tuple[np.ndarray, np.ndarray, Pairs]] = {}

    def context(self, stamp: int) -> ItemContext:
        """Return how items sell and go together at a split point."""
        if stamp not in self._points:
            if len(self._points) >= _CACHED_POINTS:
                self._points.pop(next(iter(self._points)))
            self._points[stamp] = self.history.at(stamp)
        return self._points[stamp]

    def prepare(
        self, entities: np.ndarray, stamps: np.ndarray, deadline: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make the pairs of rows once, the latest split points first, until the *deadline*.

        Returns:
            A sample of features for their scale, and a mask of the rows that are prepared.
        """
        sample = []
        done = np.zeros(len(stamps), dtype=bool)
        for stamp in np.unique(stamps)[::-1].tolist():
            if sample and deadline is not None and time.monotonic() > deadline:
                break
            done |= stamps == stamp
            who = np.unique(entities[stamps == stamp])
            parts = [
                self.pairs(who[at : at + _PREPARED_ROWS], stamp, at)
                for at in range(0, len(who), _PREPARED_ROWS)
            ]
            found = Pairs(
                np.concatenate([part.rows for part in parts]),
                np.concatenate([part.items for part in parts]),
                np.concatenate([part.features for part in parts]),
            )
            starts = np.searchsorted(found.rows, np.arange(len(who) + 1))
            self._prepared[stamp] = (who, starts, found)
            chosen = slice(None, None, max(len(found.rows) // 5_000, 1))
            items = self.context(stamp).features[found.items[chosen]]
            sample.append(np.concatenate([found.features[chosen].astype(np.float32), items], 1))
        return np.concatenate(sample), done

    def without_histories(self, entities: np.ndarray, stamps: np.ndarray) -> Batch | None:
        """Return a batch to be extended by prepared pairs alone; None where they are not made."""
        if not len(entities) or self._known(entities, int(stamps[0])) is None:
            return None
        batch: Batch = {
            "length": torch.ones(len(entities), dtype=torch.int64),
            "entities": torch.from_numpy(entities.astype(np.int64)),
            "stamps": torch.from_numpy(stamps.astype(np.int64)),
        }
        return batch

    def extend(self, batch: Batch) -> Batch:
        """Add `item_features`, `pair_rows`, `pair_items` and `pair_features`; one stamp only."""
        entities, stamp = batch["entities"].numpy(), int(batch["stamps"][0])
        found = self._known(entities, stamp) or self.pairs(entities, stamp)
        batch["pair_rows"] = torch.from_numpy(found.rows)
        batch["pair_items"] = torch.from_numpy(found.items)
        batch["pair_features"] = torch.from_numpy(found.features.astype(np.float32))
        batch["item_features"] = torch.from_numpy(self.context(stamp).features)
        return batch

    def _known(self, entities: np.ndarray, stamp: int) -> Pairs | None:
        if stamp not in self._prepared:
            return None
        who, starts, found = self._prepared[stamp]
        at = np.minimum(np.searchsorted(who, entities), len(who) - 1)
        if (who[at] != entities).any():
            return None
        size = starts[at + 1] - starts[at]
        rows = np.repeat(np.arange(len(at)), size)
        first = np.concatenate([[0], np.cumsum(size)])[:-1]
        index = np.repeat(starts[at] - first, size) + np.arange(int(size.sum()))
        return Pairs(rows, found.items[index], found.features[index])

    def _own(self, entities: np.ndarray, stamp: int) -> Own:
        table = self.table
        end = table.position(entities, np.full(len(entities), stamp))
        size = np.minimum(end - table.offsets[entities], _MOST_EVENTS)
        starts = np.concatenate([[0], np.cumsum(size)])[:-1].astype(np.int64)
        rows = np.repeat(np.arange(len(size)), size)
        flat = np.repeat(end - size - starts, size) + np.arange(int(size.sum()))
        keep = self.codes[flat] > 1
        rows, flat = rows[keep], flat[keep]
        times = np.asarray(table.times)[flat].astype(np.int64)
        day = (times - table.first_time) // DAY_SECONDS
        keys = np.unique(rows * DAY_STRIDE + day)
        days = np.bincount(keys // DAY_STRIDE, minlength=len(size))
        last = np.cumsum(days) - 1
        back = last[rows] - np.searchsorted(keys, rows * DAY_STRIDE + day)
        return Own(
            len(size),
            entities,
            rows,
            self.codes[flat].astype(np.int64),
            (stamp - times) / DAY_SECONDS,
            day,
            [values[flat] for values in self.numbers],
            back,
            days,
        )

    def pairs(self, entities: np.ndarray, stamp: int, first_row: int = 0) -> Pairs:
        """Return the candidate pairs of entities at a split point; rows count from *first_row*."""
        context = self.context(stamp)
        own = self._own(entities, stamp)
        keys = np.unique(np.concatenate(self._candidates(own, context)))
        rows, items = keys // self.num_items, keys % self.num_items
        features = self._features(own, context, rows, items)
        stacked = np.stack([np.asarray(v, np.float16) for v in features.values()], 1)
        return Pairs(rows + first_row, items, stacked)

    def _profiles(self, own: Own, context: ItemContext) -> dict[str, Any]:
        """Return how well every item goes with what rows took, as sparse matrices."""
        from scipy import sparse

        def weighted(weight: np.ndarray) -> Any:
            total = np.maximum(np.bincount(own.rows, weight, own.size), 1e-12)
            data = (weight / total[own.rows]).astype(np.float32)
            shape = (own.size, self.num_items)
            return sparse.csr_matrix((data, (own.rows, own.items)), shape=shape)

        lately = weighted(np.exp2(-own.age / 60.0))
        newest = weighted(np.exp2(-own.age / 15.0))
        last = weighted((own.back == 0).astype(np.float64))
        whole = weighted(np.ones(len(own.rows)))
        found = context.affinity
        made = {
            "near_0": lately @ found.by_entity,
            "near_1": last @ found.by_day,
            "near_2": lately @ found.by_day,
            "near_3": whole @ found.by_entity,
            "lately": lately @ found.lately,
            "lately_last": last @ found.lately,
            "next": last @ found.following,
            "next_recent": newest @ found.following,
            "alike": neighbours(found, own.entities),
        }
        whole_rows = own.size * self.num_items <= _DENSE_VALUES
        return {n: m.toarray() if whole_rows else m.tocsr() for n, m in made.items()}

    def _forecast(self, own: Own, context: ItemContext) -> np.ndarray | None:
        """Return the linear forecast of the rows' next items (rows, items of the forecast)."""
        found = context.affinity.forecast
        if found is None:
            return None
        takes = Takes(own.rows, own.items, own.age, own.day, own.size, self.num_items)
        inputs = scaled(recent(takes)[:, found.items])
        return np.asarray(inputs @ found.weights)

    def _candidates(self, own: Own, context: ItemContext) -> list[np.ndarray]:
        keys, inverse, counts = np.unique(
            own.rows * self.num_items + own.items, return_inverse=True, return_counts=True
        )
        latest = np.full(len(keys), np.inf)
        np.minimum.at(latest, inverse.reshape(-1), own.age)
        owner = keys // self.num_items
        order = np.lexsort((latest, -counts, owner))
        rank = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
        found = [keys[order[rank < _OWN_ITEMS]]]
        everyone = np.arange(own.size, dtype=np.int64)[:, None] * self.num_items
        found.append((everyone + context.popular(_POPULAR)[None, :]).reshape(-1))
        own.profiles = self._profiles(own, context)
        found += [top_columns(own.profiles[name], _NEAR) for name in _CANDIDATE_PROFILES]
        own.forecast = self._forecast(own, context)
        if own.forecast is not None and context.affinity.forecast is not None:
            items = context.affinity.forecast.items
            most = min(_FORECAST, len(items))
            best = np.argpartition(-own.forecast, most - 1, axis=1)[:, :most]
            found.append((everyone + items[best]).reshape(-1))
        return found

    def _features(
        self, own: Own, context: ItemContext, rows: np.ndarray, items: np.ndarray
    ) -> dict[str, np.ndarray]:
        keys, size = rows * self.num_items + items, len(rows)
        at = matched(keys, own.rows * self.num_items + own.items)  # each event's pair, or size

        def summed(weight: np.ndarray) -> np.ndarray:
            return np.bincount(at, weight, size + 1)[:size]

        def days_where(mask: np.ndarray) -> np.ndarray:
            found = np.unique(at[mask] * DAY_STRIDE + own.day[mask]) // DAY_STRIDE
            return np.bincount(found, minlength=size + 1)[:size]

        lines = summed(np.ones(len(at)))
        days = days_where(np.ones(len(at), dtype=bool))
        last, first = np.full(size + 1, NEVER), np.zeros(size + 1)
        np.minimum.at(last, at, own.age)
        np.maximum.at(first, at, own.age)
        last, first = last[:size], np.where(days > 0, first[:size], NEVER)
        usual = context.gaps[items]
        gap = np.where(days > 1, (first - last) / np.maximum(days - 1, 1), usual)
        since = np.full(size + 1, 99)
        np.minimum.at(since, at, own.back)
        total = np.bincount(own.rows, minlength=own.size)
        made = {
            "lines": np.log1p(lines),
            "days": np.log1p(days),
            "last": np.log1p(last),
            "first": np.log1p(first),
            "gap": np.log1p(gap),
            "overdue": np.where(days > 0, np.log((last + 1) / (gap + 1)).clip(-4, 4), 0.0),
            "days_since": np.log1p(since[:size]),
            "day_share": days / np.maximum(own.days[rows], 1),
            "line_share": np.log1p(1000 * lines / np.maximum(total[rows], 1)),
        }
        for days_back in _RECENT_DAYS:
            made[f"days_{days_back}"] = np.log1p(days_where(own.age < days_back))
        for life in _HALF_LIVES:
            made[f"decayed_{life:g}"] = np.log1p(summed(np.exp2(-own.age / life)))
        for k in range(3):
            made[f"visit_{k}"] = np.minimum(summed((own.back == k).astype(float)), 1.0)
        recent = days_where(own.back < 5)
        made["of_last_visits"] = recent / np.clip(own.days[rows], 1, 5)
        for i, values in enumerate(own.numbers):
            made[f"number_{i}"] = summed(values.astype(np.float64)) / np.maximum(lines, 1)
        made |= in_visits(own, at, size)
        for name in _PROFILES:
            made[name] = _looked_up(own.profiles[name], rows, items)
        made["forecast"] = _forecast_of(own.forecast, context, rows, items)
        made |= {name: values[rows] for name, values in row_features(own, self.num_items).items()}
        for i, means in enumerate(context.numbers):
            made[f"to_usual_{i}"] = means[items] - made[f"row_number_{i}"]
        return made


def feature_names(numbers: int) -> tuple[list[str], list[str]]:
    """Return the names of pair and item features for a table with so many number columns."""
    used = min(numbers, ITEM_NUMBERS)
    pairs = ["lines", "days", "last", "first", "gap", "overdue", "days_since", "day_share"]
    pairs += ["line_share", *(f"days_{d}" for d in _RECENT_DAYS)]
    pairs += [*(f"decayed_{life:g}" for life in _HALF_LIVES), "visit_0", "visit_1", "visit_2"]
    pairs += ["of_last_visits", *(f"number_{i}" for i in range(used))]
    pairs += [*(f"visits_{life:g}" for life in VISIT_LIVES), "since_first", "first_visit"]
    pairs += [*(f"last_number_{i}" for i in range(used)), *_PROFILES, "forecast"]
    pairs += ["row_lines", "row_days", "row_items"]
    pairs += ["row_repeats", "row_lines_a_day", "row_recency", "row_tenure", "row_gap"]
    pairs += ["row_new_share", *(f"row_number_{i}" for i in range(used))]
    pairs += [f"to_usual_{i}" for i in range(used)]
    return pairs, item_names(used)


def _forecast_of(
    forecast: np.ndarray | None, context: ItemContext, rows: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """Return the log-scaled forecast of pairs; 0 for items that it does not hold."""
    known = context.affinity.forecast
    if forecast is None or known is None:
        return np.zeros(len(rows), dtype=np.float32)
    at = np.minimum(np.searchsorted(known.items, items), len(known.items) - 1)
    found = np.where(known.items[at] == items, forecast[rows, at], 0.0)
    return np.log1p(100.0 * np.maximum(found, 0.0))


def _looked_up(matrix: Any, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return log-scaled entries of a matrix, sparse or not, at sorted pairs."""
    if isinstance(matrix, np.ndarray):
        return np.log1p(1000.0 * matrix[rows, items])
    if not matrix.nnz or not len(rows):
        return np.zeros(len(rows), dtype=np.float32)
    matrix.sort_indices()
    width = matrix.shape[1]
    owner = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    stored, keys = owner * width + matrix.indices, rows * width + items
    at = np.minimum(np.searchsorted(stored, keys), len(stored) - 1)
    return np.log1p(1000.0 * np.where(stored[at] == keys, matrix.data[at], 0.0))
