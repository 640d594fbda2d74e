"""What is adapted to data, device and budget: sizes, batches, rates; and where ranges end."""

import dataclasses
import logging
from typing import Any

import numpy as np

from monad.config.params import TrainingParams, training_params_from_mapping
from monad.config.schema import FoundationModelConfig
from monad.config.time_range import before, end_of
from monad.data.representation import Representation
from monad.data.store import Store
from monad.model.following import Softmax
from monad.model.network import Size
from monad.training.ranks import gpu_present, several_devices

LAST_EVENTS = 1_500  # held-out last events that validate the next-item part
AVERAGED = True
# Pretraining under a budget ends at this share of its rate, where a next-item scenario goes on: the
# two are one schedule. The average of the weights is as good as weights at a rate of zero.
REST = 0.5
_SHORT_LENGTH = 20.0
# By device and by whether histories are short; see docs/experiments.md.
_DROPOUT = {False: {False: 0.2, True: 0.5}, True: {False: 0.4, True: 0.5}}
_FEW_EVENTS, _FEW_DROPOUT = 500_000, 0.3
_SOFTMAX_GPU, _SOFTMAX_CPU = (50_000, 4_096), (5_000, 512)
_BATCHES_GPU, _BATCHES_CPU = (4_096, 65_536, 60), (1_024, 8_192, 200)  # least, most, a pass
# Passes over the histories, on a GPU and on a CPU with its smaller network, after which more training
# only remembers them; a next-item scenario that goes on from pretraining makes half as many. A
# budget that allows more is not used up. See docs/experiments.md.
_MOST_PASSES, AFTERWARDS = {True: 30, False: 120}, 0.5
_RATE_SHORT = 2.5e-3
# By whether there are few events: on a CPU for long histories, on a GPU for all.
_RATE, _RATE_GPU = {True: 4e-3, False: 3e-3}, {True: 2e-3, False: 1e-3}
_WIDTH_GPU_FEW = 128  # of short histories; twice as wide remembers few events


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
    return params.accelerator in ("gpu", "auto", "cuda") and gpu_present()


def beside_training(params: Any) -> str:
    """Return the device for what is computed before training, in the process that starts it.

    A GPU that this process has used cannot be used by processes that it forks.
    """
    alone = uses_gpu(params) and not several_devices(params.devices)
    return "cuda" if alone else "cpu"


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


def learned_until(config: FoundationModelConfig, store: Store) -> int:
    """Return the last second that training knows: of the training range, else of the data."""
    end = training_end(config)
    return store.last_time if end is None else end


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


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the data look like, as far as sizes and batches depend on it."""

    events: int
    mean_length: float
    long_length: float
    items: int

    @property
    def short(self) -> bool:
        """Whether histories are so short that depth and long batches do not pay."""
        return self.mean_length < _SHORT_LENGTH

    @property
    def few(self) -> bool:
        """Whether there are so few events that a network remembers them."""
        return self.events < _FEW_EVENTS


def shape_of(store: Store, representation: Representation) -> Shape:
    """Measure the training range's histories and its largest categorical field."""
    end = np.full(store.num_entities, representation.training_end)
    counts = np.zeros(store.num_entities, dtype=np.int64)
    everyone = np.arange(store.num_entities)
    for table in store.tables:
        counts += table.position(everyone, end) - table.offsets[:-1]
    counts = counts[counts > 1]
    sizes = [len(field.values) for field in representation.categories()]
    return Shape(
        events=int(counts.sum()),
        mean_length=float(counts.mean()) if len(counts) else 0.0,
        long_length=float(np.quantile(counts, 0.9)) if len(counts) else 0.0,
        items=max(sizes, default=0),
    )


def network_size(config: FoundationModelConfig, gpu: bool, shape: Shape, adapts: bool) -> Size:
    """Return the network's size: what the configuration gives, else by device and data."""
    limits = config.memory_constraining_params
    width = 256 if gpu else 64
    if adapts and gpu and shape.short and shape.few:
        width = _WIDTH_GPU_FEW
    width = limits.hidden_dim or width
    layers, events, dropout = 4 if gpu else 2, 256 if gpu else 64, 0.1
    if adapts:
        layers = layers // 2 if shape.short else layers
        most = 256 if gpu else 200
        events = int(np.clip(-(-shape.long_length // 8) * 8, 16, most))
        dropout = _DROPOUT[gpu][shape.short]
        if shape.few:
            dropout = max(dropout, _FEW_DROPOUT)
    return Size(
        width=width,
        layers=limits.num_layers or layers,
        heads=limits.num_heads or max(width // (64 if gpu else 32), 1),
        summary=max(128, width),
        dropout=dropout,
        max_events=limits.max_history_events or events,
    )


def history_rate(gpu: bool, shape: Shape) -> float:
    """Return the learning rate for whole histories under a budget."""
    if gpu:
        return _RATE_GPU[shape.few]
    return _RATE_SHORT if shape.short else _RATE[shape.few]


def softmax_of(gpu: bool, adapts: bool) -> Softmax:
    """Return how next items are learned on a device."""
    if not adapts:
        return Softmax()
    return Softmax(*(_SOFTMAX_GPU if gpu else _SOFTMAX_CPU))


def most_steps(params: TrainingParams, steps_a_pass: int, share: float = 1.0) -> int | None:
    """Return the steps after which training within a budget ends, or None where epochs say it."""
    if params.time_budget_seconds is None or "epochs" in params.given:
        return None
    return int(share * _MOST_PASSES[uses_gpu(params)] * steps_a_pass)


def log_choices(logger: logging.Logger, size: Size, softmax: Softmax, items: int) -> None:
    """Say how next items are learned, and with which network."""
    full = items <= softmax.full_items
    loss = "full softmax over" if full else f"softmax over {softmax.negatives} negatives of"
    logger.info(
        "Next items: %s %d items; width %d, %d layers, %d heads, dropout %g, %d events a row at most",
        loss,
        items,
        size.width,
        size.layers,
        size.heads,
        size.dropout,
        size.max_events,
    )


def settings(
    config: FoundationModelConfig,
    params: TrainingParams,
    default_rate: float,
    logger: logging.Logger,
    shape: Shape | None = None,
) -> Settings:
    """Resolve rate, epochs and batch size; what adapts is said in the log.

    *shape* is given for training on whole histories: batches are then sized so that a pass over
    the data has a few hundred of them.
    """
    gpu = uses_gpu(params)
    budget = params.time_budget_seconds
    adapts = budget is not None
    rate = params.learning_rate
    if adapts and "learning_rate" not in params.given:
        rate = default_rate
    epochs = params.epochs
    if adapts and "epochs" not in params.given:
        epochs = 1_000_000
    loaders = config.data_loader_params
    tokens, rows = (65_536, 1_024) if gpu else (4_096, 256)
    if adapts and shape is not None:
        least, most, parts = _BATCHES_GPU if gpu else _BATCHES_CPU
        tokens = int(np.clip(shape.events // parts, least, most))
        rows = min(max(tokens // 4, 16), 8_192)
    tokens = loaders.max_tokens_per_batch or tokens
    rows = params.batch_size or loaders.batch_size or rows
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
