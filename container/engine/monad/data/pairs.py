"""Features of (main entity, item) pairs and of items at a split point, for recommendation.

How often and how recently the entity took the item, how popular the item was lately, and how
often it goes with what the entity took last. All from events with `time <= split`.
"""

from typing import Any

import numpy as np
import torch

from monad.config.time_range import DAY_SECONDS
from monad.data.batches import Batch, RowReader

POPULARITY_DAYS = (7, 30, 90)
PAIR_FEATURES = 9
ITEM_FEATURES = len(POPULARITY_DAYS) + 2
_NEIGHBOURS = 20
_RECENT_ITEMS = 20
_CACHED_POINTS = 128
_NEIGHBOUR_SECONDS = 28 * DAY_SECONDS  # companions are counted anew at these steps


class PairReader:
    """Adds pair and item features to the batches of a row reader."""

    def __init__(self, reader: RowReader, item_position: int) -> None:
        self.reader = reader
        self.item_position = item_position
        index = reader.categories[item_position]
        field = reader.representation.fields[index]
        self.num_items = field.size
        table = reader.store.table(field.owner)
        column = table.column(field.column)
        lookup = field.lookup(column.dictionary)
        times = np.asarray(table.times)
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._items = lookup[column.raw(order)].astype(np.int32)
        self._owners = table.entities[order]
        self._points: dict[tuple[str, int], Any] = {}

    def item_features(self, stamp: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (N, Q) features, and neighbours (N, K) with weights, at one split point."""
        since = stamp // _NEIGHBOUR_SECONDS * _NEIGHBOUR_SECONDS
        for key, make in (
            (("items", stamp), self._popularity),
            (("near", since), self._neighbours),
        ):
            if key not in self._points:
                if len(self._points) >= _CACHED_POINTS:
                    self._points.pop(next(iter(self._points)))
                self._points[key] = make(key[1])
        return (self._points["items", stamp], *self._points["near", since])

    def _popularity(self, stamp: int) -> torch.Tensor:
        end = int(np.searchsorted(self._times, stamp, side="right"))
        made = []
        for days in POPULARITY_DAYS:
            low = int(np.searchsorted(self._times, stamp - days * DAY_SECONDS, side="right"))
            counts = np.bincount(self._items[low:end], minlength=self.num_items)
            made.append(np.log1p(1e5 * counts / max(end - low, 1)))
        counts = np.bincount(self._items[:end], minlength=self.num_items)
        made.append(np.log1p(1e5 * counts / max(end, 1)))
        first = np.full(self.num_items, stamp, dtype=np.int64)
        seen, at = np.unique(self._items[:end], return_index=True)
        first[seen] = self._times[at]
        made.append(np.log1p((stamp - first) / DAY_SECONDS))
        return torch.from_numpy(np.stack(made, 1).astype(np.float32) / 5.0)

    def _neighbours(self, stamp: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each item's companions: items the same entity took on the same day."""
        from scipy import sparse

        end = int(np.searchsorted(self._times, stamp, side="right"))
        low = max(0, end - 400_000)
        items, owners = self._items[low:end], self._owners[low:end].astype(np.int64)
        day = self._times[low:end] // DAY_SECONDS
        baskets = np.unique(owners * 100_000 + day % 100_000, return_inverse=True)[1].reshape(-1)
        ones = np.ones(len(items), dtype=np.float32)
        shape = (int(baskets.max(initial=0)) + 1, self.num_items)
        taken = sparse.csr_matrix((ones, (baskets, items)), shape=shape)
        taken.data[:] = 1.0
        weight = 1.0 / np.sqrt(np.maximum(np.asarray(taken.sum(1)).reshape(-1), 1.0))
        common = (sparse.diags(weight) @ taken).T @ taken
        common = sparse.csr_matrix(common)
        common.setdiag(0)
        norm = np.asarray(taken.sum(0)).reshape(-1) + 5.0
        neighbours = np.zeros((self.num_items, _NEIGHBOURS), dtype=np.int64)
        weights = np.zeros((self.num_items, _NEIGHBOURS), dtype=np.float32)
        for item in range(self.num_items):
            row = slice(common.indptr[item], common.indptr[item + 1])
            found, value = common.indices[row], common.data[row]
            value = value / np.sqrt(norm[found] * norm[item])
            if len(found) > _NEIGHBOURS:
                best = np.argpartition(-value, _NEIGHBOURS)[:_NEIGHBOURS]
                found, value = found[best], value[best]
            neighbours[item, : len(found)], weights[item, : len(found)] = found, value
        return torch.from_numpy(neighbours), torch.from_numpy(weights)

    def extend(self, batch: Batch) -> Batch:
        """Add `item_features`, `pair_rows`, `pair_items` and `pair_features`; one stamp only."""
        entities, stamps = batch["entities"].numpy(), batch["stamps"].numpy()
        stamp = int(stamps[0])
        features, neighbours, weights = self.item_features(stamp)
        begin, end = self.reader.bounds(entities, stamps)
        size = np.minimum(end - begin, 1000)
        starts = np.concatenate([[0], np.cumsum(size)])[:-1]
        rows = np.repeat(np.arange(len(size)), size)
        flat = np.repeat(end - size - starts, size) + np.arange(int(size.sum()))
        items = self.reader.codes(self.item_position, flat)
        keep = items > 1
        rows, items, flat = rows[keep], items[keep], flat[keep]
        age = (stamp - np.asarray(self.reader.store.stream.times[flat])) / DAY_SECONDS
        own = self._own(rows, items, age, len(size))
        near = self._near(rows, items, age, neighbours.numpy(), weights.numpy())
        batch.update(self._joined(own, near))
        batch["item_features"] = features
        return batch

    def _own(
        self, rows: np.ndarray, items: np.ndarray, age: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pair keys and features of items the entity took before."""
        keys = rows.astype(np.int64) * self.num_items + items
        found, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
        codes = codes.reshape(-1)
        latest = np.full(len(found), np.inf)
        np.minimum.at(latest, codes, age)
        earliest = np.zeros(len(found))
        np.maximum.at(earliest, codes, age)
        days = np.unique(np.stack([codes, age.astype(np.int64)], 1), axis=0)[:, 0]
        distinct = np.bincount(days, minlength=len(found))
        recent = np.full(size, np.inf)
        np.minimum.at(recent, rows, age)
        owner = (found // self.num_items).astype(np.int64)
        total = np.bincount(rows, minlength=size)[owner]
        visits = np.unique(np.stack([rows, age.astype(np.int64)], 1), axis=0)[:, 0]
        visits = np.bincount(visits, minlength=size)[owner]
        features = np.stack(
            [
                np.log1p(counts),
                np.log1p(latest) / 3.0,
                np.log1p(earliest) / 3.0,
                np.log1p(distinct),
                distinct / np.maximum(visits, 1),
                np.log1p(1000.0 * counts / np.maximum(total, 1)) / 3.0,
                (latest - recent[owner] < 1.0).astype(float),
                np.ones(len(found)),
            ],
            axis=1,
        )
        return found, features.astype(np.float32)

    def _near(
        self,
        rows: np.ndarray,
        items: np.ndarray,
        age: np.ndarray,
        neighbours: np.ndarray,
        weights: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pair keys and scores of companions of the entity's recent items."""
        if not len(rows):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        from_end = np.concatenate([np.arange(n)[::-1] for n in np.bincount(rows)])
        keep = from_end < _RECENT_ITEMS
        rows, items, age = rows[keep], items[keep], age[keep]
        score = weights[items] * np.exp2(-age / 60.0)[:, None]
        keys = rows[:, None].astype(np.int64) * self.num_items + neighbours[items]
        chosen = score > 0
        found, codes = np.unique(keys[chosen], return_inverse=True)
        return found, np.bincount(codes.reshape(-1), weights=score[chosen]).astype(np.float32)

    def _joined(
        self, own: tuple[np.ndarray, np.ndarray], near: tuple[np.ndarray, np.ndarray]
    ) -> Batch:
        keys = np.union1d(own[0], near[0])
        features = np.zeros((len(keys), PAIR_FEATURES), dtype=np.float32)
        features[np.searchsorted(keys, own[0]), : PAIR_FEATURES - 1] = own[1]
        features[np.searchsorted(keys, near[0]), PAIR_FEATURES - 1] = np.log1p(10.0 * near[1])
        return {
            "pair_rows": torch.from_numpy(keys // self.num_items),
            "pair_items": torch.from_numpy(keys % self.num_items),
            "pair_features": torch.from_numpy(features),
        }
