"""`EventsGroupBy`: grouped reductions over the events of one main entity."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monad.targets.values import value_texts

if TYPE_CHECKING:
    from monad.targets.events import DataSourceEvents

Grouped = tuple[np.ndarray, list[str]]


def _whole(name: str) -> str:
    """Return a group's name as `value_texts` spells it, where it was written as "2.0"."""
    return name.removesuffix(".0") if name.removesuffix(".0").lstrip("-").isdigit() else name


class EventsGroupBy:
    """Groups of events; each reduction returns `(values, group names)`.

    With *groups* the result follows that list, zero where a group has no event; without it the
    groups found are returned in sorted order. Several columns join their values with a comma.
    """

    def __init__(self, events: "DataSourceEvents", by: list[str]) -> None:
        self._events = events
        self._by = by

    def _codes(self, groups: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
        columns = [value_texts(np.asarray(self._events[name])) for name in self._by]
        keys = columns[0]
        for column in columns[1:]:
            keys = np.char.add(np.char.add(keys, ","), column)
        found, codes = np.unique(keys, return_inverse=True)
        if groups is None:
            return codes.reshape(-1), [str(name) for name in found]
        names = [str(name) for name in groups]
        order = {_whole(name): i for i, name in enumerate(names)}
        order |= {name: i for i, name in enumerate(names)}
        lookup = np.array([order.get(str(name), -1) for name in found], dtype=np.int64)
        return (lookup[codes.reshape(-1)] if len(found) else codes.reshape(-1)), names

    def _reduce(
        self, target: str | Callable[[Any], Any], groups: Sequence[str] | None, how: str
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

    def count(self, normalize: bool = False, groups: Sequence[str] | None = None) -> Grouped:
        """Count events per group; normalised counts sum to 1."""
        codes, names = self._codes(groups)
        counts = np.bincount(codes[codes >= 0], minlength=len(names)).astype(np.float64)
        if normalize and counts.sum() > 0:
            counts = counts / counts.sum()
        return counts, names

    def exists(self, groups: Sequence[str] | None = None) -> Grouped:
        """Return 1 for each group with an event, else 0, in the order of *groups*."""
        counts, names = self.count(groups=groups)
        return (counts > 0).astype(np.float32), names

    def sum(
        self, target: str | Callable[[Any], Any], groups: Sequence[str] | None = None
    ) -> Grouped:
        """Sum a column per group."""
        return self._reduce(target, groups, "sum")

    def mean(
        self, target: str | Callable[[Any], Any], groups: Sequence[str] | None = None
    ) -> Grouped:
        """Average a column per group; 0 for a group without events."""
        return self._reduce(target, groups, "mean")

    def min(
        self, target: str | Callable[[Any], Any], groups: Sequence[str] | None = None
    ) -> Grouped:
        """Return the smallest value per group; 0 for a group without events."""
        return self._reduce(target, groups, "min")

    def max(
        self, target: str | Callable[[Any], Any], groups: Sequence[str] | None = None
    ) -> Grouped:
        """Return the largest value per group; 0 for a group without events."""
        return self._reduce(target, groups, "max")
