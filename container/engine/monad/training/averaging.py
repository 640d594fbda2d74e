# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""A running average of the weights: what validation judges and what is kept.

The average of the last part of the steps is better than any one of them, most of all while the
rate is still high. It covers a share of all steps so far, so that it needs no length of its own.
"""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

_SPAN = 0.1  # share of the steps so far that the average mainly covers


class Averaging(Callback):
    """Keeps the average beside the weights; the two change places around a validation.

    The weights come back at the first step after it. A training that ends with a validation
    therefore ends with the average.
    """

    def __init__(self) -> None:
        self.average: list[torch.Tensor] = []
        self._weights: list[torch.Tensor] | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin at the weights that training begins with, unless a state was loaded."""
        device = pl_module.device
        if not self.average:
            self.average = [p.detach().clone() for p in pl_module.parameters()]
        self.average = [value.to(device) for value in self.average]

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights back after a validation."""
        if self._weights is not None:
            _copy(self._weights, pl_module)
            self._weights = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average towards the weights."""
        share = 1.0 / (1.0 + _SPAN * trainer.global_step)
        with torch.no_grad():
            weights = [p.detach() for p in pl_module.parameters()]
            torch._foreach_lerp_(self.average, weights, share)  # pyright: ignore

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the average in place of the weights."""
        if self._weights is None and self.average:
            self._weights = [p.detach().clone() for p in pl_module.parameters()]
            _copy(self.average, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End with the average, also where no validation came last."""
        _copy(self.average, pl_module)
        self._weights = None

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the weights while the average stands in their place."""
        return {"average": self.average, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a stored average."""
        self.average, self._weights = state_dict["average"], state_dict["weights"]


def _copy(values: list[torch.Tensor], module: Any) -> None:
    with torch.no_grad():
        weights = [p.detach() for p in module.parameters()]
        torch._foreach_copy_(weights, values)  # pyright: ignore
