"""The event log that every method sees: parallel columns, sorted by time, ties in file order.

Cutting the log at T is a slice, so that what came after T is not there to be used by mistake.
Codes are given in order of first appearance, so that not even a vocabulary tells of the future.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

DAY = 86_400


@dataclass(frozen=True)
class EventLog:
    """Events of entities with items; every array of events has the same length.

    Attributes:
        entity: Code of who acted.
        item: Code of what was acted on.
        time: Seconds since 1970, not decreasing.
        amount: Money of the line.
        basket: Code of the basket (invoice) that the line belongs to.
        end: Last second that was observed; labels may not look past it.
        numeric: Further numeric columns of the event.
        category: Further categorical columns of the event, as codes into `labels`.
        labels: Texts behind the codes of `category` and of the attributes.
        entity_attributes: Codes into `labels` for each entity, -1 when unknown.
        item_attributes: Codes into `labels` for each item, -1 when unknown.
        closed_catalogue: The items come from a table of their own, so unsold ones are known too.
        closed_entities: The same for entities.
    """

    entity: np.ndarray
    item: np.ndarray
    time: np.ndarray
    amount: np.ndarray
    basket: np.ndarray
    entity_ids: np.ndarray
    item_ids: np.ndarray
    end: int
    numeric: dict[str, np.ndarray] = field(default_factory=dict)
    category: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    entity_attributes: dict[str, np.ndarray] = field(default_factory=dict)
    item_attributes: dict[str, np.ndarray] = field(default_factory=dict)
    closed_catalogue: bool = False
    closed_entities: bool = False

    def __len__(self) -> int:
        return len(self.time)

    @property
    def num_entities(self) -> int:
        """Number of known entities."""
        return len(self.entity_ids)

    @property
    def num_items(self) -> int:
        """Number of known items."""
        return len(self.item_ids)

    @cached_property
    def start(self) -> int:
        """Time of the first event."""
        return int(self.time[0])

    def position(self, cutoff: int) -> int:
        """Return how many events have `time <= cutoff`."""
        return int(np.searchsorted(self.time, cutoff, side="right"))

    def select(self, keep: np.ndarray | slice) -> "EventLog":
        """Return the events at *keep*, with the same codes."""
        return replace(
            self,
            entity=self.entity[keep],
            item=self.item[keep],
            time=self.time[keep],
            amount=self.amount[keep],
            basket=self.basket[keep],
            numeric={name: values[keep] for name, values in self.numeric.items()},
            category={name: values[keep] for name, values in self.category.items()},
        )

    def until(self, cutoff: int) -> "EventLog":
        """Return what was known at *cutoff*: events with `time <= cutoff` and ids seen in them."""
        known = self.select(slice(0, self.position(cutoff)))
        num_entities = self._known(known.entity, self.num_entities, self.closed_entities)
        num_items = self._known(known.item, self.num_items, self.closed_catalogue)
        return replace(
            known,
            end=min(self.end, cutoff),
            entity_ids=self.entity_ids[:num_entities],
            item_ids=self.item_ids[:num_items],
            entity_attributes={n: v[:num_entities] for n, v in self.entity_attributes.items()},
            item_attributes={n: v[:num_items] for n, v in self.item_attributes.items()},
        )

    @staticmethod
    def _known(codes: np.ndarray, total: int, closed: bool) -> int:
        """Return how many ids are known from *codes*, or from their own table."""
        return total if closed else int(codes.max(initial=-1)) + 1

    def between(self, after: int, until: int) -> "EventLog":
        """Return the events with `after < time <= until`, with the same codes."""
        return self.select(slice(self.position(after), self.position(until)))

    def by_item(self) -> "EventLog":
        """Return the same events seen from the items: an item becomes the entity."""
        return replace(
            self,
            entity=self.item,
            item=self.entity,
            entity_ids=self.item_ids,
            item_ids=self.entity_ids,
            entity_attributes=self.item_attributes,
            item_attributes=self.entity_attributes,
            closed_catalogue=self.closed_entities,
            closed_entities=self.closed_catalogue,
        )


def encode(values: Iterable[Any], first: Iterable[Any] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return codes in order of first appearance, and the texts behind them.

    Args:
        values: Values in time order.
        first: Ids that get the lowest codes, whether they appear or not.
    """
    import pandas as pd

    leading = pd.Index(list(first), dtype=object)
    joined = np.concatenate([np.asarray(leading, object), np.asarray(values, object)])
    codes, uniques = pd.factorize(joined)
    return codes[len(leading) :].astype(np.int32), np.asarray(uniques, dtype=str)


def build_log(
    *,
    entity: Any,
    item: Any,
    time: np.ndarray,
    amount: Any = None,
    basket: Any = None,
    numeric: dict[str, Any] | None = None,
    category: dict[str, Any] | None = None,
    catalogue: Iterable[Any] = (),
    entities: Iterable[Any] = (),
    end: int | None = None,
) -> EventLog:
    """Sort columns by time (ties in the order given) and encode their ids.

    A category value of NaN or None gets the code -1. *catalogue* and *entities* are the ids of
    dimension tables: known from the start, whether they appear in an event or not.
    """
    catalogue, entities = list(catalogue), list(entities)
    order = np.argsort(np.asarray(time, np.int64), kind="stable")
    when = np.asarray(time, np.int64)[order]
    entity_code, entity_ids = encode(np.asarray(entity, object)[order], entities)
    item_code, item_ids = encode(np.asarray(item, object)[order], catalogue)
    source = np.asarray(basket, object)[order] if basket is not None else _daily(entity_code, when)
    money = np.zeros(len(when)) if amount is None else np.asarray(amount, np.float64)[order]
    codes, labels = {}, {}
    for name, values in (category or {}).items():
        codes[name], labels[name] = encode(np.asarray(values, object)[order])
    return EventLog(
        entity=entity_code,
        item=item_code,
        time=when,
        amount=money,
        basket=encode(source)[0],
        entity_ids=entity_ids,
        item_ids=item_ids,
        end=int(when[-1]) if end is None else end,
        numeric={n: np.asarray(v, np.float64)[order] for n, v in (numeric or {}).items()},
        category=codes,
        labels=labels,
        closed_catalogue=bool(catalogue),
        closed_entities=bool(entities),
    )


def _daily(entity: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return one basket for each entity and day."""
    return entity.astype(np.int64) * 1_000_000 + time // DAY


def attach_attributes(codes: np.ndarray, ids: np.ndarray, table_ids: np.ndarray) -> np.ndarray:
    """Return *codes* of a table with one row for each of *table_ids*, in the order of *ids*."""
    import pandas as pd

    row = pd.Index(np.asarray(table_ids, str).astype(object)).get_indexer(ids.astype(object))
    return np.where(row >= 0, codes[np.maximum(row, 0)], -1).astype(np.int32)
