"""`EventsGroupBy`: grouped reductions over the events of one main entity."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monad.targets.values import labels, wanted_label

if TYPE_CHECKING:
    from monad.targets.events import DataSourceEvents

Grouped = tuple[np.ndarray, list[str]]
_SEPARATOR = "\x1f"


class EventsGroupBy:
    """Groups of events; each reduction returns `(values, group names)`.

    With *groups* the result follows that list, zero where a group has no event; without it the
    groups found are returned in sorted order. Several columns join their values with a comma;
    a group of them is given as a tuple or as that text. An event without a value is in no group.
    """

    def __init__(self, events: "DataSourceEvents", by: list[str]) -> None:
        self._events = events
        self._by = by

    def _codes(self, groups: Sequence[Any] | None) -> tuple[np.ndarray, list[str]]:
        """Return the group of each event, -1 for none, and the groups' names."""
        columns = [np.asarray(self._events[name]) for name in self._by]
        parts = [labels(column) for column in columns]
        keys = [None if None in row else _SEPARATOR.join(row) for row in zip(*parts, strict=True)]
        if groups is None:
            names = sorted({key for key in keys if key is not None})
            order = {name: i for i, name in enumerate(names)}
        else:
            names = [self._name(group) for group in groups]
            order = {self._wanted(group, columns): i for i, group in enumerate(groups)}
        codes = [-1 if key is None else order.get(key, -1) for key in keys]
        return np.array(codes, dtype=np.int64), [n.replace(_SEPARATOR, ",") for n in names]

    def _parts(self, group: Any) -> Sequence[Any]:
        if len(self._by) == 1:
            return [group]
        found = group.split(",") if isinstance(group, str) else list(group)
        if len(found) != len(self._by):
            raise ValueError(f"Group {group!r} does not have a value for each of {self._by}")
        return found

    def _name(self, group: Any) -> str:
        return ",".join(str(part) for part in self._parts(group))

    def _wanted(self, group: Any, columns: list[np.ndarray]) -> str:
        pairs = zip(self._parts(group), columns, strict=True)
        return _SEPARATOR.join(wanted_label(part, column) for part, column in pairs)

    def _reduce(
        self, target: str | Callable[[Any], Any], groups: Sequence[Any] | None, how: str
    ) -> Grouped:
        codes, names = self._codes(groups)
        values = np.asarray(
            target(self._events) if callable(target) else self._events[target], dtype=np.float64
        )
        keep = (codes >= 0) & ~np.isnan(values)
        codes, values = codes[keep], values[keep]
        if how in ("min", "max"):
            made = np.full(len(names), np.inf if how == "min" else -np.inf)
            (np.minimum if how == "min" else np.maximum).at(made, codes, values)
            return np.where(np.isfinite(made), made, 0.0), names
        totals = np.bincount(codes, weights=values, minlength=len(names))
        if how == "mean":
            totals = totals / np.maximum(np.bincount(codes, minlength=len(names)), 1)
        return totals, names

    def count(self, normalize: bool = False, groups: Sequence[Any] | None = None) -> Grouped:
        """Count events per group; normalised counts sum to 1."""
        codes, names = self._codes(groups)
        counts = np.bincount(codes[codes >= 0], minlength=len(names)).astype(np.float64)
        if normalize and counts.sum() > 0:
            counts = counts / counts.sum()
        return counts, names

    def exists(self, groups: Sequence[Any] | None = None) -> Grouped:
        """Return 1 for each group with an event, else 0, in the order of *groups*."""
        counts, names = self.count(groups=groups)
        return (counts > 0).astype(np.float32), names

    def sum(
        self, target: str | Callable[[Any], Any], groups: Sequence[Any] | None = None
    ) -> Grouped:
        """Sum a column per group."""
        return self._reduce(target, groups, "sum")

    def mean(
        self, target: str | Callable[[Any], Any], groups: Sequence[Any] | None = None
    ) -> Grouped:
        """Average a column per group; 0 for a group without events."""
        return self._reduce(target, groups, "mean")

    def min(
        self, target: str | Callable[[Any], Any], groups: Sequence[Any] | None = None
    ) -> Grouped:
        """Return the smallest value per group; 0 for a group without events."""
        return self._reduce(target, groups, "min")

    def max(
        self, target: str | Callable[[Any], Any], groups: Sequence[Any] | None = None
    ) -> Grouped:
        """Return the largest value per group; 0 for a group without events."""
        return self._reduce(target, groups, "max")
