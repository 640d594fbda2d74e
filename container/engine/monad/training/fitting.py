"""Fit one scenario: choose and label rows, train, keep the best weights."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monad.config.params import TrainingParams
from monad.config.support import warn_no_effect
from monad.config.time_range import DataMode, shown
from monad.data.split_query import held_out_entities
from monad.errors import NoTargetError, problem
from monad.logs import log_metrics, run_logger
from monad.model.head import Head, Known
from monad.model.heads import ScoreHead
from monad.training.budget import BudgetModule
from monad.training.calibration import MOST_ROWS, calibrate
from monad.training.loop import run_trainer, steps_of, take_best
from monad.training.next_item import fit_next_item
from monad.training.parts import Scenario
from monad.training.question import OTHER, Question, question
from monad.training.ranking import MOST_POINTS, fewer_points, fit_ranking
from monad.training.resume import Attempt
from monad.training.rows import (
    Labeler,
    Rows,
    chosen_entities,
    joined,
    latest_split,
    sample_rows,
    split_points,
    whereabouts,
)
from monad.training.scenario import ScenarioBatches, ScenarioModule, row_loaders
from monad.training.settings import Settings, learned_until, settings, validation_range
from monad.training.streams import Plan

_DEFAULT_RATE = 1e-3
_TUNING_RATE = 5e-4  # for heads that start from what pretraining foresees
_ITEM_RATE = 2e-3
# Below, item embeddings that learn from a scenario's labels remember its entities.
_FEW_ENTITIES = 50_000
_MOST_ROWS = 100_000
_MOST_VALIDATION_ROWS = 4_000
_MOST_START_ROWS = 50_000  # that a head is started from
_LABEL_SHARE = 0.2
_READ_SHARE = 0.4  # of a budget, labels included: training rows are read until then
# Under a budget on a CPU most rows are read with their last few events only: sketch and aggregates
# then see several times as many rows, which matters more to these tasks than long sequences do.
_SHORT_SHARE = 0.75
# Rows of one entity at neighbouring split points are much alike: after a few passes a network
# learns their noise (docs/experiments.md). With few rows more passes are needed to arrive at all.
_PASSES, _FEWEST_STEPS = 3, 300
_FEWEST_OF_EACH = 0.25  # labelled rows of a main entity, below which what follows is learned from
_MOST_OF_THESE = 1_000
_INSTEAD = "learning from what follows each event instead"
_WORSE = 0.02  # share by which the last validation loss may exceed the best


def fit_scenario(
    module: Scenario,
    params: TrainingParams,
    scratch: Path,
    attempt: Attempt | None = None,
) -> dict[str, float]:
    """Train *module* in place; returns the metrics of the best weights."""
    store = module.store  # read before the clock starts: a budget is for training
    begun = time.monotonic() - (attempt.used if attempt else 0.0)
    torch.manual_seed(params.seed)
    asked = _question(module, params)
    if asked.by_event:
        return _fit_sequences(module, params, asked, scratch, begun, attempt)
    chosen = settings(module.checkpoint.config, params, _usual_rate(module), run_logger)
    rows = _labelled(module, params, asked, begun + (attempt.used if attempt else 0.0))
    if rows is None:
        return _fit_sequences(module, params, asked, scratch, begun, attempt)
    module.next_item = False
    fit = fit_ranking if module.task.kind == "recommendation" else _fit_rows
    monitor = _monitor(module, params)
    found, extra = fit(module, params, chosen, rows, monitor, scratch, begun, attempt)
    return _finished(found, store.num_entities, begun, extra)


def _usual_rate(module: Scenario) -> float:
    if module.pretrained and module.task.kind in ("binary", "multilabel"):
        return _TUNING_RATE
    return _ITEM_RATE if module.task.kind == "recommendation" else _DEFAULT_RATE


def _labelled(
    module: Scenario, params: TrainingParams, asked: Question, begun: float
) -> tuple[Rows, Rows] | None:
    """Return training and validation rows, and say how long labels took.

    None where they are too few and what follows each event says more.
    """
    try:
        train, validation = _rows(module, params)
    except NoTargetError:
        if asked.kind == OTHER:
            raise
        run_logger.info("No rows at split points: %s", _INSTEAD)
        return None
    if params.time_budget_seconds is not None:  # a short budget must not go into validation
        most = int(max(200, 40 * params.time_budget_seconds))
        validation = validation.take(np.arange(min(len(validation), most)))
    run_logger.info(
        "Labelled %d training rows (%d split points) and %d validation rows in %.1f seconds",
        len(train),
        len(np.unique(train.stamps)),
        len(validation),
        time.monotonic() - begun,
    )
    if asked.kind != OTHER and len(train) < _fewest_rows(module, params):
        run_logger.info("These rows are few: %s", _INSTEAD)
        return None
    return train, validation


def _fit_rows(
    module: Scenario,
    params: TrainingParams,
    chosen: Settings,
    rows: tuple[Rows, Rows],
    monitor: tuple[str, str],
    scratch: Path,
    begun: float,
    attempt: Attempt | None,
) -> tuple[BudgetModule, dict[str, float]]:
    """Train a task whose answer is a vector; the other kind is `fit_ranking`."""
    train, validation = rows
    head = module.make_head()
    module.head = head
    batches, train = _read(module, params, chosen, train, begun)
    _start(module, head, batches, train)
    plan = _plan(module, params, chosen, head, max(len(train) // chosen.rows, 1), begun)
    adapts = plan.timed_epochs
    trained = ScenarioModule(module.network, head, module.task, plan, params.loss)
    trained.extra = list(params.metrics)
    events = batches.reader.lengths(validation.entities, validation.stamps).sum()
    trained.validation_steps = 0.5 * float(events) / chosen.tokens
    scores = head if isinstance(head, ScoreHead) and params.loss is None else None
    labelled = joined([train, validation]) if scores is not None and len(validation) else train
    if scores is not None and len(validation):
        trained.closing_validations = min(MOST_ROWS, len(labelled)) / len(validation)
    few = module.store.num_entities < _FEW_ENTITIES
    module.network.frozen = adapts and few and module.pretrained
    if module.network.frozen:
        run_logger.info("Few main entities: events and trunk stay as they were pretrained")
    if adapts and params.metric_to_monitor is None:
        monitor = ("val_loss", "min")
    best = run_trainer(
        trained,
        *row_loaders(batches, train, validation, chosen.rows, trained),
        params,
        scratch / "lightning_checkpoints",
        monitor,
        attempt,
    )
    if not (adapts and _kept_up(trained, monitor)):
        take_best(trained, best)
    module.network.frozen = False
    if scores is not None:
        device, budget = str(trained.trained_on), params.time_budget_seconds
        calibrate(module, scores, labelled, device, timed=budget is not None)
    module.network.cpu()
    head.cpu()
    return trained, {"train_rows": float(len(train)), "validation_rows": float(len(validation))}


def _read(
    module: Scenario, params: TrainingParams, chosen: Settings, train: Rows, begun: float
) -> tuple[ScenarioBatches, Rows]:
    """Return what reads rows, and the training rows that a budget leaves time to read."""
    batches = ScenarioBatches(module.reader(), module.task, module.item_position, chosen.tokens)
    budget = params.time_budget_seconds
    if budget is None:
        return batches, batches.prepare(train)
    if not chosen.gpu:
        batches.short_share = _SHORT_SHARE
    read = batches.prepare(train, begun + _READ_SHARE * budget)
    if len(read) < len(train):
        run_logger.info("Time for %d of %d training rows", len(read), len(train))
    return batches, read


def _start(module: Scenario, head: Head, batches: ScenarioBatches, train: Rows) -> None:
    """Start *head* at what counts alone, and what pretraining foresees, would say."""
    if not isinstance(train.targets, np.ndarray):
        return
    some = np.arange(min(len(train), _MOST_START_ROWS))  # rows come in random order
    aggregates = batches.aggregates(train, some)
    names = module.checkpoint.representation.aggregate_names
    known = Known(aggregates, names, module.network.panel.foresee(aggregates))
    head.start_from(train.targets[some], known)


def _plan(
    module: Scenario,
    params: TrainingParams,
    chosen: Settings,
    head: Head,
    per_epoch: int,
    begun: float,
) -> Plan:
    budget = params.time_budget_seconds
    adapts = budget is not None and "epochs" not in params.given
    return Plan(
        epochs=chosen.epochs,
        steps_per_epoch=per_epoch,
        learning_rate=chosen.learning_rate,
        started=begun,
        label="Training",
        deadline=None if budget is None else begun + budget,
        timed_epochs=adapts,
        most_steps=_most_steps(head, module.pretrained, per_epoch) if adapts else None,
        seed=params.seed,
    )


def _most_steps(head: Head, pretrained: bool, per_epoch: int) -> int:
    """Return after how many steps more training would only fit the noise of its rows.

    A head that starts from what pretraining foresees needs no fewest steps: with few labels it
    begins better than they can make it.
    """
    if pretrained and isinstance(head, ScoreHead) and head.started:
        return max(_PASSES * per_epoch, 1)
    return max(_PASSES * per_epoch, _FEWEST_STEPS)


def _kept_up(trained: BudgetModule, monitor: tuple[str, str]) -> bool:
    """Tell whether the last weights are about as good as the best on the validation rows.

    Validation rows are few and their best moment is partly luck, while the rate has fallen to its
    end only in the last weights.
    """
    keeper = trained.trainer.checkpoint_callback
    best = getattr(keeper, "best_model_score", None)
    last = trained.trainer.callback_metrics.get(monitor[0])
    if best is None or last is None:
        return False
    if monitor[1] == "max":
        return float(last) >= float(best) - _WORSE * abs(float(best))
    return float(last) <= float(best) + _WORSE * abs(float(best))


def _question(module: Scenario, params: TrainingParams) -> Question:
    """Return what a recommendation's target function asks for, and say so in the log."""
    if module.task.kind != "recommendation":
        return Question(OTHER)
    if len(module.store.tables) > 1:
        run_logger.info("Several event sources: no item is the next one, training reads rows")
        return Question(OTHER)
    end = learned_until(module.checkpoint.config, module.store)
    labeler = Labeler(module.store, module.target_fn, module.task, end, DataMode.TRAIN)
    random = np.random.default_rng(params.seed)
    found = question(labeler, module.checkpoint.representation, random)
    if found.field not in module.network.following.predicted:
        found = Question(OTHER)
    run_logger.info(found.text)
    return found


def _fewest_rows(module: Scenario, params: TrainingParams) -> float:
    """Return how many labelled rows a ranker needs to be worth more than the histories."""
    size = module.store.num_entities
    if params.entity_ids is not None:
        size = min(size, len(set(params.entity_ids.resolve())))
    return min(_FEWEST_OF_EACH * size, _MOST_OF_THESE)


def _fit_sequences(
    module: Scenario,
    params: TrainingParams,
    asked: Question,
    scratch: Path,
    begun: float,
    attempt: Attempt | None,
) -> dict[str, float]:
    """Train on what follows each event."""
    module.item_position, module.next_item = asked.field, True
    for name in ("metrics", "metric_to_monitor"):
        if getattr(params, name):
            warn_no_effect(f"TrainingParams.{name} of next items", "val_ndcg@10 is monitored")
    module.head = module.make_head()
    trained = fit_next_item(module, module.head, params, scratch, begun, attempt)
    return _finished(trained, module.store.num_entities, begun, {})


def _finished(
    trained: BudgetModule, num_entities: int, begun: float, extra: dict[str, float]
) -> dict[str, float]:
    """Log and return the metrics of a finished training."""
    found = trained.trainer.callback_metrics
    metrics = {k: float(v) for k, v in found.items() if k.startswith("val_")}
    metrics |= {
        "setup_seconds": trained.setup_seconds,
        "training_seconds": time.monotonic() - begun - trained.setup_seconds,
        "steps": float(steps_of(trained)),
        "num_entities": float(num_entities),
        **extra,
    }
    log_metrics(
        run_logger,
        f"Scenario trained in {metrics['training_seconds']:.1f} seconds, {steps_of(trained)} steps",
        metrics,
    )
    return metrics


def _monitor(module: Scenario, params: TrainingParams) -> tuple[str, str]:
    name = params.metric_to_monitor or module.task.monitor
    mode: Any = params.metric_monitoring_mode
    if mode is not None:
        return name, mode.value
    if params.metric_to_monitor is None:
        return name, module.task.mode
    smaller = any(part in name for part in ("loss", "mae", "rmse"))
    return name, "min" if smaller else "max"


def _rows(module: Scenario, params: TrainingParams) -> tuple[Rows, Rows]:
    """Return training and validation rows under the configured split."""
    store, config = module.store, module.checkpoint.config
    random = np.random.default_rng(params.seed)
    end = learned_until(config, store)
    labeler = Labeler(store, module.target_fn, module.task, end, DataMode.TRAIN)
    everyone = np.arange(store.num_entities)
    if params.entity_ids is not None:
        everyone = chosen_entities(store, params.entity_ids)
    last = latest_split(labeler, everyone, random)
    if last is None:
        raise NoTargetError(
            problem(
                "The target function returned None for every row",
                f"split points up to 365 days before the end of the training range ({shown(end)}) tried",
                "Check its window against the training range, and its filters",
                whereabouts(module.target_fn),
            )
        )
    points = split_points(store.first_time, last)
    budget = params.time_budget_seconds
    if module.task.kind == "recommendation":
        points = fewer_points(points, budget)
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
    spaced = points[::4][:4] if len(points) > MOST_POINTS else points[:2]
    for point in spaced:
        try:
            most = _MOST_VALIDATION_ROWS // len(spaced)
            parts.append(sample_rows(labeler, entities, np.array([point]), most, random, seconds))
        except (NoTargetError, ValueError):
            continue
    return joined(parts) if parts else None
