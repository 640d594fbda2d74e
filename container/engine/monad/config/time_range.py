"""`TimeRange` and `DataMode`, which name and bound the splits."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np

from monad.errors import ConfigError, problem

DAY_SECONDS = 86_400


class DataMode(StrEnum):
    """The split a row belongs to."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    PREDICT = "predict"


@dataclass(frozen=True)
class TimeRange:
    """An inclusive range of dates; either end may be open."""

    start_date: datetime | date | str | None = None
    end_date: datetime | date | str | None = None


def to_timestamp(value: datetime | date | np.datetime64 | str | float, path: str = "date") -> int:
    """Return *value* as UTC seconds; dates are midnight, naive datetimes are UTC."""
    if isinstance(value, (int, float, np.integer, np.floating)):
        return int(value)
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(np.floor(value.astype("datetime64[us]").astype(np.int64) / 1_000_000))
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigError(
                problem(f"{path} is not a date", f"got `{value}`", "Write it like 2020-09-15")
            ) from error
    if not isinstance(value, date):
        try:  # numpy's datetimes and those of other libraries
            value = datetime.fromisoformat(str(value))
        except ValueError as error:
            raise ConfigError(
                problem(f"{path} is not a date", f"got {value!r}", "Write it like 2020-09-15")
            ) from error
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return int(value.timestamp())


def shown(stamp: float) -> str:
    """Return UTC seconds as people read them: 2020-09-15 or 2020-09-15 12:30:00."""
    at = datetime.fromtimestamp(stamp, UTC)
    return at.strftime("%Y-%m-%d" if stamp % DAY_SECONDS == 0 else "%Y-%m-%d %H:%M:%S")


def seconds_of(interval: timedelta | np.timedelta64) -> float:
    """Return the length of a time interval in seconds; a bare number has no unit."""
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    if isinstance(interval, np.timedelta64):
        return float(interval / np.timedelta64(1, "s"))
    raise TypeError(
        f"An interval is a timedelta, not {interval!r}; write timedelta(days=...) for days"
    )


def end_of(value: Any, path: str = "date") -> int:
    """Return the last second of a date, or the exact second of a datetime with a time."""
    stamp = to_timestamp(value, path)
    return stamp + DAY_SECONDS - 1 if stamp % DAY_SECONDS == 0 else stamp


def before(value: Any, path: str = "date") -> int:
    """Return the last second before a date: the split point of a range that starts there."""
    return to_timestamp(value, path) - 1
