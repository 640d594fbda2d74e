# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Watches a training: stops it in time for the last validation, and reports on it."""

import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from monad.logs import log_metrics
from monad.training.ranks import agreed, alone_in_fork
from monad.training.threads import calibrate_threads

_REPORT_SECONDS = 5.0
_FIRST_STEPS = 3
_MOST_RESERVED = 0.1  # share of a budget that an untimed validation may be thought to take
_DECIDE_STEPS = 10  # steps between two decisions of several processes whether to stop


class Watch(Callback):
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
        """Keep a forked process to one thread."""
        if trainer.world_size > 1:  # Lightning leaves them as they are where OMP_NUM_THREADS is set
            alone_in_fork()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the number of threads."""
        self._calibrate(pl_module)

    def _calibrate(self, module: Any) -> None:
        alone = module.trainer.world_size == 1
        if alone and module.plan.deadline is not None and module.device.type == "cpu":
            calibrate_threads(self.most_threads)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the threads back."""
        torch.set_num_threads(self.most_threads)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the step's clock."""
        self._begun = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, and stop where another one would leave too little time."""
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
