"""What is adapted to data, device and budget: sizes, batches, rates; and where ranges end."""

import dataclasses
import logging
from typing import Any

import torch

from monad.config.params import TrainingParams, training_params_from_mapping
from monad.config.schema import FoundationModelConfig
from monad.config.time_range import before, end_of
from monad.data.store import Store
from monad.model.network import Size


@dataclasses.dataclass
class Settings:
    """Resolved settings of one training."""

    epochs: int
    learning_rate: float
    tokens: int
    rows: int
    gpu: bool


def training_params(config: FoundationModelConfig) -> TrainingParams:
    """Return the configuration's training parameters."""
    return training_params_from_mapping(config.training_params, "training_params")


def uses_gpu(params: Any) -> bool:
    """Tell whether a GPU is wanted and present."""
    return params.accelerator in ("gpu", "auto", "cuda") and torch.cuda.is_available()


def training_end(config: FoundationModelConfig) -> int | None:
    """Return the last second of the training range, or None for the end of the data."""
    dates = config.data_params
    if dates.training_end_date is not None:
        return end_of(dates.training_end_date)
    if dates.validation_start_date is not None:
        return before(dates.validation_start_date)
    if dates.training_and_validation_end is not None:
        return end_of(dates.training_and_validation_end)
    if dates.test_start_date is not None:
        return before(dates.test_start_date)
    return None


def validation_range(config: FoundationModelConfig, store: Store) -> tuple[int, int] | None:
    """Return the split point and the end of labels of a time-based validation."""
    dates = config.data_params
    if dates.validation_start_date is None:
        return None
    end = store.last_time
    if dates.validation_end_date is not None:
        end = end_of(dates.validation_end_date)
    elif dates.test_start_date is not None:
        end = before(dates.test_start_date)
    return before(dates.validation_start_date), end


def network_size(config: FoundationModelConfig, gpu: bool) -> Size:
    """Return the network's size: what the configuration gives, else by device."""
    limits = config.memory_constraining_params
    width = limits.hidden_dim or (256 if gpu else 64)
    return Size(
        width=width,
        layers=limits.num_layers or (4 if gpu else 2),
        heads=limits.num_heads or max(width // 32, 1),
        summary=max(128, width),
        max_events=limits.max_history_events or (256 if gpu else 64),
    )


def settings(
    config: FoundationModelConfig,
    params: TrainingParams,
    default_rate: float,
    logger: logging.Logger,
) -> Settings:
    """Resolve rate, epochs and batch size; what adapts is said in the log."""
    gpu = uses_gpu(params)
    budget = params.time_budget_seconds
    adapts = budget is not None
    rate = params.learning_rate
    if adapts and "learning_rate" not in params.given:
        rate = default_rate
    epochs = params.epochs
    if adapts and "epochs" not in params.given:
        epochs = 1_000
    tokens = config.data_loader_params.max_tokens_per_batch or (65_536 if gpu else 4_096)
    rows = params.batch_size or config.data_loader_params.batch_size or (1_024 if gpu else 256)
    if adapts:
        logger.info(
            "Time budget %.0f s on %s: learning rate %g, up to %d events or %d rows a batch, epochs %s",
            budget,
            "gpu" if gpu else "cpu",
            rate,
            tokens,
            rows,
            epochs if "epochs" in params.given else "as many as fit",
        )
    return Settings(epochs, rate, tokens, rows, gpu)
