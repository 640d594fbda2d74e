"""Target functions of the tasks, written with the documented `monad` API as a user would.

They are closures, so that they travel by value with a checkpoint.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np

from bench.evaluation.definitions import Task

SOURCE = "events"


def task_and_target(task: Task, label_share: float = 1.0) -> tuple[Any, Callable[..., Any]]:
    """Return the `monad` task object and the target function of *task*.

    With a *label_share* below 1 the function answers for that share of the rows only.
    """
    made, target_fn = _task_and_target(task)
    return made, target_fn if label_share >= 1 else with_few_labels(target_fn, label_share)


def _task_and_target(task: Task) -> tuple[Any, Callable[..., Any]]:
    from monad.ui.module import BinaryClassificationTask, RecommendationTask, RegressionTask

    if task.leave_one_out:
        return RecommendationTask(), next_item_target()
    window = timedelta(days=task.horizon_days)
    active = None if task.active_days is None else timedelta(days=-task.active_days)
    if task.kind == "binary":
        return BinaryClassificationTask(), churn_target(window, active)
    if task.kind == "regression":
        return RegressionTask(), spend_target(window, active)
    return RecommendationTask(), items_target(window, active)


def with_few_labels(target_fn: Callable[..., Any], share: float) -> Callable[..., Any]:
    """Return *target_fn* that answers for *share* of the rows, the same ones in every run."""
    import zlib

    def labelled(history: Any, future: Any, attributes: Any, ctx: dict) -> Any:
        times = history[SOURCE].timestamps
        seen = (len(times), int(times[0]) if len(times) else 0, int(times[-1]) if len(times) else 0)
        drawn = zlib.crc32(repr((int(ctx["SPLIT_TIMESTAMP"]), seen)).encode()) % 10_000
        return target_fn(history, future, attributes, ctx) if drawn < share * 10_000 else None

    return labelled


def churn_target(window: timedelta, active: timedelta | None) -> Callable[..., Any]:
    """Return: 1 when nothing is bought in the window."""
    from monad.ui.target_function import SPLIT_TIMESTAMP, has_incomplete_training_window

    def target_fn(history: Any, future: Any, attributes: Any, ctx: dict) -> np.ndarray | None:
        split = ctx[SPLIT_TIMESTAMP]
        if has_incomplete_training_window(ctx, window):
            return None
        if active is not None and history[SOURCE].interval_from(split, active).count() == 0:
            return None
        bought = future[SOURCE].interval_from(split, window).count() > 0
        return np.array([0.0 if bought else 1.0], dtype=np.float32)

    return target_fn


def spend_target(window: timedelta, active: timedelta | None) -> Callable[..., Any]:
    """Return: the sum of amounts in the window."""
    from monad.ui.target_function import SPLIT_TIMESTAMP, has_incomplete_training_window

    def target_fn(history: Any, future: Any, attributes: Any, ctx: dict) -> np.ndarray | None:
        split = ctx[SPLIT_TIMESTAMP]
        if has_incomplete_training_window(ctx, window):
            return None
        if active is not None and history[SOURCE].interval_from(split, active).count() == 0:
            return None
        amount = future[SOURCE].interval_from(split, window).sum("amount")
        return np.array([amount], dtype=np.float32)

    return target_fn


def items_target(window: timedelta, active: timedelta | None) -> Callable[..., Any]:
    """Return: the distinct items of the window."""
    from monad.ui.target_function import SPLIT_TIMESTAMP, has_incomplete_training_window, sketch

    def target_fn(history: Any, future: Any, attributes: Any, ctx: dict) -> Any:
        split = ctx[SPLIT_TIMESTAMP]
        if has_incomplete_training_window(ctx, window):
            return None
        if active is not None and history[SOURCE].interval_from(split, active).count() == 0:
            return None
        items = np.unique(future[SOURCE].interval_from(split, window)["item_id"])
        return sketch(items, np.ones(len(items)))

    return target_fn


def next_item_target() -> Callable[..., Any]:
    """Return: the next item, whenever it comes."""
    from monad.ui.target_function import sketch

    def target_fn(history: Any, future: Any, attributes: Any, ctx: dict) -> Any:
        items = future[SOURCE]["item_id"][:1]
        return sketch(items, np.ones(len(items))) if len(items) else None

    return target_fn
