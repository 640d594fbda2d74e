"""Make the network's input for (main entity, split point) pairs: slices of typed arrays.

B rows, T events. Inputs hold events with `time <= split` only.
"""

from typing import Any

import numpy as np
import torch

from monad.config.time_range import DAY_SECONDS
from monad.data.aggregates import AggregateReader, squash
from monad.data.dense import DenseColumn, add_parts
from monad.data.fields import ABSENT, TEXT, VECTOR, Field
from monad.data.representation import Representation
from monad.data.store import CATEGORY, NUMBER, Store

FUTURE_DAYS = (1, 7, 30)
BAG_DECAY_DAYS = (0.0, 90.0, 14.0)  # 0: no decay
_SKETCHED_SIZE = 100
Batch = dict[str, Any]


def sketched_fields(categories: list[Field], most: int) -> list[int]:
    """Return the positions of the fields that the additive sketch holds, largest first."""
    order = sorted(range(len(categories)), key=lambda k: -categories[k].size)
    return [k for k in order if categories[k].size > _SKETCHED_SIZE or k == order[0]][:most]


class RowReader:
    """Reads rows of a store in the encoding of a representation."""

    def __init__(
        self,
        store: Store,
        representation: Representation,
        max_events: int,
        bag_events: int = 256,
        sketch_fields: int = 2,
    ) -> None:
        self.store = store
        self.representation = representation
        self.max_events = max_events
        self.bag_events = bag_events
        self.aggregates = AggregateReader(store, representation.aggregates)
        self.table_index = {name: i for i, name in enumerate(representation.tables)}
        self._columns = []
        self._lookups: dict[int, np.ndarray] = {}
        for position, field in enumerate(representation.fields):
            column = store.table(field.owner).column(field.column)
            self._columns.append(column)
            if field.kind == CATEGORY:
                self._lookups[position] = field.lookup(column.distinct)
        self.categories = [i for i, f in enumerate(representation.fields) if f.kind == CATEGORY]
        self.numbers = [i for i, f in enumerate(representation.fields) if f.kind == NUMBER]
        self.dense = [
            (field, DenseColumn(field, column))
            for field, column in zip(representation.fields, self._columns, strict=True)
            if field.kind in (TEXT, VECTOR)
        ]
        found = [representation.fields[i] for i in self.categories]
        self.sketched = sketched_fields(found, sketch_fields)
        self._read_attributes()

    def _read_attributes(self) -> None:
        by_name = {source.name: source for source in self.store.attributes}
        categories, numbers = [], []
        self.attribute_dense: list[DenseColumn] = []
        for field in self.representation.attributes:
            column = next(c for c in by_name[field.owner].columns if c.name == field.column)
            if field.kind in (TEXT, VECTOR):
                self.attribute_dense.append(DenseColumn(field, column))
            elif field.kind == CATEGORY:
                categories.append(field.lookup(column.distinct)[column.raw(slice(None))])
            else:
                numbers.append(squash(column.raw(slice(None)).astype(np.float64)))
        rows = self.store.num_entities
        self.attribute_codes = np.stack(categories, 1) if categories else np.zeros((rows, 0), int)
        self.attribute_numbers = (
            np.stack(numbers, 1).astype(np.float32) if numbers else np.zeros((rows, 0), np.float32)
        )

    def lengths(self, entities: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        """Return the number of history events of each row, capped at max_events."""
        begin, end = self.bounds(entities, stamps)
        return np.minimum(end - begin, self.max_events)

    def bounds(self, entities: np.ndarray, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the stream positions of the entity's first event and past its last one."""
        stream = self.store.stream
        begin = stream.offsets[entities]
        end = begin.copy()
        for table in self.store.tables:
            end = end + table.position(entities, stamps) - table.offsets[entities]
        return begin, end

    def codes(self, position: int, stream_rows: np.ndarray) -> np.ndarray:
        """Return a categorical field's indices at stream positions; ABSENT elsewhere."""
        index = self.categories[position]
        field = self.representation.fields[index]
        mask, rows = self.store.stream.rows_of(self.table_index[field.owner], stream_rows)
        made = np.full(len(stream_rows), ABSENT, dtype=np.int64)
        made[mask] = self._lookups[index][self._columns[index].raw(rows)]
        return made

    def _number(self, index: int, stream_rows: np.ndarray) -> np.ndarray:
        field = self.representation.fields[index]
        mask, rows = self.store.stream.rows_of(self.table_index[field.owner], stream_rows)
        made = np.full(len(stream_rows), np.nan, dtype=np.float32)
        made[mask] = squash(self._columns[index].raw(rows).astype(np.float64))
        return made

    def _dense(
        self,
        field: Field,
        column: DenseColumn,
        flat: np.ndarray,
        keep: np.ndarray,
        shape: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mask, rows = self.store.stream.rows_of(self.table_index[field.owner], flat)
        codes = np.full(len(flat), -1, dtype=np.int64)
        codes[mask] = column.column.raw(rows)
        return column.part(np.where(keep, codes, -1).reshape(shape))

    def read(
        self,
        entities: np.ndarray,
        stamps: np.ndarray,
        most_events: int | None = None,
        aggregates: np.ndarray | None = None,
    ) -> Batch:
        """Return the tensors of a batch.

        *most_events* shortens the sequences further; *aggregates* are computed unless given.
        """
        begin, end = self.bounds(entities, stamps)
        size = np.minimum(end - begin, min(most_events or self.max_events, self.max_events))
        batch = self.sequences(end - size, end)
        batch["entities"] = torch.from_numpy(entities.astype(np.int64))
        batch["stamps"] = torch.from_numpy(stamps.astype(np.int64))
        self._bags(batch, begin, end, stamps)
        if aggregates is None:
            aggregates = self.aggregates.read(entities, stamps)
        batch["aggregates"] = torch.from_numpy(aggregates)
        batch["attribute_codes"] = torch.from_numpy(self.attribute_codes[entities])
        batch["attribute_numbers"] = torch.from_numpy(self.attribute_numbers[entities])
        parts = [column.part(column.column.raw(entities)) for column in self.attribute_dense]
        add_parts(batch, "attribute_dense", parts)
        return batch

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """Return what `sequences` reads, for stream positions in a row; not for dense fields."""
        stream = self.store.stream
        times = np.asarray(stream.times[rows])
        before = np.asarray(stream.times[np.maximum(rows - 1, 0)])
        source = stream.source
        return {
            "codes": [self.codes(k, rows) for k in range(len(self.categories))],
            "numbers": [self._number(i, rows) for i in self.numbers],
            "gaps": _gap(times - before),
            "weekday": (times // DAY_SECONDS + 3) % 7,
            "hour": times // 3600 % 24,
            "source": np.zeros(len(rows), np.int64) if source is None else source[rows],
        }

    def sequences(self, begin: np.ndarray, end: np.ndarray) -> Batch:
        """Return the events of stream ranges, one row each, without anything beside them."""
        size = end - begin
        longest = max(int(size.max(initial=0)), 1)
        grid = (end - size)[:, None] + np.arange(longest)[None, :]
        valid = np.arange(longest)[None, :] < size[:, None]
        total = len(self.store.stream.times)
        flat = np.minimum(np.where(valid, grid, 0), max(total - 1, 0)).reshape(-1)
        keep = valid.reshape(-1)
        batch: Batch = {
            "length": torch.from_numpy(size.astype(np.int64)),
            "valid": torch.from_numpy(valid),
        }
        shape = (len(size), longest)
        batch["codes"] = [
            torch.from_numpy(np.where(keep, self.codes(k, flat), ABSENT).reshape(shape))
            for k in range(len(self.categories))
        ]
        # Known here, so that a GPU need not be asked: positions with an event after them, and
        # a bit for each field that every event has.
        batch["followed"] = torch.from_numpy(_followed(valid))
        batch["complete"] = sum(
            int((codes.numpy() != ABSENT)[valid].all()) << k
            for k, codes in enumerate(batch["codes"])
        )
        numbers = [self._number(i, flat).reshape(shape) for i in self.numbers]
        stacked = np.stack(numbers, 2) if numbers else np.zeros((*shape, 0), np.float32)
        batch["numbers"] = torch.from_numpy(stacked.astype(np.float32))
        self._times(batch, flat, shape, valid)
        add_parts(batch, "dense", [self._dense(*d, flat, keep, shape) for d in self.dense])
        return batch

    def _times(
        self, batch: Batch, flat: np.ndarray, shape: tuple[int, int], valid: np.ndarray
    ) -> None:
        stream = self.store.stream
        times = np.asarray(stream.times[flat]).reshape(shape)
        gaps = np.zeros(shape, dtype=np.float32)
        if shape[1] > 1:
            seconds = np.where(valid[:, 1:], times[:, 1:] - times[:, :-1], 0)
            gaps[:, 1:] = _gap(seconds)
        batch["gaps"] = torch.from_numpy(gaps)
        batch["weekday"] = torch.from_numpy((times // DAY_SECONDS + 3) % 7)
        batch["hour"] = torch.from_numpy(times // 3600 % 24)
        if stream.source is not None:
            source = np.asarray(stream.source[flat]).reshape(shape).astype(np.int64)
        else:
            source = np.zeros(shape, dtype=np.int64)
        batch["source"] = torch.from_numpy(source)

    def _bags(self, batch: Batch, begin: np.ndarray, end: np.ndarray, stamps: np.ndarray) -> None:
        """Add the additive sketch's items: flat codes, row starts, and a weight per decay."""
        size = np.minimum(end - begin, self.bag_events)
        starts = np.concatenate([[0], np.cumsum(size)])[:-1]
        rows = np.repeat(np.arange(len(size)), size)
        flat = np.repeat(end - size - starts, size) + np.arange(int(size.sum()))
        age = (stamps[rows] - np.asarray(self.store.stream.times[flat])) / DAY_SECONDS
        weights = [
            np.ones(len(age)) if days == 0 else np.exp2(-age / days) for days in BAG_DECAY_DAYS
        ]
        scale = 1.0 / np.sqrt(1.0 + size)[rows]
        batch["bag_starts"] = torch.from_numpy(starts.astype(np.int64))
        batch["bag_weights"] = torch.from_numpy((np.stack(weights) * scale).astype(np.float32))
        batch["bag_codes"] = [torch.from_numpy(self.codes(k, flat)) for k in self.sketched]

    def future_counts(
        self, entities: np.ndarray, stamps: np.ndarray, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log counts of events in `(split, split + d]` per source, and which are known."""
        counts, known = [], []
        for table in self.store.tables:
            now = table.position(entities, stamps)
            for days in FUTURE_DAYS:
                upto = stamps + days * DAY_SECONDS
                counts.append(np.log1p(table.position(entities, np.minimum(upto, end)) - now))
                known.append(upto <= end)
        made = np.stack(counts, 1).astype(np.float32)
        return torch.from_numpy(made), torch.from_numpy(np.stack(known, 1))


def _gap(seconds: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(seconds, 0) / 60.0).astype(np.float32)


def _followed(valid: np.ndarray) -> np.ndarray:
    """Return the flat positions of events that another one of their row follows."""
    made = np.zeros_like(valid)
    made[:, :-1] = valid[:, 1:]
    return np.flatnonzero(made)


def batches_by_length(
    lengths: np.ndarray, tokens: int, rows: int, random: np.random.Generator | None
) -> list[np.ndarray]:
    """Group rows of similar length so that a batch holds at most *tokens* events or *rows* rows.

    Sorting happens within shuffled chunks, so that batches differ from epoch to epoch.
    """
    order = np.arange(len(lengths)) if random is None else random.permutation(len(lengths))
    made: list[np.ndarray] = []
    chunk = max(rows * 16, 1)
    for at in range(0, len(order), chunk):
        part = order[at : at + chunk]
        part = part[np.argsort(lengths[part], kind="stable")]
        first = 0
        while first < len(part):
            last = min(first + rows, len(part))
            while last - first > 1 and (last - first) * max(lengths[part[last - 1]], 1) > tokens:
                last = first + max(int(tokens // max(lengths[part[last - 1]], 1)), 1)
            made.append(part[first:last])
            first = last
    if random is not None:
        made = [made[i] for i in random.permutation(len(made))]
    return made
