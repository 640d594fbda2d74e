"""Fit one scenario: choose and label rows, train, keep the best weights."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monad.config.params import TrainingParams
from monad.config.time_range import DAY_SECONDS, DataMode
from monad.data.split_query import held_out_entities
from monad.errors import TargetFunctionError, problem
from monad.logs import log_metrics, run_logger
from monad.training.loop import Plan, loader, run_trainer
from monad.training.resume import Attempt
from monad.training.rows import (
    Labeler,
    Rows,
    joined,
    latest_split,
    sample_rows,
    split_points,
    whereabouts,
)
from monad.training.scenario import ScenarioBatches, ScenarioModule
from monad.training.settings import settings, training_end, validation_range

if TYPE_CHECKING:
    from monad.training.module import MonadModuleImpl

_DEFAULT_RATE = 1e-3
_MOST_ROWS = 100_000
_MOST_VALIDATION_ROWS = 4_000
_LABEL_SHARE = 0.2
# Under a budget on a CPU most rows are read with their last few events only: sketch and aggregates
# then see several times as many rows, which matters more to these tasks than long sequences do.
_SHORT_SHARE = 0.75


def fit_scenario(
    module: "MonadModuleImpl",
    params: TrainingParams,
    scratch: Path,
    attempt: Attempt | None = None,
) -> dict[str, float]:
    """Train *module* in place; returns the metrics of the best weights."""
    store = module.store  # read before the clock starts: a budget is for training
    begun = time.monotonic() - (attempt.used if attempt else 0.0)
    torch.manual_seed(params.seed)
    chosen = settings(module.checkpoint.config, params, _DEFAULT_RATE, run_logger)
    train, validation = _rows(module, params)
    if params.time_budget_seconds is not None:  # a short budget must not go into validation
        most = int(max(200, 40 * params.time_budget_seconds))
        validation = validation.take(np.arange(min(len(validation), most)))
    label_seconds = time.monotonic() - begun - (attempt.used if attempt else 0.0)
    run_logger.info(
        "Labelled %d training rows (%d split points) and %d validation rows in %.1f seconds",
        len(train),
        len(np.unique(train.stamps)),
        len(validation),
        label_seconds,
    )
    if module.task.kind == "recommendation":
        origin = next((t.origin for t in train.targets if t.origin), None)
        module.item_position = module.checkpoint.representation.item_field(origin)
    head = module.make_head()
    if isinstance(train.targets, np.ndarray):
        head.start_from(train.targets)
    module.head = head
    batches = ScenarioBatches(module.reader(), module.task, module.item_position, chosen.tokens)
    budget = params.time_budget_seconds
    if budget is not None and not chosen.gpu and module.task.kind != "recommendation":
        batches.short_share = _SHORT_SHARE
    plan = Plan(
        epochs=chosen.epochs,
        steps_per_epoch=max(len(train) // chosen.rows, 1),
        learning_rate=chosen.learning_rate,
        started=begun,
        label="Training",
        deadline=None if budget is None else begun + budget,
        seed=params.seed,
    )
    lightning_module = ScenarioModule(module.network, head, module.task, plan, params.loss)
    lightning_module.extra = list(params.metrics)
    events = batches.reader.lengths(validation.entities, validation.stamps).sum()
    lightning_module.validation_steps = 0.5 * float(events) / chosen.tokens
    monitor = _monitor(module, params)
    best = run_trainer(
        lightning_module,
        loader(lambda epoch, skip: batches.epoch(train, (params.seed, epoch), chosen.rows, skip)),
        loader(lambda *_: batches.epoch(validation, None, 512)) if len(validation) else None,
        params,
        scratch / "lightning_checkpoints",
        monitor,
        attempt,
    )
    if best is not None:
        state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]
        lightning_module.load_state_dict(state)
    module.network.cpu()
    head.cpu()
    found = lightning_module.trainer.callback_metrics
    metrics = {k: float(v) for k, v in found.items() if k.startswith("val_")}
    metrics |= {
        "training_seconds": time.monotonic() - begun,
        "steps": float(lightning_module.global_step),
        "train_rows": float(len(train)),
        "validation_rows": float(len(validation)),
        "num_entities": float(store.num_entities),
    }
    log_metrics(
        run_logger,
        f"Scenario trained in {metrics['training_seconds']:.1f} seconds,"
        f" {lightning_module.global_step} steps",
        metrics,
    )
    return metrics


def _monitor(module: "MonadModuleImpl", params: TrainingParams) -> tuple[str, str]:
    name = params.metric_to_monitor or module.task.monitor
    mode: Any = params.metric_monitoring_mode
    if mode is not None:
        return name, mode.value
    if params.metric_to_monitor is None:
        return name, module.task.mode
    smaller = any(part in name for part in ("loss", "mae", "rmse"))
    return name, "min" if smaller else "max"


def _rows(module: "MonadModuleImpl", params: TrainingParams) -> tuple[Rows, Rows]:
    """Return training and validation rows under the configured split."""
    store, config = module.store, module.checkpoint.config
    random = np.random.default_rng(params.seed)
    end = training_end(config)
    end = store.last_time if end is None else end
    labeler = Labeler(store, module.target_fn, module.task, end, DataMode.TRAIN)
    everyone = np.arange(store.num_entities)
    if params.entity_ids is not None:
        wanted = set(params.entity_ids.resolve())
        everyone = np.array([i for i in everyone if str(store.entity_ids[i]) in wanted])
    last = latest_split(labeler, everyone, random)
    if last is None:
        raise TargetFunctionError(
            problem(
                "The target function returned None for every row",
                f"split points up to 365 days before the end of the training range ({end}) tried",
                "Check its window against the training range, and its filters",
                whereabouts(module.target_fn),
            )
        )
    points = split_points(store.first_time, last)
    budget = params.time_budget_seconds
    seconds = None if budget is None else _LABEL_SHARE * budget
    per_entity = config.data_params.maximum_splitpoints_per_entity
    timed = validation_range(config, store)
    if timed is not None:
        train = sample_rows(labeler, everyone, points, _MOST_ROWS, random, seconds, per_entity)
        late = Labeler(store, module.target_fn, module.task, timed[1], DataMode.VALIDATION)
        stamp = np.array([timed[0]])
        return train, sample_rows(late, everyone, stamp, _MOST_VALIDATION_ROWS, random, seconds)
    held = held_out_entities(config, store)[everyone]
    train = sample_rows(labeler, everyone[~held], points, _MOST_ROWS, random, seconds, per_entity)
    validation = _validation_rows(labeler, everyone[held], points, random, seconds)
    return train, validation if validation is not None else train.take(np.arange(0))


def _validation_rows(
    labeler: Labeler,
    entities: np.ndarray,
    points: np.ndarray,
    random: np.random.Generator,
    seconds: float | None,
) -> Rows | None:
    """Label held-out entities at the latest split points; None when nobody has a target."""
    parts: list[Rows] = []
    spaced = points[:: max(28 * DAY_SECONDS // 7 // DAY_SECONDS, 1)][:4]
    for point in spaced:
        try:
            most = _MOST_VALIDATION_ROWS // len(spaced)
            parts.append(sample_rows(labeler, entities, np.array([point]), most, random, seconds))
        except (TargetFunctionError, ValueError):
            continue
    return joined(parts) if parts else None
