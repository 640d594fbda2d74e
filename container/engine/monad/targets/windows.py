"""Time windows of target functions, old spellings included."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from monad.config.time_range import DAY_SECONDS, seconds_of, to_timestamp
from monad.targets.events import Events

SPLIT_TIMESTAMP = "SPLIT_TIMESTAMP"
MODE = "MODE"
TRAINING_END_TIMESTAMP = "TRAINING_END_TIMESTAMP"


def has_incomplete_training_window(
    ctx: Mapping[str, Any],
    window: timedelta | np.timedelta64 | int | None = None,
    *,
    required_days: int | None = None,
) -> bool:
    """Tell whether less time than *window* is left between the split and the end of labels.

    Accepts a timedelta, or a number of days as older releases did.
    """
    length = required_days if window is None else window
    if length is None:
        raise TypeError("has_incomplete_training_window needs a timedelta or a number of days")
    if isinstance(length, (timedelta, np.timedelta64)):
        seconds = seconds_of(length)
    else:
        seconds = DAY_SECONDS * float(length)
    return bool(ctx[SPLIT_TIMESTAMP] + seconds > ctx[TRAINING_END_TIMESTAMP])


def next_n_days(events: Events, start: float | datetime, n: int | None) -> Events:
    """Return the events of the *n* days after *start*; None keeps everything after it."""
    return next_n_hours(events, start, None if n is None else 24 * n)


def next_n_hours(events: Events, start: float | datetime, n: int | None) -> Events:
    """Return the events of the *n* hours after *start*; None keeps everything after it."""
    first = to_timestamp(start)
    return events.between(first, float("inf") if n is None else first + 3600 * n)


def slice_time_window(events: Events, start: float | datetime, end: float | datetime) -> Events:
    """Return the events of `[start, end)`, each source independently."""
    return events.between(to_timestamp(start), to_timestamp(end), side="left")
