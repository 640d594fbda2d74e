"""Batches of whole histories, for learning what follows each event, and of held-out last events."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from monad.data.batches import Batch, RowReader, batches_by_length
from monad.data.device import shaped_windows, shapes_for, windows

_MOST_WINDOWS = 4
_MOST_SHAPES, _BATCHES_A_SHAPE = 12, 4


@dataclasses.dataclass
class Histories:
    """Which part of the stream belongs to each entity: `begin` up to and without `end`."""

    entities: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.entities)

    def take(self, chosen: np.ndarray) -> "Histories":
        """Return some of the entities."""
        return Histories(self.entities[chosen], self.begin[chosen], self.end[chosen])

    @property
    def counts(self) -> np.ndarray:
        """Number of events of each entity."""
        return self.end - self.begin


def histories(reader: RowReader, entities: np.ndarray, end: int) -> Histories:
    """Return the histories up to *end* of entities with two events at least."""
    begin, stop = reader.bounds(entities, np.full(len(entities), end))
    keep = stop - begin > 1
    return Histories(entities[keep], begin[keep], stop[keep])


def hold_out_last(whole: Histories, most: int, seed: int) -> tuple[Histories, Histories]:
    """Return histories for training and for validation, where the last event is the question.

    Some entities with three events at least lose their last event in training. The choice
    depends on the seed alone, so that a scenario holds out what its foundation model did.
    """
    able = np.flatnonzero(whole.counts > 2)
    size = min(most, len(able) // 4)
    chosen = np.sort(np.random.default_rng((seed, 77)).choice(able, size, replace=False))
    shorter = whole.end.copy()
    shorter[chosen] -= 1
    return Histories(whole.entities, whole.begin, shorter), whole.take(chosen)


class SequenceBatches:
    """Windows of histories; each epoch covers every history once, long ones in part."""

    def __init__(self, reader: RowReader, chosen: Histories, tokens: int, rows: int) -> None:
        self.reader = reader
        self.chosen = chosen
        self.tokens = tokens
        self.rows = rows
        self.named = False  # give windows by name, for columns that lie on the device
        self.shapes: list[tuple[int, int]] = []  # of which an epoch's batches have one

    def fix_shapes(self) -> None:
        """Let an epoch's batches have one of a few shapes, shortest first."""
        sizes = np.minimum(self.chosen.counts, self.window)
        most = int(np.clip(self.num_batches() // _BATCHES_A_SHAPE, 1, _MOST_SHAPES))
        self.shapes = shapes_for(sizes, self.tokens, self.rows, most)

    def read(self, begin: np.ndarray, end: np.ndarray) -> Batch:
        """Return a batch of windows."""
        return windows(begin, end) if self.named else self.reader.sequences(begin, end)

    @property
    def window(self) -> int:
        """Events of a window: those that are read and the one that follows."""
        return self.reader.max_events + 1

    def total_events(self) -> float:
        """Return the number of events that an epoch reads at most."""
        windows = np.minimum(-(-self.chosen.counts // self.window), _MOST_WINDOWS)
        return float(np.minimum(self.chosen.counts, self.window * windows).sum())

    def num_batches(self) -> int:
        """Estimate the number of batches of an epoch."""
        return max(int(np.ceil(self.total_events() / self.tokens / 0.9)), 1)

    def epoch(self, seed: tuple[int, int]) -> Iterator[Batch]:
        """Yield the batches of one epoch, in an order and with windows of its own."""
        random = np.random.default_rng(seed)
        counts = self.chosen.counts
        copies = np.minimum(-(-counts // self.window), _MOST_WINDOWS)
        owner = np.repeat(np.arange(len(counts)), copies)
        begin, end = self.chosen.begin[owner], self.chosen.end[owner]
        spare = np.maximum(end - begin - self.window, 0)
        back = (random.random(len(owner)) * (spare + 1)).astype(np.int64)
        newest = np.concatenate([[True], owner[1:] != owner[:-1]]) & (
            random.random(len(owner)) < 0.5
        )
        end = end - np.where(newest, 0, back)
        begin = np.maximum(begin, end - self.window)
        if self.shapes:
            yield from self._shaped(begin, end, random)
            return
        for part in batches_by_length(end - begin, self.tokens, self.rows, random):
            yield self.read(begin[part], end[part])

    def _shaped(
        self, begin: np.ndarray, end: np.ndarray, random: np.random.Generator
    ) -> Iterator[Batch]:
        """Yield all windows in batches of fixed shapes, in random order.

        A last batch that is at least half full is filled up with windows of its shape.
        """
        shape = np.searchsorted([length for _, length in self.shapes], end - begin)
        parts: list[tuple[int, np.ndarray]] = []
        for k, (rows, _) in enumerate(self.shapes):
            mine = random.permutation(np.flatnonzero(shape == k))
            rest = len(mine) % rows
            if 2 * rest >= rows and len(mine) > rows:
                mine = np.concatenate([mine, mine[: rows - rest]])
            parts += [(k, mine[at : at + rows]) for at in range(0, len(mine), rows)]
        for at in random.permutation(len(parts)):
            k, part = parts[at]
            yield shaped_windows(begin[part], end[part], self.shapes[k])

    def in_order(self) -> Iterator[Batch]:
        """Yield every history's newest window once, ordered by length."""
        end = self.chosen.end
        begin = np.maximum(self.chosen.begin, end - self.window)
        order = np.argsort(end - begin, kind="stable")
        for part in batches_by_length((end - begin)[order], self.tokens, self.rows, None):
            rows = order[part]
            yield self.read(begin[rows], end[rows])
