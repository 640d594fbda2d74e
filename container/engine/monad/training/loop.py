# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Run a Lightning trainer within a time budget or a number of epochs.

With a budget the learning rate follows the share of the budget that is used, and training stops
early enough for the last validation. Without one the documented parameters hold.
"""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from monad.config.params import TrainingParams
from monad.errors import ConfigError, problem
from monad.logs import log_metrics
from monad.model.heads import to_device
from monad.training.averaging import Averaging
from monad.training.gpu import SetUp, release
from monad.training.ranks import (
    agreed,
    alone_in_fork,
    gpu_present,
    gpu_used_here,
    rank_and_size,
    several_devices,
)
from monad.training.resume import Attempt, ResumeKeeper, moved_state
from monad.training.streams import BatchStream, Plan, Prefetched, TimedStream
from monad.training.threads import calibrate_threads

_WARM_UP = 0.03
_REPORT_SECONDS = 5.0
_DECAY = 0.01
_FIRST_STEPS = 3
_MOST_RESERVED = 0.1  # share of a budget that an untimed validation may be thought to take
# Forked processes share the data that lie in memory, and only the first goes on after training.
# Some batches leave parts of the network out, such as the aggregates' branch.
_FORKED = "ddp_fork_find_unused_parameters_true"
_DECIDE_STEPS = 10  # steps between two decisions of several processes whether to stop


class BudgetModule(lightning.LightningModule):
    """Base of the training modules: optimizer, schedule, validation seconds."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        super().__init__()
        self.plan = plan
        self.lines = logger
        self.automatic_optimization = True
        self.validation_seconds = 0.0
        self.validation_steps = 0.0
        self.closing_validations = 0.0  # what is done after training, in validations
        self.closing_seconds = 0.0  # and beside them
        self.trained_on = torch.device("cpu")
        self.setup_seconds = 0.0  # spent before the budget's clock ran
        self.common_progress: float | None = None  # of several processes: one rate for all
        self._validation_started = 0.0

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups; `scale` multiplies the learning rate of a group."""
        return [{"params": list(self.parameters()), "scale": 1.0}]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build AdamW; norms and biases do not decay."""
        groups = []
        for group in self.parameter_groups():
            matrices = [p for p in group["params"] if p.ndim > 1]
            others = [p for p in group["params"] if p.ndim <= 1]
            for params, decay in ((matrices, _DECAY), (others, 0.0)):
                if params:
                    groups.append(
                        {
                            "params": params,
                            "scale": group["scale"],
                            "weight_decay": group.get("decay", decay) if decay else 0.0,
                        }
                    )
        # With a gradient scaler a fused optimizer unscales by itself, after clipping: not there.
        fused = str(self.trainer.precision) != "16-mixed"
        return torch.optim.AdamW(groups, lr=self.plan.learning_rate, betas=(0.9, 0.98), fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm here: Lightning refuses to with a fused optimizer in mixed precision."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def progress(self) -> float:
        """Return the share of the training that is done."""
        if self.plan.deadline is not None and self.common_progress is not None:
            return self.common_progress
        if self.plan.deadline is not None:
            whole = self.plan.deadline - self.plan.started
            done = (time.monotonic() - self.plan.started) / max(whole, 1e-6)
            if self.plan.most_steps is not None:
                done = max(done, self.global_step / self.plan.most_steps)
            return min(done, 1.0)
        total = max(self.plan.epochs * self.plan.steps_per_epoch, 1)
        return min(self.global_step / total, 1.0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the step's random numbers and learning rate; both follow from its number."""
        self._seed(self.global_step)
        done = self.progress()
        warm = min((self.global_step + 1) / max(_WARM_UP * self.expected_steps(), 10.0), 1.0)
        factor = warm * max(0.0, 1.0 - done * (1.0 - self.plan.rate_end))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.plan.learning_rate * group["scale"] * factor

    def expected_steps(self) -> float:
        """Estimate the number of steps of the whole training."""
        if self.plan.deadline is None:
            return self.plan.epochs * self.plan.steps_per_epoch
        done = max(self.progress(), 1e-3)
        return self.global_step / done if self.global_step > 5 else 300.0

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to the device."""
        return to_device(batch, device)

    def _seed(self, step: int) -> None:
        # A resumed training must draw what an uninterrupted one draws; GPUs keep their own state.
        rank = rank_and_size()[0]
        torch.default_generator.manual_seed((self.plan.seed << 32) + (rank << 28) + step)

    def on_validation_epoch_start(self) -> None:
        """Start the validation clock."""
        self._seed(0)
        self._validation_started = time.monotonic()

    def validation_done(self) -> None:
        """Stop the validation clock."""
        self.validation_seconds = time.monotonic() - self._validation_started
        self.log("trained_steps", float(self.global_step))


class _Watch(Callback):
    """Stops on time and writes one line per reporting interval."""

    def __init__(self) -> None:
        self.last_report = time.monotonic()
        self.losses: list[torch.Tensor] = []
        self.rows = 0
        self.events = 0
        self.step_seconds = 0.0
        self._begun = 0.0
        self.most_threads = torch.get_num_threads()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.world_size > 1:  # Lightning leaves them as they are where OMP_NUM_THREADS is set
            alone_in_fork()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._calibrate(pl_module)

    def _calibrate(self, module: Any) -> None:
        alone = module.trainer.world_size == 1
        if alone and module.plan.deadline is not None and module.device.type == "cpu":
            calibrate_threads(self.most_threads)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        torch.set_num_threads(self.most_threads)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._begun = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        spent = now - self._begun
        if pl_module.global_step > _FIRST_STEPS:  # those before it tell of the machine's start
            spent = max(0.8 * self.step_seconds, spent)
        self.step_seconds = spent
        self.losses.append(outputs["loss"].detach())  # read at reports only: reading waits
        self.rows += len(batch["length"])
        self.events += len(batch.get("followed", ()))
        plan = pl_module.plan
        if plan.deadline is not None:
            # An estimate counts only until a validation was timed, and never for much: the first
            # steps are slow.
            expected = pl_module.validation_seconds or min(
                self.step_seconds * pl_module.validation_steps,
                _MOST_RESERVED * (plan.deadline - plan.started),
            )
            reserve = (
                (1.1 + pl_module.closing_validations) * expected
                + pl_module.closing_seconds
                + 1.2 * self.step_seconds
                + 0.002 * (plan.deadline - plan.started)
            )
            if trainer.world_size > 1:
                self._decide_together(trainer, pl_module, now + reserve)
            elif now + reserve >= plan.deadline:
                trainer.should_stop = True
        if plan.most_steps is not None and pl_module.global_step >= plan.most_steps:
            trainer.should_stop = True
        if now - self.last_report >= _REPORT_SECONDS:
            self._report(pl_module, now)

    def _decide_together(self, trainer: Any, module: Any, ready: float) -> None:
        if trainer.global_step % _DECIDE_STEPS:
            return
        late = ready + _DECIDE_STEPS * self.step_seconds >= module.plan.deadline
        module.common_progress = None
        progress, stop = agreed(module.progress(), float(late))
        module.common_progress, trainer.should_stop = progress, bool(stop)

    def _report(self, module: Any, now: float) -> None:
        plan, done = module.plan, module.progress()
        loss = float(torch.stack(self.losses).mean()) if self.losses else float("nan")
        passed = now - plan.started
        left = plan.deadline - now if plan.deadline else passed / max(done, 1e-6) - passed
        log_metrics(
            module.lines,
            f"{plan.label}: step {module.global_step}, {100 * done:.0f} %, loss {loss:.4f},"
            f" {left:.0f} s left",
            {
                "step": module.global_step,
                "progress": done,
                "loss": loss,
                "seconds_left": left,
                "epoch": module.current_epoch,
                "learning_rate": module.trainer.optimizers[0].param_groups[0]["lr"],
                **self._speed(module, now),
            },
        )
        self._calibrate(module)
        self.last_report, self.losses, self.rows, self.events = now, [], 0, 0

    def _speed(self, module: Any, now: float) -> dict[str, float]:
        """Return throughput since the last report, and the GPU's memory where there is one."""
        seconds = max(now - self.last_report, 1e-6)
        made = {
            "steps_per_second": len(self.losses) / seconds,
            "rows_per_second": self.rows / seconds,
            "events_per_second": self.events / seconds,
        }
        if module.device.type == "cuda":
            made["gpu_memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        return made


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
    keeper = _keeper(module, checkpoints, monitor if validation is not None else (None, monitor[1]))
    callbacks = _callbacks(module, validation, params, keeper, attempt)
    every_steps = params.check_val_every_n_steps
    trainer = lightning.Trainer(
        max_epochs=module.plan.epochs,
        limit_train_batches=params.limit_train_batches or 1.0,
        limit_val_batches=params.limit_val_batches or 1.0,
        check_val_every_n_epoch=None if every_steps else (params.check_val_every_n_epochs or 1),
        val_check_interval=every_steps or 1.0,
        gradient_clip_val=params.gradient_clip_val or 1.0,
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
    callbacks: list[Any] = [SetUp(validation), _Watch(), keeper, *params.callbacks]
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
    if stopping is not None and validation is not None:
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
