"""Causal aggregates of a main entity at a split point.

Counts, sums, means, spreads, active days, first-time and repeated values over windows of 1 to 365
days; weekly and monthly series; shares of week days, hours, price bands and categories; how sought
the entity's items were when it took them; recency and gaps; how the whole business goes. Everything
is a difference of prefix sums up to the split point, so that a value can only depend on events
with `time <= split`.
"""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.store import CATEGORY, NUMBER, Column, Store, Table

WINDOW_DAYS = (1, 7, 14, 30, 60, 90, 180, 365)
_SERIES = (("week", 7, 13), ("month", 30, 12))
_RECENT_SESSIONS = 6
_MOST_NUMBERS = 6
_SHARED_ROWS = 5_000_000  # above, shares would take too much memory
_SHARES, _BANDS = 12, 8
_POPULAR_DAYS = 30
_FRACTION_BITS = 24
_LARGEST = 1e12  # in a sum; one broken value must not leave the others without digits


@dataclasses.dataclass
class TableAggregates:
    """Which columns of a source are aggregated.

    Attributes:
        shares: Which shares there are; None in older checkpoints, where the data at hand decides.
    """

    table: str
    numbers: list[str]
    novelty: list[str]
    bands: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    common: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    shares: list[str] | None = None


def choose_aggregates(store: Store, end: int | None = None) -> list[TableAggregates]:
    """Pick the columns to aggregate, price bands and common values, from rows up to *end* alone."""
    made = []
    for table in store.tables:
        own = [c for c in table.columns if c.modelled]
        numbers = [c.name for c in own if c.kind == NUMBER][:_MOST_NUMBERS]
        categories = [c for c in own if c.kind == CATEGORY and c.dictionary is not None]
        categories = [c for c in categories if c.override not in ("text", "embedding")]
        rows = np.flatnonzero(np.asarray(table.times) <= end) if end is not None else slice(None)
        # Not the dictionary's length: it has values of later, too.
        distinct = {c.name: len(np.unique(c.raw(rows))) for c in categories}
        categories.sort(key=lambda c: -distinct[c.name])
        made.append(
            TableAggregates(
                table.name,
                numbers,
                [c.name for c in categories[:2]],
                {
                    c.name: found
                    for c in own
                    if c.name in numbers[:2]
                    for found in [_edges(c, rows)]
                },
                {c.name: _common(c, rows) for c in categories if distinct[c.name] <= 1000},
                _share_kinds(np.asarray(table.times)[rows]),
            )
        )
    return made


def _share_kinds(times: np.ndarray) -> list[str]:
    """Return which shares are told apart: hours only where the times have some."""
    if not len(times) or len(times) > _SHARED_ROWS:
        return []
    hours = len(np.unique(times[:10_000] % DAY_SECONDS)) > 1
    return ["weekday", *(["hours"] if hours else []), "fitted"]


def _edges(column: Column, rows: Any) -> list[float]:
    """Return the inner edges of bands with equally many rows."""
    values = squash(column.raw(rows).astype(np.float64))
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    return np.unique(np.quantile(values, np.linspace(0, 1, _BANDS + 1)[1:-1])).tolist()


def _common(column: Column, rows: Any) -> list[str]:
    """Return the commonest values of a category."""
    codes = column.raw(rows)
    counts = np.bincount(codes[codes >= 0], minlength=len(column.distinct))
    order = np.argsort(-counts, kind="stable")[:_SHARES]
    return [str(value) for value in column.distinct[order[counts[order] > 0]].tolist()]


def squash(values: np.ndarray) -> np.ndarray:
    """Return `sign(x) * log(1 + |x|)`."""
    return np.sign(values) * np.log1p(np.abs(values))


class _FixedSums:
    """Prefix sums in fixed-point numbers; differences of two reads are exact."""

    def __init__(self, whole: np.ndarray, steps: float) -> None:
        self.whole = whole
        self.steps = steps

    def between(self, low: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return the sums of rows from *low* up to and without *end*."""
        return (self.whole[end] - self.whole[low]) / self.steps

    def rows(self) -> np.ndarray:
        """Return each row's own value."""
        return np.diff(self.whole) / self.steps


class _TablePrefix:
    """Prefix sums of one table."""

    def __init__(self, table: Table, spec: TableAggregates) -> None:
        self.table = table
        chosen = spec.shares
        self.kinds = _share_kinds(np.asarray(table.times)) if chosen is None else chosen
        values = [table.column(name).raw(slice(None)) for name in spec.numbers]
        self.numbers = [self._cumulated(found) for found in values]
        self.squares = [self._cumulated(squash(found.astype(np.float64)) ** 2) for found in values]
        self.logs = [self._cumulated(squash(found.astype(np.float64))) for found in values]
        self.novel = [self._times_taken(table.column(name), 1) for name in spec.novelty]
        self.second = [self._times_taken(table.column(name), 2) for name in spec.novelty]
        self.sought = [self._popularity(table.column(name)) for name in spec.novelty[:1]]

    @staticmethod
    def _cumulated(values: np.ndarray) -> _FixedSums:
        """Cumulate in fixed-point numbers.

        A window's sum then does not depend, not even in its last digit, on rows outside of it.
        """
        clean = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
        clean = np.clip(clean, -_LARGEST, _LARGEST)
        largest = max(float(np.abs(clean).sum()) + 1.0, 1.0)
        steps = 2.0 ** min(_FRACTION_BITS, 61 - int(np.ceil(np.log2(largest))))
        whole = np.cumsum(np.rint(clean * steps).astype(np.int64))
        return _FixedSums(np.concatenate([[0], whole]), steps)

    def _times_taken(self, column: Column, number: int) -> np.ndarray:
        """Count rows that are the first (or second) time their entity has the value."""
        codes = column.raw(slice(None)).astype(np.int64)
        pair = self.table.entities.astype(np.int64) * (int(codes.max(initial=0)) + 2) + codes + 1
        order = np.argsort(pair, kind="stable")
        ordered = pair[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(pair)]
        place = np.arange(len(pair)) - np.maximum.accumulate(np.where(new, np.arange(len(pair)), 0))
        taken = np.zeros(len(pair), dtype=np.int32)
        taken[order] = place == number - 1
        return np.concatenate([[0], np.cumsum(taken)])

    def _popularity(self, column: Column) -> _FixedSums:
        """Cumulate how often each row's value was taken by anyone in the month before it."""
        codes = column.raw(slice(None)).astype(np.int64)
        times = np.asarray(self.table.times).astype(np.int64)
        stride = np.int64(np.ptp(times) + 1) if len(times) else np.int64(1)
        keys = (codes + 1) * stride + (times - self.table.first_time)
        ordered = np.sort(keys, kind="stable")
        upto = np.searchsorted(ordered, keys, side="left")
        span = np.minimum(_POPULAR_DAYS * DAY_SECONDS, keys % stride)
        since = np.searchsorted(ordered, keys - span, side="left")
        return self._cumulated(np.log1p(upto - since))

    @cached_property
    def shares(self) -> dict[str, np.ndarray]:
        """Indicators of week day, hours, price band and common categories, cumulated."""
        table = self.table
        times = np.asarray(table.times)
        kinds: dict[str, np.ndarray] = {}
        if "weekday" in self.kinds:
            kinds["weekday"] = (times // DAY_SECONDS + 3) % 7
        if "hours" in self.kinds:
            kinds["hours"] = times % DAY_SECONDS // (3 * 3600)
        made = {
            f"{kind}_{value}": codes == value
            for kind, codes in kinds.items()
            for value in range(7 if kind == "weekday" else 8)
        }
        return {
            name: np.concatenate([[0], np.cumsum(found, dtype=np.int32)])
            for name, found in made.items()
        }

    def fitted_shares(self, spec: TableAggregates) -> dict[str, np.ndarray]:
        """Indicators of the bands and categories of *spec*, cumulated."""
        if "fitted" not in self.kinds:
            return {}
        made: dict[str, np.ndarray] = {}
        for name, edges in spec.bands.items():
            values = squash(self.table.column(name).raw(slice(None)).astype(np.float64))
            band = np.searchsorted(np.asarray(edges), np.nan_to_num(values))
            for i in range(len(edges) + 1):
                made[f"{name}_band_{i}"] = band == i
        for name, values in spec.common.items():
            column = self.table.column(name)
            codes = column.raw(slice(None))
            for i, value in enumerate(values):
                made[f"{name}_{i}"] = codes == column.code_of.get(value, -2)
        return {
            name: np.concatenate([[0], np.cumsum(found, dtype=np.int32)])
            for name, found in made.items()
        }

    @cached_property
    def overall(self) -> tuple[np.ndarray, list[_FixedSums]]:
        """All rows' times in order, and the numbers cumulated in that order."""
        times = np.asarray(self.table.times)
        order = np.argsort(times, kind="stable")
        return times[order], [self._cumulated(total.rows()[order]) for total in self.numbers[:1]]

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
        self.prefixes = [_TablePrefix(store.table(spec.table), spec) for spec in specs]
        self._fitted = {
            spec.table: prefix.fitted_shares(spec)
            for spec, prefix in zip(specs, self.prefixes, strict=True)
        }

    def names(self) -> list[str]:
        """Return the feature names, in the order of the matrix's columns."""
        single = np.zeros(1, dtype=np.int64)
        made: list[str] = []
        for spec, prefix in zip(self.specs, self.prefixes, strict=True):
            features = self._features(spec, prefix, single, single)
            made += [f"{spec.table}:{name}" for name in features]
        return made

    def read(self, entities: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        """Return a float32 matrix, one row for each pair."""
        columns = []
        for spec, prefix in zip(self.specs, self.prefixes, strict=True):
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
        self._series(made, prefix, end, entities, stamps)
        self._shares(made, spec, prefix, begin, end)
        self._business(made, prefix, stamps)
        return made

    def _series(
        self,
        made: dict[str, np.ndarray],
        prefix: _TablePrefix,
        end: np.ndarray,
        entities: np.ndarray,
        stamps: np.ndarray,
    ) -> None:
        """Add the last weeks and months one by one, and their decayed sums."""
        _, days, _, _ = prefix.sessions
        total = prefix.numbers[0] if prefix.numbers else None
        for name, length, count in _SERIES:
            high, visits, amounts = end, [], []
            for k in range(1, count + 1):
                low = prefix.table.position(entities, stamps - k * length * DAY_SECONDS)
                visits.append((days[high] - days[low]).astype(np.float64))
                amounts.append(squash(total.between(low, high)) if total is not None else 0.0)
                high = low
            decay = 0.7 ** np.arange(count)
            stacked = np.stack(visits, 1)
            made[f"{name}s_active"] = (stacked > 0).sum(1).astype(np.float64)
            made[f"{name}_days_decayed"] = np.log1p(stacked @ decay)
            for k in range(count):
                made[f"{name}_days_{k}"] = np.log1p(visits[k])
            if total is not None:
                money = np.stack(amounts, 1)
                made[f"{name}_amount_decayed"] = money @ decay
                made[f"{name}_amount_median"] = np.median(money, axis=1)
                for k in range(count):
                    made[f"{name}_amount_{k}"] = amounts[k]

    def _shares(
        self,
        made: dict[str, np.ndarray],
        spec: TableAggregates,
        prefix: _TablePrefix,
        begin: np.ndarray,
        end: np.ndarray,
    ) -> None:
        count = np.maximum(end - begin, 1)
        for name, total in {**prefix.shares, **self._fitted[spec.table]}.items():
            made[f"share_{name}"] = (total[end] - total[begin]) / count

    def _business(
        self, made: dict[str, np.ndarray], prefix: _TablePrefix, stamps: np.ndarray
    ) -> None:
        """Add the season and how all entities together do, alike for every row of a moment."""
        year = 2 * np.pi * (stamps / DAY_SECONDS % 365.25) / 365.25
        made["season_sin"], made["season_cos"] = np.sin(year), np.cos(year)
        times, totals = prefix.overall
        at = [np.searchsorted(times, stamps - d * DAY_SECONDS, side="right") for d in (0, 30, 60)]
        recent, before = at[0] - at[1], at[1] - at[2]
        made["growth_count"] = np.log((recent + 10.0) / (before + 10.0))
        for total in totals:
            late, early = total.between(at[1], at[0]), total.between(at[2], at[1])
            made["growth_amount"] = np.clip(squash(late) - squash(early), -5.0, 5.0)

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
            summed = total.between(low, end)
            made[f"sum_{name}_{window}"] = squash(summed)
            made[f"mean_{name}_{window}"] = squash(summed / np.maximum(count, 1))
            made[f"basket_{name}_{window}"] = squash(summed / np.maximum(active, 1))
        many = np.maximum(count, 1)
        for name, square, log in zip(spec.numbers, prefix.squares, prefix.logs, strict=True):
            mean = log.between(low, end) / many
            spread = square.between(low, end) / many - mean**2
            made[f"log_mean_{name}_{window}"] = mean
            made[f"spread_{name}_{window}"] = np.sqrt(np.maximum(spread, 0.0))
        for name, novel in zip(spec.novelty, prefix.novel, strict=True):
            fresh = novel[end] - novel[low]
            made[f"new_{name}_{window}"] = np.log1p(fresh)
            made[f"new_share_{name}_{window}"] = fresh / many
        for name, second in zip(spec.novelty, prefix.second, strict=True):
            made[f"repeated_{name}_{window}"] = np.log1p(second[end] - second[low])
        for total in prefix.sought:
            made[f"sought_{window}"] = total.between(low, end) / many

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
