"""Fit a recommendation: the features of pairs once, then a small ranker on them alone.

The network stays as it was pretrained and is not read, so that a budget goes into many passes of
the ranker instead of into the same histories again.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monad.config.params import TrainingParams
from monad.errors import TargetFunctionError, problem
from monad.evaluation.metrics import average_precisions
from monad.logs import run_logger
from monad.model.items import ItemHead
from monad.training.budget import BudgetModule
from monad.training.loop import run_trainer, take_best
from monad.training.parts import Scenario
from monad.training.resume import Attempt
from monad.training.rows import Rows, whereabouts
from monad.training.scenario import (
    ScenarioBatches,
    ScenarioModule,
    infer,
    ranked_and_wanted,
    row_loaders,
)
from monad.training.settings import Settings, beside_training
from monad.training.streams import Plan

_BEST = 12  # items of a row that validation looks at
_ERRORS = 1.64  # standard errors by which training must be worse than its start to be given up
_ROWS = 64  # of a batch: each brings some hundred and fifty pairs
_PASSES, _FEWEST_STEPS = 3, 300
MOST_POINTS, _STEP_WEEKS = 14, 2
_SECONDS_A_POINT = 6.0  # of budget for one split point's pair features
_PAIRS_SHARE = 0.45  # of a budget, for pair features
_CHECKED_ROWS = 500
_MOST_ROWS = 40_000  # about 20 kB of pair features each


@dataclasses.dataclass
class Budget:
    """When a training began and how long it may take."""

    begun: float
    seconds: float | None

    def deadline(self, share: float = 1.0) -> float | None:
        """Return the moment at which a share of the budget has passed."""
        return None if self.seconds is None else self.begun + share * self.seconds


def fewer_points(points: np.ndarray, budget: float | None) -> np.ndarray:
    """Return the split points of a recommendation: each costs seconds, so few and late ones."""
    most = MOST_POINTS
    if budget is not None:
        most = int(np.clip(budget / _SECONDS_A_POINT, 2, MOST_POINTS))
    return points[: _STEP_WEEKS * most : _STEP_WEEKS]


def _check_items(batches: ScenarioBatches, rows: Rows, target_fn: Any) -> None:
    """Refuse targets of which no row has a known item with a weight above zero."""
    field = batches.item_field
    some = [target.combined() for target in rows.targets[:_CHECKED_ROWS]]
    known = any((batches.item_codes(items)[amounts > 0] > 0).any() for items, amounts in some)
    if known:
        return
    seen = next((str(item) for items, _ in some for item in items), "none")
    raise TargetFunctionError(
        problem(
            "The target function returned a sketch of items that cannot be recommended",
            f"of {len(some)} rows none has a value of {field.owner}.{field.column} with a weight"
            f" above 0; an item is {seen[:60]}",
            "Build it of a categorical column of the events; column_type_overrides makes one",
            whereabouts(target_fn),
        )
    )


def fit_ranking(
    module: Scenario,
    params: TrainingParams,
    chosen: Settings,
    rows: tuple[Rows, Rows],
    monitor: tuple[str, str],
    scratch: Path,
    begun: float,
    attempt: Attempt | None,
) -> tuple[BudgetModule, dict[str, float]]:
    """Train the head of a recommendation on (training, validation) *rows*."""
    budget = Budget(begun, params.time_budget_seconds)
    module.item_position = module.checkpoint.representation.item_field_of(rows[0].targets)
    head = module.make_head()
    assert isinstance(head, ItemHead)
    module.head = head
    batches = ScenarioBatches(module.reader(), module.task, module.item_position, chosen.tokens)
    _check_items(batches, rows[0], module.target_fn)
    device = beside_training(params)
    train, validation = _prepared(head, batches, rows, budget)
    adapts = budget.seconds is not None and "epochs" not in params.given
    if budget.seconds is not None:
        chosen.rows = params.batch_size or min(chosen.rows, _ROWS)
    per_epoch = max(len(train) // chosen.rows, 1)
    plan = Plan(
        epochs=chosen.epochs,
        steps_per_epoch=per_epoch,
        learning_rate=chosen.learning_rate,
        started=begun if attempt is not None and attempt.used else time.monotonic(),
        label="Training",
        deadline=budget.deadline(),
        timed_epochs=adapts,
        most_steps=max(_PASSES * per_epoch, _FEWEST_STEPS) if adapts else None,
        seed=params.seed,
    )
    trained = ScenarioModule(module.network, head, module.task, plan, None)
    trained.extra = list(params.metrics)
    if adapts and params.metric_to_monitor is None:
        monitor = ("val_MAP@12_0", "max")
    start = _validated(module, head, batches, validation, device, budget.seconds is not None)
    first = {name: value.clone() for name, value in head.state_dict().items()}
    best = run_trainer(
        trained,
        *row_loaders(batches, train, validation, chosen.rows, trained),
        params,
        scratch / "lightning_checkpoints",
        monitor,
        attempt,
    )
    asked = params.metric_to_monitor is not None or params.early_stopping is not None
    if asked or not adapts:  # else the last: few validation rows make their best moment luck
        take_best(trained, best)
    last = _validated(module, head, batches, validation, device, budget.seconds is not None)
    if adapts and clearly_less(last, start):
        run_logger.warning(
            "Training ranks the validation rows worse (MAP@12 %.4f) than the start, which is by how"
            " often items were taken (%.4f): the start is kept",
            last.mean(),
            start.mean(),
        )
        head.load_state_dict(first)
    module.network.cpu()
    head.cpu()
    return trained, {"train_rows": float(len(train)), "validation_rows": float(len(validation))}


def clearly_less(found: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether values of the same rows are lower on average, by more than chance explains."""
    if len(found) < 2:
        return False
    difference = found - other
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() < -_ERRORS * error)


def _validated(
    module: Scenario,
    head: ItemHead,
    batches: ScenarioBatches,
    rows: Rows,
    device: str,
    timed: bool,
) -> np.ndarray:
    """Return the average precision at 12 of each validation row."""
    if not len(rows):
        return np.zeros(0)
    found = infer(module.network, head, batches.epoch(rows, None, 512), device, timed)
    ranked, wanted = ranked_and_wanted(
        (torch.topk(output, min(_BEST, output.shape[1])).indices.numpy(), batch)
        for output, batch in found
    )
    return average_precisions(ranked, wanted, _BEST)


def _prepared(
    head: ItemHead, batches: ScenarioBatches, rows: tuple[Rows, Rows], budget: Budget
) -> tuple[Rows, Rows]:
    """Make the pairs of rows, the latest split points first; returns the rows made."""
    pairs = batches.pairs
    assert pairs is not None
    rows = (_some(rows[0]), rows[1])
    entities, stamps = (
        np.concatenate([getattr(r, n) for r in rows]) for n in ("entities", "stamps")
    )
    sample, done = pairs.prepare(entities, stamps, budget.deadline(_PAIRS_SHARE))
    head.start_from(sample)
    train = rows[0].take(np.flatnonzero(done[: len(rows[0])]))
    validation = rows[1].take(np.flatnonzero(done[len(rows[0]) :]))
    run_logger.info(
        "Pair features of %d rows (%d split points) made %.1f seconds after the start",
        len(train),
        len(np.unique(train.stamps)),
        time.monotonic() - budget.begun,
    )
    return train, validation


def _some(rows: Rows) -> Rows:
    """Return at most as many rows as pair features fit into memory for."""
    if len(rows) <= _MOST_ROWS:
        return rows
    chosen = np.random.default_rng(0).permutation(len(rows))[:_MOST_ROWS]
    return rows.take(np.sort(chosen))
