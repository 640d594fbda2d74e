# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Base of the training modules: the rate follows the share of a time budget, or of the steps, used."""

import logging
import time
from typing import Any

import lightning.pytorch as lightning
import torch

from monad.model.heads import to_device
from monad.training.ranks import rank_and_size
from monad.training.streams import Plan

_WARM_UP = 0.03
_DECAY = 0.01


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
