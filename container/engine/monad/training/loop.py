"""Run a Lightning trainer within a time budget or a number of epochs.

With a budget the learning rate follows the share of the budget that is used, and training stops
early enough for the last validation. Without one the documented parameters hold.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from monad.config.params import TrainingParams
from monad.errors import ConfigError, problem
from monad.training.averaging import Averaging
from monad.training.budget import BudgetModule
from monad.training.gpu import SetUp, release
from monad.training.ranks import gpu_present, gpu_used_here, several_devices
from monad.training.resume import Attempt, ResumeKeeper, moved_state
from monad.training.streams import BatchStream, Prefetched, TimedStream
from monad.training.watch import Watch

# Forked processes share the data that lie in memory, and only the first goes on after training.
# Some batches leave parts of the network out, such as the aggregates' branch.
_FORKED = "ddp_fork_find_unused_parameters_true"


def device_settings(params: TrainingParams | Any) -> dict[str, Any]:
    """Return Lightning's accelerator, devices, strategy and precision; CPU when there is no GPU."""
    gpu = params.accelerator in ("gpu", "auto", "cuda") and gpu_present()
    made: dict[str, Any] = {"accelerator": "gpu" if gpu else "cpu"}
    made["devices"] = params.devices if gpu or params.accelerator == "cpu" else 1
    if params.devices == "auto":
        made["devices"] = [_least_busy()] if gpu else 1
    several = several_devices(made["devices"])
    if several and gpu and gpu_used_here():
        raise ConfigError(
            problem(
                "Several GPUs cannot train one model from this process",
                "it has used a GPU already, which processes forked from it cannot share",
                "Begin the training in a process of its own, such as a script",
                "training_params.devices",
            )
        )
    if several and params.strategy in (None, "ddp"):
        made["strategy"] = _FORKED
    elif params.strategy and (gpu or several):
        made["strategy"] = params.strategy
    precision = params.precision
    if precision is None:
        precision = 32
        if gpu:  # asking makes a context on the GPU, which processes forked later cannot share
            found = several or torch.cuda.is_bf16_supported()
            precision = "bf16-mixed" if found else "16-mixed"
    made["precision"] = precision
    return made


def _least_busy() -> int:
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return max(range(len(free)), key=free.__getitem__)


def run_trainer(
    module: BudgetModule,
    train: DataLoader,
    validation: DataLoader | None,
    params: TrainingParams,
    checkpoints: Path,
    monitor: tuple[str, str],
    attempt: Attempt | None = None,
) -> Path | None:
    """Train *module* and return the Lightning checkpoint with the best monitored value.

    With *attempt*, partial checkpoints are written, and training continues from one if it has one.
    """
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    validation = None if params.limit_val_batches == 0 else validation
    keeper = _keeper(module, checkpoints, monitor if validation is not None else (None, monitor[1]))
    callbacks = _callbacks(module, validation, params, keeper, attempt)
    every_steps = params.check_val_every_n_steps
    trainer = lightning.Trainer(
        max_epochs=module.plan.epochs,
        limit_train_batches=params.limit_train_batches or 1.0,
        limit_val_batches=params.limit_val_batches or 1.0,
        check_val_every_n_epoch=None if every_steps else (params.check_val_every_n_epochs or 1),
        val_check_interval=every_steps or 1.0,
        gradient_clip_val=1.0 if params.gradient_clip_val is None else params.gradient_clip_val,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=str(checkpoints.parent),
        **device_settings(params),
    )
    continued = _continued(train, attempt)
    try:
        trainer.fit(module, train, validation, ckpt_path=continued, weights_only=True)
    finally:
        module.trainer = trainer  # which a module does not know where other processes trained it
        if trainer.world_size == 1:
            module.trained_on = trainer.strategy.root_device
        release(module)
        if continued is not None:
            continued.unlink(missing_ok=True)
    found = Path(keeper.best_model_path) if keeper.best_model_path else None
    return found if found is not None and found.is_file() else None


def _keeper(
    module: BudgetModule, checkpoints: Path, monitor: tuple[str | None, str]
) -> ModelCheckpoint:
    """Return what keeps the best weights; without a budget, those of every epoch."""
    budget = module.plan.deadline is not None
    return ModelCheckpoint(
        dirpath=checkpoints,
        filename="epoch={epoch}",
        auto_insert_metric_name=False,
        monitor=monitor[0],
        mode=monitor[1],
        save_top_k=1 if budget else -1,
        save_weights_only=budget,
    )


def _callbacks(
    module: BudgetModule,
    validation: DataLoader | None,
    params: TrainingParams,
    keeper: ModelCheckpoint,
    attempt: Attempt | None,
) -> list[Any]:
    """Return the callbacks of a training, those of the user's own among them."""
    callbacks: list[Any] = [SetUp(validation), Watch(), keeper, *params.callbacks]
    if module.plan.averaged:
        callbacks.insert(0, Averaging())
    if params.checkpoint_every_n_steps:
        callbacks.append(
            ModelCheckpoint(
                dirpath=keeper.dirpath,
                filename="step={step}",
                save_top_k=-1,
                auto_insert_metric_name=False,
                every_n_train_steps=params.checkpoint_every_n_steps,
            )
        )
    stopping = params.early_stopping
    if stopping is not None and keeper.monitor is not None:
        callbacks.append(
            EarlyStopping(
                monitor=keeper.monitor,
                mode=keeper.mode,
                patience=stopping.patience,
                min_delta=stopping.min_delta,
            )
        )
    if attempt is not None:
        every = params.checkpoint_every_n_steps
        callbacks.append(ResumeKeeper(attempt.writer(), every, attempt.used))
    return callbacks


def steps_of(module: BudgetModule) -> int:
    """Return the number of steps of a finished training, of whichever process."""
    steps = module.global_step
    return steps or int(module.trainer.callback_metrics.get("trained_steps", 0))


def take_best(module: lightning.LightningModule, best: Path | None) -> None:
    """Give *module* the weights of its best checkpoint, where there is one."""
    if best is not None:
        content = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(content["state_dict"])


def _continued(train: DataLoader, attempt: Attempt | None) -> Path | None:
    """Move *train* to where an earlier attempt stopped; returns the state to continue from."""
    partial = attempt.partial if attempt is not None else None
    if attempt is None or partial is None or partial.state is None:
        return None
    stream = train.dataset
    while isinstance(stream, Prefetched):
        stream = stream.inner
    assert isinstance(stream, BatchStream | TimedStream)
    stream.epoch, stream.skip = partial.epoch, partial.batch
    return moved_state(partial, attempt.scratch)
