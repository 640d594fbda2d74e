"""The column store: typed arrays sorted by (main entity, time), memory-mapped from scratch.

Times are UTC seconds, rounded up, so that for a split point on a whole second `time <= split`
holds exactly when the event did happen by then. Ties keep the order of the source's rows.
"""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

NUMBER = "number"
CATEGORY = "category"
_EXACT = 2**53  # up to which a float holds every whole number


@dataclasses.dataclass
class Column:
    """One column: numbers, or codes into a dictionary (-1 is missing).

    Attributes:
        kind: NUMBER or CATEGORY.
        override: The type name used by `column_type_overrides`.
        data: float32 numbers or int32 codes, a row each.
        dictionary: The distinct values of a CATEGORY column, in code order.
        via: For a joined table, the row of that table for each event (-1 is no match).
        modelled: False when the network must not read it (identifiers and duplicates).
        boolean: True when the dictionary's texts stand for true and false.
    """

    name: str
    kind: str
    override: str
    data: np.ndarray
    dictionary: np.ndarray | None = None
    via: np.ndarray | None = None
    modelled: bool = True
    boolean: bool = False

    def raw(self, rows: Any) -> np.ndarray:
        """Return codes or numbers for rows."""
        if self.via is None:
            return np.asarray(self.data[rows])
        index = np.asarray(self.via[rows])
        found = np.asarray(self.data[np.maximum(index, 0)])
        return np.where(index >= 0, found, -1 if self.kind == CATEGORY else np.nan)

    @property
    def distinct(self) -> np.ndarray:
        """The distinct values of a CATEGORY column, in code order."""
        assert self.dictionary is not None
        return self.dictionary

    @cached_property
    def _decoded(self) -> np.ndarray:
        if self.boolean:
            return np.array([*(value == "true" for value in self.distinct), None], dtype=object)
        if self.distinct.dtype == object or not len(self.distinct):
            return np.concatenate([self.distinct.astype(object), np.array([None], dtype=object)])
        return self.distinct

    @cached_property
    def _exact_as_float(self) -> bool:
        values = self.distinct
        return not len(values) or values.dtype.kind != "i" or np.abs(values).max() <= _EXACT

    def values(self, rows: Any) -> np.ndarray:
        """Return the values as the source has them.

        A missing one is NaN among numbers and None among texts, booleans and whole numbers that no
        float can hold.
        """
        raw = self.raw(rows)
        if self.kind == NUMBER:
            return raw.astype(np.float64)
        table, missing = self._decoded, raw < 0
        if table.dtype != object and missing.any():
            if self._exact_as_float:
                return np.where(missing, np.nan, table[raw].astype(np.float64))
            exact = table[raw].astype(object)
            exact[missing] = None
            return exact
        return table[raw].astype(bool) if self.boolean and not missing.any() else table[raw]

    @cached_property
    def code_of(self) -> dict[str, int]:
        """Map each value, as text, to its code."""
        return {str(value): code for code, value in enumerate(self.distinct.tolist())}


class Table:
    """The events of one data source, sorted by entity and time."""

    def __init__(
        self, name: str, offsets: np.ndarray, times: np.ndarray, columns: list[Column]
    ) -> None:
        self.name = name
        self.offsets = offsets
        self.times = np.asarray(times)
        self.columns = columns
        self._by_lower = {column.name.lower(): column for column in columns}

    def __len__(self) -> int:
        return len(self.times)

    def column_names(self) -> list[str]:
        """Return the names of the columns."""
        return [column.name for column in self.columns]

    def resolve(self, name: str) -> str | None:
        """Return this table's spelling of a column name; letter case does not matter."""
        column = self._by_lower.get(name.lower())
        return column.name if column else None

    def column(self, name: str) -> Column:
        """Return a column by name, in any letter case."""
        return self._by_lower[name.lower()]

    def values(self, name: str, rows: Any) -> np.ndarray:
        """Return the values of a column for rows."""
        return self._by_lower[name.lower()].values(rows)

    @cached_property
    def first_time(self) -> int:
        """The earliest event time."""
        return int(self.times.min()) if len(self.times) else 0

    @cached_property
    def entities(self) -> np.ndarray:
        """The entity index of each row."""
        counts = np.diff(self.offsets)
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    @cached_property
    def _stride(self) -> int:
        """What sets the keys of two entities apart: more seconds than the table spans."""
        return int(self.times.max()) - self.first_time + 3 if len(self.times) else 3

    @cached_property
    def keys(self) -> np.ndarray:
        """Entity and time in one sorted number, for binary search."""
        base = self.entities.astype(np.int64) * self._stride
        return base + (np.asarray(self.times) - self.first_time)

    def position(self, entities: np.ndarray, stamps: np.ndarray | int) -> np.ndarray:
        """Return, for each pair, the row after the entity's last event with time <= stamp."""
        relative = np.clip(np.asarray(stamps) - self.first_time, -1, self._stride - 2)
        wanted = entities.astype(np.int64) * self._stride + relative
        return np.searchsorted(self.keys, wanted, side="right")


@dataclasses.dataclass
class AttributeTable:
    """A main-entity attribute source; its columns have one row per entity."""

    name: str
    columns: list[Column]


class Store:
    """All tables of a configuration."""

    def __init__(
        self,
        entity_ids: np.ndarray,
        tables: list[Table],
        attributes: list[AttributeTable],
        facts: dict[str, Any],
    ) -> None:
        self.entity_ids = entity_ids
        self.tables = tables
        self.attributes = attributes
        self.facts = facts

    @property
    def num_entities(self) -> int:
        """The number of main entities."""
        return len(self.entity_ids)

    @property
    def num_events(self) -> int:
        """The number of events over all tables."""
        return sum(len(table) for table in self.tables)

    @cached_property
    def last_time(self) -> int:
        """The latest event time."""
        return max((int(table.times.max()) for table in self.tables if len(table)), default=0)

    @cached_property
    def first_time(self) -> int:
        """The earliest event time."""
        return min((table.first_time for table in self.tables if len(table)), default=0)

    def table(self, name: str) -> Table:
        """Return a table by name, in any letter case."""
        return next(table for table in self.tables if table.name.lower() == name.lower())

    @cached_property
    def stream(self) -> "Stream":
        """The merged stream of all tables."""
        return Stream(self.tables, self.num_entities)


class Stream:
    """All tables' events merged per entity in time order.

    Attributes:
        offsets: First stream position of each entity, and the end.
        times: Event times.
        source: The table of each position; None when there is one table only.
        row: The row in that table.
    """

    def __init__(self, tables: list[Table], num_entities: int) -> None:
        if len(tables) == 1:
            self.offsets, self.times = tables[0].offsets, tables[0].times
            self.source: np.ndarray | None = None
            self.row: np.ndarray | None = None
            return
        entities = np.concatenate([table.entities for table in tables])
        times = np.concatenate([np.asarray(table.times) for table in tables])
        source = np.concatenate([np.full(len(t), i, np.int8) for i, t in enumerate(tables)])
        row = np.concatenate([np.arange(len(table), dtype=np.int64) for table in tables])
        order = np.lexsort((row, source, times, entities))
        self.times, self.source, self.row = times[order], source[order], row[order]
        counts = np.bincount(entities, minlength=num_entities)
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def rows_of(self, table_index: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask of positions that belong to a table, and their rows in it."""
        if self.source is None or self.row is None:
            return np.ones(len(positions), dtype=bool), positions
        mask = self.source[positions] == table_index
        return mask, self.row[positions[mask]]
