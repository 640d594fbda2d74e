"""Scenarios: the documented import location `monad.ui.module`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monad.config.params import EntityIds
from monad.config.support import warn_no_effect
from monad.config.time_range import DataMode, TimeRange
from monad.errors import CheckpointError, ConfigError, problem
from monad.io.checkpoint import Checkpoint, read_checkpoint
from monad.io.checkpoint import Checkpoint as MonadCheckpoint
from monad.tasks import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    MultilabelClassificationTask,
    OneHotRecommendationTask,
    RecommendationTask,
    RegressionTask,
    Task,
)
from monad.training.module import MonadModuleImpl

__all__ = [
    "BinaryClassificationTask",
    "MonadCheckpoint",
    "MonadModuleImpl",
    "MulticlassClassificationTask",
    "MultilabelClassificationTask",
    "OneHotRecommendationTask",
    "RecommendationTask",
    "RegressionTask",
    "load_from_checkpoint",
    "load_from_foundation_model",
]


def load_from_foundation_model(
    checkpoint_path: Path | str,
    downstream_task: Task,
    target_fn: Callable[..., Any],
    with_head: bool = False,
    *,
    split: dict[DataMode, TimeRange] | None = None,
    entity_ids: EntityIds | None = None,
    data_params: dict[str, Any] | None = None,
    num_outputs: int | None = None,
    num_targets: int | None = None,
) -> MonadModuleImpl:
    """Put a task on a foundation model; sources, dates and parameters are the model's.

    Args:
        checkpoint_path: The directory that `pretrain` wrote.
        downstream_task: The task.
        target_fn: Turns history and future into a target.
        with_head: Accepted; the layers that predict are always loaded, and heads begin from them.
        split: Date ranges that replace the configured ones, by mode.
        entity_ids: Limits tests and predictions to these main entities.
        data_params: Fields that replace those of the configuration's `data_params`.
        num_outputs: Ignored; older releases needed it.
        num_targets: Ignored; older releases needed it.
    """
    if not callable(target_fn):
        raise TypeError("target_fn must be callable")
    if not isinstance(downstream_task, Task):
        raise TypeError(
            f"downstream_task must be a task, such as BinaryClassificationTask(), not"
            f" {downstream_task!r}"
        )
    if with_head:
        warn_no_effect("with_head", "heads always begin from the layers that predict")
    if num_outputs is not None or num_targets is not None:
        warn_no_effect("num_outputs and num_targets", "the task decides")
    checkpoint = _overridden(read_checkpoint(checkpoint_path), split, data_params)
    if checkpoint.task is not None:
        raise CheckpointError(
            problem(
                f"{checkpoint_path} is a scenario checkpoint of {checkpoint.task!r}",
                do="Use load_from_checkpoint for it",
            )
        )
    return MonadModuleImpl(
        checkpoint, downstream_task, target_fn, split=split, entity_ids=entity_ids
    )


def load_from_checkpoint(
    checkpoint_path: Path | str,
    *,
    trust_target_fn: bool = False,
    target_fn: Callable[..., Any] | None = None,
    split: dict[DataMode, TimeRange] | None = None,
    entity_ids: EntityIds | None = None,
    data_params: dict[str, Any] | None = None,
) -> MonadModuleImpl:
    """Load a scenario: weights and task only.

    The stored target function is code; it is unpickled when `fit` or `test` needs labels, and
    only with *trust_target_fn* (or MONAD_TRUST_TARGET_FN=1). `predict` never needs it.
    """
    checkpoint = _overridden(read_checkpoint(checkpoint_path), split, data_params)
    if checkpoint.task is None:
        raise CheckpointError(
            problem(
                f"{checkpoint_path} is a foundation model",
                do="Use load_from_foundation_model with a task and a target function",
            )
        )
    return MonadModuleImpl(
        checkpoint,
        checkpoint.task,
        target_fn,
        trust_target_fn=trust_target_fn,
        split=split,
        entity_ids=entity_ids,
    )


def _overridden(
    checkpoint: Checkpoint,
    split: dict[DataMode, TimeRange] | None,
    data_params: dict[str, Any] | None,
) -> Checkpoint:
    """Put date ranges and fields in the place of the configured ones."""
    given = {**_dates(split), **(data_params or {})}
    if given:
        from monad.config.loading import parse_config

        raw = dict(checkpoint.config.raw)
        raw["data_params"] = {**raw["data_params"], **given}
        checkpoint.config = parse_config(raw, "data.yaml")
    return checkpoint


def _dates(split: dict[DataMode, TimeRange] | None) -> dict[str, Any]:
    """Return the fields of `data_params` that a split by mode stands for."""
    names = {
        DataMode.TRAIN: ("data_start_date", "training_end_date"),
        DataMode.VALIDATION: ("validation_start_date", "validation_end_date"),
        DataMode.TEST: ("test_start_date", "test_end_date"),
    }
    made: dict[str, Any] = {}
    for mode, span in (split or {}).items():
        if mode not in names:
            raise ConfigError(
                problem(
                    f"split names the mode `{mode}`",
                    "predictions have a date, not a range",
                    "Use prediction_date, or TRAIN, VALIDATION or TEST",
                )
            )
        found = zip(names[DataMode(mode)], (span.start_date, span.end_date), strict=True)
        made.update({name: value for name, value in found if value is not None})
    return made
