"""Shift a classifier's scores so that on the newest rows they say how often a class really comes.

Rows of many split points teach a classifier; features such as the number of past events grow from
one split point to the next, and its scores drift with them. The shift takes out the drift up to
the newest rows. It changes no order of scores, hence no ranking metric.
"""

import numpy as np
import torch

from monad.config.time_range import DAY_SECONDS
from monad.logs import log_metrics, run_logger
from monad.model.heads import ScoreHead
from monad.training.parts import Scenario
from monad.training.rows import Rows
from monad.training.scenario import ScenarioBatches, infer

MOST_ROWS = 2_000
_FEWEST_ROWS, _NEWEST_DAYS, _CHUNK = 200, 14, 1_024
_LARGEST, _HALVINGS = 5.0, 40


def newest(rows: Rows) -> Rows:
    """Return some of the rows whose split points lie in the last two weeks of them."""
    if not len(rows):
        return rows
    recent = np.flatnonzero(rows.stamps > rows.stamps.max() - _NEWEST_DAYS * DAY_SECONDS)
    return rows.take(recent[np.random.default_rng(0).permutation(len(recent))[:MOST_ROWS]])


def shift_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return what to add to logits (rows, classes) so that mean probabilities are mean targets.

    At most 5 either way, which a class without any or with only positive rows would pass.
    """
    low = np.full(logits.shape[1], -_LARGEST)
    high = -low
    wanted = targets.mean(0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        less = (1 / (1 + np.exp(-(logits + middle)))).mean(0) < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return (low + high) / 2


def calibrate(
    module: Scenario, head: ScoreHead, rows: Rows, device: str, timed: bool = False
) -> None:
    """Set the head's shift by the newest of the labelled *rows*; too few of them change nothing."""
    chosen = newest(rows)
    if head.kind == "multiclass" or len(chosen) < _FEWEST_ROWS:
        return
    batches = ScenarioBatches(module.reader(), module.task, module.item_position, 65_536)
    parts = (
        batches.read(chosen.take(np.arange(at, min(at + _CHUNK, len(chosen)))))
        for at in range(0, len(chosen), _CHUNK)
    )
    found = [output.numpy() for output, _ in infer(module.network, head, parts, device, timed)]
    logits, targets = np.concatenate(found).astype(np.float64), np.asarray(chosen.targets)
    shift = shift_of(logits, targets)
    before = float((1 / (1 + np.exp(-logits))).mean())
    head.shift.copy_(torch.from_numpy(shift.astype(np.float32)))
    log_metrics(
        run_logger,
        f"Calibrated on {len(chosen)} rows of the last {_NEWEST_DAYS} days of split points: mean"
        f" target {targets.mean():.4f}, mean probability before {before:.4f}",
        {"calibration_rows": len(chosen), "calibration_shift": float(np.abs(shift).max())},
    )
