"""`Events` and `DataSourceEvents`: what a target function sees of one main entity.

Both are views over typed column arrays; no Python object exists per event. A time interval is
open on the left and closed on the right, `(start, end]`, so that an event at the split point
belongs to the history and never to the future.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import numpy as np

from monad.config.time_range import seconds_of, to_timestamp
from monad.errors import nearest
from monad.targets.group_by import EventsGroupBy
from monad.targets.values import ColumnValues

Side = Literal["left", "right"]


class EventTable(Protocol):
    """What a view needs from a table of events sorted by entity and time."""

    name: str
    times: np.ndarray

    def column_names(self) -> list[str]:
        """Return the names of the columns."""
        ...

    def resolve(self, name: str) -> str | None:
        """Return the table's own spelling of a column name, or None."""
        ...

    def values(self, name: str, rows: Any) -> np.ndarray:
        """Return the values of a column for a slice or an array of rows."""
        ...


class Window:
    """Remembers whether a target function asked for time past the end of the labels.

    Attributes:
        end: Last second that labels may look at.
        bounded: True once a window with an end was asked for.
        cut: True once one reached past `end`: what was returned is truncated.
    """

    __slots__ = ("bounded", "cut", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.bounded = False
        self.cut = False

    def asked(self, upto: float) -> None:
        """Note the end of a window; one without an end is meant to take what there is."""
        if upto < float("inf"):
            self.bounded = True
            self.cut = self.cut or upto > self.end


class DataSourceEvents:
    """The events of one data source, oldest first."""

    __slots__ = ("_changed", "_rows", "_table", "_window")

    def __init__(
        self,
        table: EventTable,
        rows: slice | np.ndarray,
        changed: Mapping[str, Any] | None = None,
        window: Window | None = None,
    ) -> None:
        self._table = table
        self._rows = rows
        self._changed = dict(changed) if changed else {}
        self._window = window

    @property
    def name(self) -> str:
        """Name of the data source."""
        return self._table.name

    @property
    def timestamps(self) -> np.ndarray:
        """Event times in UTC seconds, a copy: a target function may change what it is given."""
        return np.array(self._table.times[self._rows])

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._table.column_names()

    def __len__(self) -> int:
        if isinstance(self._rows, slice):
            return self._rows.stop - self._rows.start
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._table.resolve(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._table.resolve(name)
        if found is None:
            known = self._table.column_names()
            raise KeyError(
                f"Data source {self.name} has no column `{name}`; {nearest(name, known)}."
                " Times of events are `.timestamps`, in UTC seconds"
            )
        if found in self._changed:
            return self._changed[found]
        values = self._table.values(found, self._rows)
        return ColumnValues.of(values, (self._table.name, found))

    def count(self) -> int:
        """Return the number of events."""
        return len(self)

    def _numbers(self, column: str | Callable[[Any], Any]) -> np.ndarray:
        values = column(self) if callable(column) else self[column]
        return np.asarray(values, dtype=np.float64)

    def sum(self, column: str | Callable[[Any], Any], ignore_nan: bool = True) -> float:
        """Return the sum of a column, or of what a callable makes of the columns."""
        values = self._numbers(column)
        return float(np.nansum(values) if ignore_nan else values.sum())

    def _reduced(self, column: Any, ignore_nan: bool, function: Callable[[Any], Any]) -> float:
        values = self._numbers(column)
        if ignore_nan:
            values = values[~np.isnan(values)]
        return float(function(values)) if values.size else float("nan")

    def mean(self, column: str | Callable[[Any], Any], ignore_nan: bool = True) -> float:
        """Return the mean; NaN when there is nothing to average."""
        return self._reduced(column, ignore_nan, np.mean)

    def min(self, column: str | Callable[[Any], Any], ignore_nan: bool = True) -> float:
        """Return the smallest value; NaN when there is none."""
        return self._reduced(column, ignore_nan, np.min)

    def max(self, column: str | Callable[[Any], Any], ignore_nan: bool = True) -> float:
        """Return the largest value; NaN when there is none."""
        return self._reduced(column, ignore_nan, np.max)

    def _taken(self, chosen: np.ndarray) -> "DataSourceEvents":
        rows = self._rows
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        changed = {name: values[chosen] for name, values in self._changed.items()}
        return DataSourceEvents(self._table, rows[chosen], changed, self._window)

    def filter(self, by: str, condition: Callable[[Any], bool]) -> "DataSourceEvents":
        """Keep the events whose value of *by* meets *condition*, applied value by value."""
        values = self[by]
        chosen = np.fromiter((bool(condition(v)) for v in values), dtype=bool, count=len(values))
        return self._taken(chosen)

    def apply(self, func: Callable[[Any], Any], target: str) -> "DataSourceEvents":
        """Transform the column *target* value by value."""
        values = self[target]
        made = np.array([func(value) for value in values])
        found = self._table.resolve(target) or target
        changed = {**self._changed, found: made}
        return DataSourceEvents(self._table, self._rows, changed, self._window)

    def groupBy(self, by: str | list[str]) -> EventsGroupBy:  # noqa: N802 - documented spelling
        """Group the events by one or several columns."""
        return EventsGroupBy(self, [by] if isinstance(by, str) else list(by))

    groupby = groupBy
    group_by = groupBy

    def between(self, start: float, end: float, side: Side = "right") -> "DataSourceEvents":
        """Return the events of `(start, end]`, or of `[start, end)` with side "left"."""
        if self._window is not None:
            self._window.asked(end if side == "right" else end - 1)
        times = self._table.times[self._rows]
        low = int(np.searchsorted(times, start, side=side))
        high = max(low, int(np.searchsorted(times, end, side=side)))
        if isinstance(self._rows, slice):
            rows: slice | np.ndarray = slice(self._rows.start + low, self._rows.start + high)
        else:
            rows = self._rows[low:high]
        changed = {name: values[low:high] for name, values in self._changed.items()}
        return DataSourceEvents(self._table, rows, changed, self._window)

    def interval_from(self, start: float | datetime, interval: timedelta) -> "DataSourceEvents":
        """Return the events within *interval* of *start*; a negative one looks back."""
        return self.between(*_interval(start, interval))


def _interval(start: float | datetime, interval: timedelta) -> tuple[float, float]:
    first = to_timestamp(start)
    seconds = seconds_of(interval)
    return (first, first + seconds) if seconds >= 0 else (first + seconds, first)


class Events:
    """The events of one main entity, by data source."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Mapping[str, DataSourceEvents]) -> None:
        self._sources = dict(sources)

    def __getitem__(self, name: str) -> DataSourceEvents:
        found = self._sources.get(name)
        if found is not None:
            return found
        for known, source in self._sources.items():
            if known.lower() == name.lower():
                return source
        raise KeyError(f"No event source `{name}`; {nearest(name, self._sources)}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in {n.lower() for n in self._sources}

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def items(self) -> Any:
        """Return pairs of source name and events."""
        return self._sources.items()

    def count(self) -> int:
        """Return the number of events over all sources."""
        return sum(len(source) for source in self._sources.values())

    def interval_from(self, start: float | datetime, interval: timedelta) -> "Events":
        """Limit every source to *interval* after (or, when negative, before) *start*."""
        low, high = _interval(start, interval)
        return self.between(low, high)

    def between(self, start: float, end: float, side: Side = "right") -> "Events":
        """Limit every source to `(start, end]`, or to `[start, end)` with side "left"."""
        return Events({k: v.between(start, end, side) for k, v in self._sources.items()})
