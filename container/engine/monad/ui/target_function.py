"""Target functions: the documented import location `monad.ui.target_function`."""

from monad.targets.attributes import Attributes
from monad.targets.events import DataSourceEvents, Events
from monad.targets.group_by import EventsGroupBy
from monad.targets.sketches import Sketch, sequential_decay, sketch, time_decay
from monad.targets.windows import (
    MODE,
    SPLIT_TIMESTAMP,
    TRAINING_END_TIMESTAMP,
    has_incomplete_training_window,
    next_n_days,
    next_n_hours,
    slice_time_window,
)

__all__ = [
    "MODE",
    "SPLIT_TIMESTAMP",
    "TRAINING_END_TIMESTAMP",
    "Attributes",
    "DataSourceEvents",
    "Events",
    "EventsGroupBy",
    "Sketch",
    "has_incomplete_training_window",
    "next_n_days",
    "next_n_hours",
    "sequential_decay",
    "sketch",
    "slice_time_window",
    "time_decay",
]
