"""Looks for columns and tables that tell of the future, where the data itself shows it.

Found on a sample of the training range: a number that is the time to the entity's next event, and a
column that repeats a column of the next event. Both are kept for target functions and not
modelled. Two more are said in the log, because only the user knows: an attribute table that was
changed after the training range, and entities whose events are nearly all at one time.
"""

import logging
from typing import Any

import duckdb
import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.landing import Landed, quoted
from monad.data.profile import ColumnPlan
from monad.data.store import NUMBER

logger = logging.getLogger("monad.fit")

_ROWS = 40_000
_LEAST_PAIRS = 50
_SAME = 0.98
_WEAK_ORDER = 0.5
_SEVERAL, _LEAST_ENTITIES = 5, 10


def leave_out_leaks(
    connection: duckdb.DuckDBPyConnection, item: Landed, plans: list[ColumnPlan], end: int | None
) -> None:
    """Mark columns of an event source that repeat the future, and warn of a weak order."""
    asked = [plan for plan in plans if plan.modelled]
    if not asked:
        return
    sample = _sample(connection, item, asked, end)
    entities, times = sample.pop("__entity"), sample.pop("__time")
    follows = entities[1:] == entities[:-1]
    if follows.sum() < _LEAST_PAIRS:
        return
    gaps = (times[1:] - times[:-1])[follows].astype(np.float64)
    _warn_of_weak_order(item, entities, times)
    for plan in asked:
        reason = _reason(plan, sample, follows, gaps, times)
        if reason:
            plan.modelled, plan.reason = False, reason
            logger.warning(
                "LEAK: column %s.%s %s; it is not a model input. Check how it was made",
                item.source.name,
                plan.name,
                reason,
            )


def _sample(
    connection: duckdb.DuckDBPyConnection, item: Landed, plans: list[ColumnPlan], end: int | None
) -> dict[str, np.ndarray]:
    """Return the first rows of the training range, whole entities in time order."""
    names = ", ".join(quoted(plan.name) for plan in plans)
    where = f" WHERE __time <= {end}" if end is not None else ""
    rows = connection.execute(
        f"SELECT __entity, __time, {names} FROM {item.table}{where}"
        f" ORDER BY hash(__entity), __entity, __time, rowid LIMIT {_ROWS}"
    ).fetchnumpy()
    return {name: _plain(values) for name, values in rows.items()}


def _warn_of_weak_order(item: Landed, entities: np.ndarray, times: np.ndarray) -> None:
    """Warn when most entities with several events have them at one or two times only."""
    _, codes, counts = np.unique(entities.astype(str), return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([codes.reshape(-1), times.astype(np.int64)]), axis=1)
    distinct = np.bincount(pairs[0], minlength=len(counts))
    several = counts >= _SEVERAL
    if several.sum() >= _LEAST_ENTITIES and (distinct[several] <= 2).mean() > _WEAK_ORDER:
        logger.warning(
            "Data source %s: %.0f %% of the main entities with %d or more events have them all at one"
            " or two times; their order is that of the rows, so do not read much into sequences",
            item.source.name,
            100 * float((distinct[several] <= 2).mean()),
            _SEVERAL,
        )


def _plain(values: Any) -> np.ndarray:
    """Return an array without a mask: NaN or None where a value is missing."""
    mask = getattr(values, "mask", None)
    plain = np.asarray(values)
    if mask is None:
        return plain
    made = plain.astype(np.float64) if plain.dtype.kind in "if" else plain.astype(object)
    made[np.broadcast_to(mask, made.shape)] = np.nan if made.dtype.kind == "f" else None
    return made


def _reason(
    plan: ColumnPlan,
    sample: dict[str, np.ndarray],
    follows: np.ndarray,
    gaps: np.ndarray,
    sample_times: np.ndarray,
) -> str:
    mine = sample[plan.name]
    if plan.kind == NUMBER and mine.dtype.kind in "if":
        own = mine[:-1][follows].astype(np.float64)
        known = np.isfinite(own)
        now = sample_times[:-1][follows].astype(np.float64)
        if known.sum() >= _LEAST_PAIRS and _tells_next(own[known], gaps[known], now[known]):
            return "is the time to the entity's next event"
    for name, theirs in sample.items():
        if (theirs.dtype.kind in "if") != (mine.dtype.kind in "if"):
            continue
        here, ahead = mine[:-1][follows], theirs[1:][follows]
        filled = _filled(here) & _filled(ahead)
        changes = (theirs[1:] != theirs[:-1])[follows][filled]
        if filled.sum() < _LEAST_PAIRS or changes.mean() < 0.2:
            continue  # a column that rarely changes repeats its next value anyway
        if (here[filled] == ahead[filled])[changes].mean() >= _SAME:
            return f"repeats `{name}` of the entity's next event"
    return ""


def _filled(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "if":
        return np.isfinite(values.astype(np.float64))
    return np.array([value is not None for value in values], dtype=bool)


def _tells_next(values: np.ndarray, gaps: np.ndarray, now: np.ndarray) -> bool:
    """Tell whether *values* are gaps of either sign, or the next event's time itself."""
    if _is_gap(values, gaps) or _is_gap(-values, gaps):
        return True
    return any(_is_gap(values / unit - now, gaps) for unit in (1.0, 1e3, 1e6, 1e9))


def _is_gap(values: np.ndarray, gaps: np.ndarray) -> bool:
    """Tell whether *values* are the gaps in seconds, minutes, hours, days or weeks, rounded or not.

    Short gaps are left out: small numbers are close to them by chance.
    """
    for unit in (1, 60, 3600, DAY_SECONDS, 7 * DAY_SECONDS):
        long = gaps / unit > 2.0
        if long.sum() < _LEAST_PAIRS or np.ptp(gaps[long]) == 0:
            continue
        if float((np.abs(values[long] - gaps[long] / unit) <= 1.0).mean()) >= _SAME:
            return True
    return False


def warn_of_snapshot(item: Landed, end: int | None) -> None:
    """Warn when a date of an attribute source lies after the training range."""
    for name, latest in item.latest.items():
        if end is not None and latest is not None and latest > end:
            logger.warning(
                "LEAK? Attribute source %s was changed after the training range: column %s reaches"
                " %.0f days past it. Give it a date_column, so that only what was known by then is"
                " read, or a snapshot of that time",
                item.source.name,
                name,
                (latest - end) / DAY_SECONDS,
            )
