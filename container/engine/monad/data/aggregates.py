"""Causal aggregates of a main entity at a split point.

Counts, sums, means, active days, first-time values, recency and gaps over 1, 7, 30, 90 and 365
days and over all history, per event source. Everything is a difference of prefix sums up to the
split point, so that a value can only depend on events with `time <= split`.
"""

import dataclasses
from functools import cached_property

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.store import CATEGORY, NUMBER, Store, Table

WINDOW_DAYS = (1, 7, 30, 90, 365)
_RECENT_SESSIONS = 6
_MOST_NUMBERS = 6


@dataclasses.dataclass
class TableAggregates:
    """Which columns of a source are aggregated."""

    table: str
    numbers: list[str]
    novelty: list[str]


def choose_aggregates(store: Store) -> list[TableAggregates]:
    """Pick the columns to aggregate from the store's modelled columns."""
    made = []
    for table in store.tables:
        own = [c for c in table.columns if c.modelled]
        numbers = [c.name for c in own if c.kind == NUMBER][:_MOST_NUMBERS]
        categories = [c for c in own if c.kind == CATEGORY and c.dictionary is not None]
        categories = [c for c in categories if c.override not in ("text", "embedding")]
        categories.sort(key=lambda c: -len(c.dictionary))  # type: ignore[arg-type]
        made.append(TableAggregates(table.name, numbers, [c.name for c in categories[:2]]))
    return made


def squash(values: np.ndarray) -> np.ndarray:
    """Return `sign(x) * log(1 + |x|)`."""
    return np.sign(values) * np.log1p(np.abs(values))


class _TablePrefix:
    """Prefix sums of one table."""

    def __init__(self, table: Table, spec: TableAggregates) -> None:
        self.table = table
        self.numbers = [self._cumulated(table.column(n).raw(slice(None))) for n in spec.numbers]
        self.novel = [self._first_times(table.column(name)) for name in spec.novelty]

    @staticmethod
    def _cumulated(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(np.nan_to_num(values.astype(np.float64)))])

    def _first_times(self, column: object) -> np.ndarray:
        """Count rows whose value is new to their entity."""
        codes = column.raw(slice(None)).astype(np.int64)  # type: ignore[attr-defined]
        pair = self.table.entities.astype(np.int64) * (int(codes.max(initial=0)) + 2) + codes + 1
        fresh = np.zeros(len(pair), dtype=np.int32)
        fresh[np.unique(pair, return_index=True)[1]] = 1
        return np.concatenate([[0], np.cumsum(fresh)])

    @cached_property
    def sessions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Active days: a flag per row, its prefix sum, their times, squared gaps cumulated."""
        table = self.table
        day = np.asarray(table.times) // DAY_SECONDS
        first = np.ones(len(table), dtype=bool)
        first[1:] = (day[1:] != day[:-1]) | (table.entities[1:] != table.entities[:-1])
        count = np.concatenate([[0], np.cumsum(first)])
        times = np.asarray(table.times)[first]
        gaps = np.diff(times, prepend=times[:1]).astype(np.float64) / DAY_SECONDS
        same = np.diff(table.entities[first], prepend=-1) == 0
        squares = np.concatenate([[0.0], np.cumsum(np.where(same, gaps, 0.0) ** 2)])
        return first, count, times, squares


class AggregateReader:
    """Computes the aggregates of many (entity, split point) pairs at once."""

    def __init__(self, store: Store, specs: list[TableAggregates]) -> None:
        self.store = store
        self.specs = specs
        self._prefixes = [_TablePrefix(store.table(spec.table), spec) for spec in specs]

    def names(self) -> list[str]:
        """Return the feature names, in the order of the matrix's columns."""
        single = np.zeros(1, dtype=np.int64)
        made: list[str] = []
        for spec, prefix in zip(self.specs, self._prefixes, strict=True):
            features = self._features(spec, prefix, single, single)
            made += [f"{spec.table}:{name}" for name in features]
        return made

    def read(self, entities: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        """Return a float32 matrix, one row for each pair."""
        columns = []
        for spec, prefix in zip(self.specs, self._prefixes, strict=True):
            columns += list(self._features(spec, prefix, entities, stamps).values())
        return np.stack(columns, axis=1).astype(np.float32)

    def _features(
        self, spec: TableAggregates, prefix: _TablePrefix, entities: np.ndarray, stamps: np.ndarray
    ) -> dict[str, np.ndarray]:
        table = prefix.table
        end = table.position(entities, stamps)
        begin = table.offsets[entities]
        made: dict[str, np.ndarray] = {}
        lows = {str(d): table.position(entities, stamps - d * DAY_SECONDS) for d in WINDOW_DAYS}
        lows["all"] = begin
        for window, low in lows.items():
            self._window(made, spec, prefix, window, low, end)
        count = {w: (end - low).astype(np.float64) for w, low in lows.items()}
        made["trend_30_90"] = np.log((count["30"] + 0.5) / (count["90"] / 3 + 0.5))
        made["trend_90_all"] = np.log((count["90"] + 0.5) / (count["all"] + 0.5))
        year = stamps - 365 * DAY_SECONDS
        season = table.position(entities, year + 30 * DAY_SECONDS) - table.position(entities, year)
        made["same_month_last_year"] = np.log1p(season)
        self._gaps(made, prefix, begin, end, stamps)
        return made

    def _window(
        self,
        made: dict[str, np.ndarray],
        spec: TableAggregates,
        prefix: _TablePrefix,
        window: str,
        low: np.ndarray,
        end: np.ndarray,
    ) -> None:
        count = (end - low).astype(np.float64)
        first, days, _, _ = prefix.sessions
        inner = np.minimum(low, len(first) - 1)
        partial = (count > 0) & ~first[inner]
        active = days[end] - days[low] + partial
        made[f"count_{window}"] = np.log1p(count)
        made[f"days_{window}"] = np.log1p(active)
        made[f"per_day_{window}"] = np.log1p(count / np.maximum(active, 1))
        for name, total in zip(spec.numbers, prefix.numbers, strict=True):
            summed = total[end] - total[low]
            made[f"sum_{name}_{window}"] = squash(summed)
            made[f"mean_{name}_{window}"] = squash(summed / np.maximum(count, 1))
            made[f"basket_{name}_{window}"] = squash(summed / np.maximum(active, 1))
        for name, novel in zip(spec.novelty, prefix.novel, strict=True):
            fresh = novel[end] - novel[low]
            made[f"new_{name}_{window}"] = np.log1p(fresh)
            made[f"new_share_{name}_{window}"] = fresh / np.maximum(count, 1)

    def _gaps(
        self,
        made: dict[str, np.ndarray],
        prefix: _TablePrefix,
        begin: np.ndarray,
        end: np.ndarray,
        stamps: np.ndarray,
    ) -> None:
        _, days, times, squares = prefix.sessions
        last, first = days[end], days[begin]
        number = last - first
        far = np.log1p(3650.0)

        def age(index: np.ndarray, valid: np.ndarray) -> np.ndarray:
            safe = np.clip(index, 0, max(len(times) - 1, 0))
            since = (stamps - times[safe]) / DAY_SECONDS if len(times) else np.zeros(len(stamps))
            return np.where(valid, np.maximum(since, 0.0), 3650.0)

        ages = [age(last - k, number >= k) for k in range(1, _RECENT_SESSIONS + 1)]
        for k, value in enumerate(ages, start=1):
            made[f"days_since_{k}"] = np.log1p(value)
        tenure = age(first, number >= 1)
        made["tenure"] = np.log1p(tenure)
        span = np.maximum(tenure - ages[0], 0.0)
        gaps = np.maximum(number - 1, 1)
        mean = np.where(number > 1, span / gaps, 0.0)
        spread = np.maximum((squares[last] - squares[np.minimum(first + 1, last)]) / gaps, 0.0)
        deviation = np.sqrt(np.maximum(spread - mean**2, 0.0))
        made["mean_gap"] = np.where(number > 1, np.log1p(mean), far)
        made["gap_deviation"] = np.where(number > 2, np.log1p(deviation), far)
        made["recency_in_gaps"] = np.where(number > 1, np.log1p(ages[0] / (mean + 1.0)), 0.0)
        made["overdue"] = np.where(
            number > 2, np.clip((ages[0] - mean) / (deviation + 3.0), -5.0, 20.0), 0.0
        )
        made["rate"] = np.log1p(30.0 * number / (tenure + 15.0))
        made["lives"] = (number > 0).astype(np.float64)
