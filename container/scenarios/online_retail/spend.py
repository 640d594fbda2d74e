"""Spend: quantity times price over the next 30 days, among customers active in the last 90 days."""

from datetime import timedelta

import numpy as np

from monad.ui.module import RegressionTask
from monad.ui.target_function import (
    SPLIT_TIMESTAMP,
    Attributes,
    Events,
    has_incomplete_training_window,
)

WINDOW = timedelta(days=30)
ACTIVE = timedelta(days=-90)

TASK = RegressionTask()
TRAINING = {"time_budget_seconds": 45}


def target_fn(
    history: Events, future: Events, attributes: Attributes, ctx: dict
) -> np.ndarray | None:
    """Return what the customer spends in the window."""
    if has_incomplete_training_window(ctx, WINDOW):
        return None
    split = ctx[SPLIT_TIMESTAMP]
    if history["transactions"].interval_from(split, ACTIVE).count() == 0:
        return None
    bought = future["transactions"].interval_from(split, WINDOW)
    amount = bought.sum(lambda columns: columns["QUANTITY"] * columns["UNITPRICE"])
    return np.array([amount], dtype=np.float32)
