"""Causal aggregates of each entity at a timestamp: the columns that a careful analyst would make.

Counts, sums, means, extremes and distinct values over windows; recency and gap statistics; weekly and
monthly series; shares of week days, hours, price bands and categories; attributes. Everything is one
pass of numpy over the events up to the timestamp. `aggregate` cuts the log itself.
"""

from dataclasses import dataclass, field

import numpy as np

from bench.evaluation.events import DAY, EventLog

WINDOWS = (1, 7, 14, 30, 60, 90, 180, 365)
MISSING = np.float32(np.nan)
MAX_SHARES = 12


@dataclass
class Table:
    """Columns under construction."""

    size: int
    columns: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)

    def add(self, name: str, values: np.ndarray, *, categorical: bool = False) -> None:
        """Append one column."""
        self.columns.append(np.asarray(values, np.float32))
        self.names.append(name)
        if categorical:
            self.categorical.append(name)

    def matrix(self) -> np.ndarray:
        """Return the columns as one matrix (rows x columns)."""
        return (
            np.column_stack(self.columns) if self.columns else np.zeros((self.size, 0), np.float32)
        )


@dataclass(frozen=True)
class Aggregates:
    """A matrix with the names of its columns."""

    values: np.ndarray
    names: list[str]
    categorical: list[str]


@dataclass(frozen=True)
class Past:
    """Events of the population up to T, with the row of each in the population."""

    log: EventLog
    row: np.ndarray
    size: int
    cutoff: int

    def since(self, days: int) -> slice:
        """Return the events of the last *days* days."""
        after = self.cutoff - days * DAY
        return slice(int(np.searchsorted(self.log.time, after, side="right")), None)

    def count(self, where: slice | np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Return a sum of *weights* (or 1) for each row of the population."""
        return np.bincount(
            self.row[where], None if weights is None else weights[where], minlength=self.size
        )


def aggregate(
    log: EventLog, entity: np.ndarray, cutoff: int, vocabulary: EventLog | None = None
) -> Aggregates:
    """Return the aggregates of *entity* (codes) at *cutoff*, from events with `time <= cutoff`.

    Args:
        log: Events; those after the timestamp are cut off.
        entity: Codes of the rows.
        cutoff: The timestamp.
        vocabulary: Events that decide which categories and price bands get a column, so that rows
            of several timestamps can be stacked; by default those up to *cutoff*.
    """
    known = log.select(slice(0, log.position(cutoff)))
    place = np.full(log.num_entities, -1, np.int64)
    place[entity] = np.arange(len(entity))
    row = place[known.entity]
    mine = row >= 0
    past = Past(known.select(mine), row[mine], len(entity), cutoff)
    table = Table(len(entity))
    _windows(past, table)
    _baskets(past, table)
    _series(past, table)
    _shares(past, known if vocabulary is None else vocabulary, table)
    _popularity(past, known, table)
    _calendar(known, table, cutoff)
    for name, codes in log.entity_attributes.items():
        table.add(f"attribute_{name}", codes[entity], categorical=True)
    return Aggregates(table.matrix(), table.names, table.categorical)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, missing where the bottom is zero."""
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0)


def last_of(keys: np.ndarray) -> np.ndarray:
    """Return the position of the last occurrence of each distinct key."""
    _, backwards = np.unique(keys[::-1], return_index=True)
    return len(keys) - 1 - backwards


def _windows(past: Past, table: Table) -> None:
    """Add sums, means, extremes and distinct values over each window."""
    log = past.log
    pairs = {
        "items": last_of(past.row * (log.num_items + 1) + log.item),
        "baskets": last_of(past.row * (int(log.basket.max(initial=0)) + 1) + log.basket),
        "days": last_of(past.row * 1_000_000 + log.time // DAY),
    }
    previous: dict[str, np.ndarray] = {}
    for days in WINDOWS:
        window = past.since(days)
        lines = past.count(window)
        money = past.count(window, log.amount)
        square = past.count(window, log.amount**2)
        now = {"lines": lines, "amount": money}
        highest = np.zeros(past.size)
        np.maximum.at(highest, past.row[window], log.amount[window])
        table.add(f"amount_max_{days}", highest)
        table.add(f"amount_mean_{days}", ratio(money, lines))
        variance = ratio(square, lines) - ratio(money, lines) ** 2
        table.add(f"amount_std_{days}", np.sqrt(np.maximum(variance, 0)))
        for name, last in pairs.items():
            now[name] = past.count(last[log.time[last] > past.cutoff - days * DAY])
        for name, values in log.numeric.items():
            table.add(f"{name}_sum_{days}", past.count(window, values))
            table.add(f"{name}_mean_{days}", ratio(past.count(window, values), lines))
        for name, values in now.items():
            table.add(f"{name}_{days}", values)
            if name in previous and days >= 30:
                table.add(f"{name}_share_of_wider_{days}", ratio(previous[name], values))
        table.add(f"lines_per_basket_{days}", ratio(lines, now["baskets"]))
        table.add(f"amount_per_basket_{days}", ratio(money, now["baskets"]))
        table.add(f"new_to_lines_{days}", ratio(now["items"], lines))
        previous = now


def _baskets(past: Past, table: Table) -> None:
    """Add recency, gaps between visits and the sizes of the last baskets."""
    log, size = past.log, past.size
    key = past.row * (int(log.basket.max(initial=0)) + 1) + log.basket
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    row, when = past.row[first], log.time[first]
    money = np.bincount(inverse, log.amount, len(first))
    lines = np.bincount(inverse, minlength=len(first))
    order = np.lexsort((when, row))
    row, when, money, lines = row[order], when[order], money[order], lines[order]
    count = np.bincount(row, minlength=size)
    end = np.cumsum(count)
    for back in range(1, 6):
        has = count >= back
        at = np.where(has, end - back, 0)
        for name, values in (("amount", money), ("lines", lines)):
            table.add(f"basket_{name}_back_{back}", np.where(has, values[at], np.nan))
        age = (past.cutoff - when[at]) / DAY
        table.add(f"days_since_basket_back_{back}", np.where(has, age, np.nan))
    start = np.minimum(end - count, max(len(when) - 1, 0))
    table.add("days_since_first", np.where(count > 0, (past.cutoff - when[start]) / DAY, np.nan))
    table.add("first_amount", np.where(count > 0, money[start], np.nan))
    highest = np.zeros(size)
    np.maximum.at(highest, row, money)
    table.add("basket_amount_max", highest)
    table.add("basket_amount_median", _middle(row, money, size))
    _gaps(past, table)


def _middle(row: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Return the (lower) median of *values* for each row."""
    order = np.lexsort((values, row))
    count = np.bincount(row, minlength=size)
    at = np.cumsum(count) - count + np.maximum(count - 1, 0) // 2
    picked = values[order][np.minimum(at, max(len(values) - 1, 0))] if len(values) else 0.0
    return np.where(count > 0, picked, np.nan)


def _gaps(past: Past, table: Table) -> None:
    """Add statistics of the days between purchase days, and recency in their light."""
    size, today = past.size, past.cutoff / DAY
    keys = np.unique(past.row * 1_000_000 + past.log.time // DAY)
    row, day = keys // 1_000_000, keys % 1_000_000
    same = row[1:] == row[:-1]
    gap, gap_row = np.diff(day)[same].astype(np.float64), row[1:][same]
    count = np.bincount(gap_row, minlength=size)
    mean = ratio(np.bincount(gap_row, gap, size), count)
    spread = np.sqrt(np.maximum(ratio(np.bincount(gap_row, gap**2, size), count) - mean**2, 0))
    longest, shortest = np.full(size, np.nan), np.full(size, np.nan)
    np.fmax.at(longest, gap_row, gap)
    np.fmin.at(shortest, gap_row, gap)
    median = _middle(gap_row, gap, size)
    last = np.full(size, np.nan)
    last[row] = day
    recency = today - last
    named = {"mean": mean, "std": spread, "max": longest, "min": shortest, "median": median}
    for name, values in named.items():
        table.add(f"gap_{name}", values)
        table.add(f"recency_over_gap_{name}", ratio(recency, values))
    table.add("gap_variation", ratio(spread, mean))
    table.add("days_overdue", recency - mean)
    table.add("recency", recency)
    longer = gap > recency[gap_row]
    table.add("share_of_gaps_longer_than_recency", ratio(np.bincount(gap_row, longer, size), count))
    end = np.cumsum(count)
    for back in range(1, 4):
        at = np.where(count >= back, end - back, 0)
        value = gap[at] if len(gap) else np.zeros(size)
        table.add(f"gap_back_{back}", np.where(count >= back, value, np.nan))
    for horizon in (7, 30):  # returns after a gap no longer than recency + horizon, given recency
        soon = longer & (gap <= recency[gap_row] + horizon)
        returned, waited = np.bincount(gap_row, soon, size), np.bincount(gap_row, longer, size)
        table.add(f"renewal_rate_{horizon}", (returned + 0.5) / (waited + 1.0))


def _series(past: Past, table: Table) -> None:
    """Add the last weeks and months one by one."""
    log = past.log
    for name, days, length in (("week", 7, 13), ("month", 30, 12)):
        back = (past.cutoff - log.time) // (days * DAY)
        recent = back < length
        cell = past.row * length + np.minimum(back, length - 1)
        money = np.bincount(cell[recent], log.amount[recent], past.size * length)
        table_of_days = np.unique((cell * 1_000_000 + log.time // DAY)[recent]) // 1_000_000
        visits = np.bincount(table_of_days, minlength=past.size * length)
        money, visits = money.reshape(past.size, length), visits.reshape(past.size, length)
        for index in range(length):
            table.add(f"{name}_{index}_amount", money[:, index])
            table.add(f"{name}_{index}_days", visits[:, index])
        table.add(f"{name}s_active", (visits > 0).sum(axis=1))
        table.add(f"{name}_amount_median", np.median(money, axis=1))
        table.add(f"{name}_amount_std", money.std(axis=1))
        decay = 0.7 ** np.arange(length)
        table.add(f"{name}_amount_decayed", money @ decay)
        table.add(f"{name}_days_decayed", visits @ decay)


def _shares(past: Past, vocabulary: EventLog, table: Table) -> None:
    """Add shares of week days, hours, price bands and the commonest categories."""
    log = past.log
    lines = past.count(slice(None))
    day = (log.time // DAY + 3) % 7
    for index in range(7):
        table.add(f"share_weekday_{index}", ratio(past.count(day == index), lines))
    hour = (log.time % DAY) // (3 * 3600)
    if len(np.unique(vocabulary.time % DAY)) > 1:
        for index in range(8):
            table.add(f"share_hour_{index}", ratio(past.count(hour == index), lines))
    price = vocabulary.numeric.get("unit_price", vocabulary.amount)
    edges = np.quantile(price, np.linspace(0, 1, 9)[1:-1]) if len(price) else np.zeros(7)
    band = np.searchsorted(edges, log.numeric.get("unit_price", log.amount))
    for index in range(8):
        table.add(f"share_price_{index}", ratio(past.count(band == index), lines))
    events = {f"category_{n}": (v, vocabulary.category[n]) for n, v in log.category.items()}
    for name, values in log.item_attributes.items():
        events[f"item_{name}"] = (values[log.item], values[vocabulary.item])
    for name, (codes, everyone) in events.items():
        popular = np.argsort(-np.bincount(everyone + 1), kind="stable")[:MAX_SHARES]
        for code in popular:
            table.add(f"share_{name}_{code - 1}", ratio(past.count(codes == code - 1), lines))
        last = np.full(past.size, -1)
        last[past.row] = codes
        if len(np.unique(everyone)) <= 256:
            table.add(f"last_{name}", last, categorical=True)
        distinct = np.unique(past.row * (int(everyone.max(initial=0)) + 2) + codes + 1)
        kinds = distinct // (int(everyone.max(initial=0)) + 2)
        table.add(f"distinct_{name}", np.bincount(kinds, minlength=past.size))


def _popularity(past: Past, known: EventLog, table: Table) -> None:
    """Add how popular and how repeated the entity's items are."""
    log = past.log
    overall = np.bincount(known.item, minlength=log.num_items)
    recent = known.item[np.searchsorted(known.time, past.cutoff - 30 * DAY, side="right") :]
    lately = np.bincount(recent, minlength=log.num_items)
    lines = past.count(slice(None))
    table.add("item_popularity", ratio(past.count(slice(None), np.log1p(overall)[log.item]), lines))
    trend = (lately + 1) / (overall + 12)
    table.add("item_trend", ratio(past.count(slice(None), trend[log.item]), lines))
    window = past.since(90)
    table.add("item_trend_90", ratio(past.count(window, trend[log.item]), past.count(window)))
    pair, times = np.unique(past.row * log.num_items + log.item, return_counts=True)
    owner = pair // max(log.num_items, 1)
    repeated = np.bincount(owner, times > 1, past.size)
    table.add("share_of_items_repeated", ratio(repeated, np.bincount(owner, minlength=past.size)))
    most = np.zeros(past.size)
    np.maximum.at(most, owner, times)
    table.add("most_repeats", most)


def _calendar(known: EventLog, table: Table, cutoff: int) -> None:
    """Add the season and how the whole business goes, equal for every row of a timestamp."""
    year = 2 * np.pi * (cutoff / DAY % 365.25) / 365.25
    recent, before = (
        known.between(cutoff - (back + 30) * DAY, cutoff - back * DAY) for back in (0, 30)
    )
    everyone = np.ones(table.size)
    table.add("season_sin", np.sin(year) * everyone)
    table.add("season_cos", np.cos(year) * everyone)
    growth = recent.amount.sum() / max(float(before.amount.sum()), 1.0)
    table.add("growth_amount", growth * everyone)
    active = len(np.unique(recent.entity)) / max(len(np.unique(before.entity)), 1)
    table.add("growth_entities", active * everyone)
