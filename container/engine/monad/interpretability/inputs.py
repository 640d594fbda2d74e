"""Names and values of the network's inputs, and attributions laid out by input.

Beside the columns there are four inputs of our own naming: `(time)` for calendar and gaps, `(event)`
for the source an event is of, `(activity)` for aggregates that no column is behind (counts,
recency, gaps), and `(history)` for what an entity did with the recommended item.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from monad.data.batches import Batch, RowReader
from monad.data.fields import FIRST, MISSING, Field
from monad.data.store import CATEGORY, NUMBER
from monad.interpretability.attribution import as_numpy
from monad.model.gates import Gates

TIME, EVENT, ACTIVITY, HISTORY = "(time)", "(event)", "(activity)", "(history)"


@dataclasses.dataclass
class Entries:
    """Attributions of one input over a batch, one entry for each place it occurs.

    Attributes:
        rows: Row of the batch.
        places: Position in the event stream, or -1 where the input is no event's.
        codes: Category codes, or None for numbers.
        numbers: Numbers, or None.
    """

    source: str
    name: str
    field: Field | None
    rows: np.ndarray
    places: np.ndarray
    amounts: np.ndarray
    codes: np.ndarray | None = None
    numbers: np.ndarray | None = None

    def values(self) -> list[str | float | None]:
        """Return the entries' values as the data has them."""
        if self.codes is not None and self.field is not None:
            return [category_value(self.field, int(code)) for code in self.codes]
        if self.numbers is not None:
            return [None if np.isnan(x) else float(f"{x:.6g}") for x in self.numbers]
        return [None] * len(self.rows)


def category_value(field: Field, code: int) -> str:
    """Return the value behind a category's index."""
    if code <= MISSING:
        return "(missing)"
    at = code - FIRST
    return field.values[at] if at < len(field.values) else "(other)"


def unsquash(values: np.ndarray) -> np.ndarray:
    """Undo `squash`."""
    return np.sign(values) * np.expm1(np.abs(values))


class InputNames:
    """Knows which column is behind each input of a representation."""

    def __init__(self, reader: RowReader, item_position: int = -1) -> None:
        self.reader = reader
        representation = reader.representation
        self.categories = [representation.fields[i] for i in reader.categories]
        self.numbers = [representation.fields[i] for i in reader.numbers]
        self.attributes = [f for f in representation.attributes if f.kind == CATEGORY]
        self.attributes += [f for f in representation.attributes if f.kind == NUMBER]
        self.attributes += [column.field for column in reader.attribute_dense]
        self.item_position = item_position
        self.aggregates = [self._behind(name) for name in representation.aggregate_names]

    def _behind(self, name: str) -> tuple[str, str]:
        """Return source and column (or `(activity)`) of an aggregate, by its name."""
        source, _, rest = name.partition(":")
        spec = next(s for s in self.reader.representation.aggregates if s.table == source)
        named = {*spec.numbers, *spec.novelty, *spec.bands, *spec.common}
        known = sorted(named, key=len, reverse=True)
        found = next((c for c in known if f"_{c}_" in f"_{rest}_"), ACTIVITY)
        return source, found

    def entries(self, batch: Batch, attributions: Gates) -> Iterator[Entries]:
        """Yield the attributions of a batch, input by input."""
        arrays = as_numpy(attributions)
        events, bags = arrays[0], arrays[1:-3]
        yield from self._events(batch, events)
        yield from self._bags(batch, bags)
        yield from self._rest(batch, arrays[-3], arrays[-2])
        if "pair_rows" in batch and self.item_position >= 0:
            rows = batch["pair_rows"].cpu().numpy()
            field = self.categories[self.item_position]
            nowhere = np.full(len(rows), -1)
            yield Entries(field.owner, HISTORY, None, rows, nowhere, arrays[-1])

    def _events(self, batch: Batch, amounts: np.ndarray) -> Iterator[Entries]:
        rows, at = np.nonzero(batch["valid"].cpu().numpy())
        places = self._places(batch, rows, at)
        source = batch["source"].cpu().numpy()[rows, at]
        names = self.reader.representation.tables
        for k, field in enumerate(self.categories):
            codes = batch["codes"][k].cpu().numpy()[rows, at]
            own = source == self.reader.table_index[field.owner]
            found = amounts[rows, at, k][own]
            yield Entries(
                field.owner, field.column, field, rows[own], places[own], found, codes[own]
            )
        for k, field in enumerate(self.numbers):
            own = source == self.reader.table_index[field.owner]
            values = unsquash(batch["numbers"].cpu().numpy()[rows, at, k][own])
            found = amounts[rows, at, len(self.categories) + k][own]
            yield Entries(
                field.owner,
                field.column,
                field,
                rows[own],
                places[own],
                found,
                numbers=values,
            )
        first = len(self.categories) + len(self.numbers)
        for k, (field, _) in enumerate(self.reader.dense):
            own = batch["dense_index"][k].cpu().numpy()[rows, at] > 0
            found = amounts[rows, at, first + k][own]
            yield Entries(field.owner, field.column, None, rows[own], places[own], found)
        for index, name in enumerate(names):
            own = source == index
            for label, position in ((TIME, -2), (EVENT, -1)):
                found = amounts[rows, at, position][own]
                yield Entries(name, label, None, rows[own], places[own], found)

    def _places(self, batch: Batch, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        entities = batch["entities"].cpu().numpy()
        stamps = batch["stamps"].cpu().numpy()
        end = self.reader.bounds(entities, stamps)[1]
        return (end - batch["length"].cpu().numpy())[rows] + at

    def _bags(self, batch: Batch, amounts: list[np.ndarray]) -> Iterator[Entries]:
        entities, stamps = batch["entities"].cpu().numpy(), batch["stamps"].cpu().numpy()
        begin, end = self.reader.bounds(entities, stamps)
        size = np.minimum(end - begin, self.reader.bag_events)
        starts = np.concatenate([[0], np.cumsum(size)])[:-1]
        rows = np.repeat(np.arange(len(size)), size)
        places = np.repeat(end - size - starts, size) + np.arange(int(size.sum()))
        for i, position in enumerate(self.reader.sketched):
            field = self.categories[position]
            codes = batch["bag_codes"][i].cpu().numpy()
            own = codes > 0
            yield Entries(
                field.owner,
                field.column,
                field,
                rows[own],
                places[own],
                amounts[i][own],
                codes[own],
            )

    def _rest(
        self, batch: Batch, aggregates: np.ndarray, attributes: np.ndarray
    ) -> Iterator[Entries]:
        rows = np.arange(len(aggregates))
        nowhere = np.full(len(rows), -1)
        for (source, column), found in zip(self.aggregates, aggregates.T, strict=True):
            yield Entries(source, column, None, rows, nowhere, found)
        codes = batch["attribute_codes"].cpu().numpy()
        numbers = batch["attribute_numbers"].cpu().numpy()
        for k, field in enumerate(self.attributes):
            value = {"codes": codes[:, k]} if field.kind == CATEGORY else {}
            if field.kind == NUMBER:
                value = {"numbers": unsquash(numbers[:, k - codes.shape[1]])}
            yield Entries(
                field.owner, field.column, field, rows, nowhere, attributes[:, k], **value
            )
