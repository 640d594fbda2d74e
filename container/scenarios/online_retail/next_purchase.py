"""Next purchase: the stock codes bought in the next 30 days, best first."""

from datetime import timedelta

import numpy as np

from monad.ui.module import RecommendationTask
from monad.ui.target_function import (
    SPLIT_TIMESTAMP,
    Attributes,
    Events,
    Sketch,
    has_incomplete_training_window,
    sketch,
)

WINDOW = timedelta(days=30)
ACTIVE = timedelta(days=-90)

TASK = RecommendationTask()
TRAINING = {"time_budget_seconds": 45}


def target_fn(history: Events, future: Events, attributes: Attributes, ctx: dict) -> Sketch | None:
    """Return the distinct stock codes that the customer buys in the window."""
    if has_incomplete_training_window(ctx, WINDOW):
        return None
    split = ctx[SPLIT_TIMESTAMP]
    if history["transactions"].interval_from(split, ACTIVE).count() == 0:
        return None
    items = np.unique(future["transactions"].interval_from(split, WINDOW)["STOCKCODE"])
    return sketch(items, np.ones(len(items)))
