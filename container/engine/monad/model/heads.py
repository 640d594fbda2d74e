"""Heads: from a row's summary to a task's output, its loss and its decoded prediction."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from monad.data.batches import Batch
from monad.model.head import Known, MemberHead, logistic
from monad.model.network import Network


class ScoreHead(MemberHead):
    """Logits for binary, multi-class and multilabel tasks.

    A shift, set after training, is added outside of it (training/calibration.py).
    """

    shift: torch.Tensor

    def __init__(
        self, kind: str, outputs: int, width: int, dropout: float, outcomes: int = 0
    ) -> None:
        super().__init__(outputs, width, dropout, outcomes)
        self.kind = kind
        self.register_buffer("shift", torch.zeros(outputs))
        self.started = False  # from what the pretrained branch foresees

    def start_from(self, targets: np.ndarray, known: Known | None = None) -> None:
        """Start at the share of each class, and at what the pretrained outlook says of it.

        Training begins with calibrated scores, with few labels almost where it can end.
        """
        share = np.clip(targets.mean(axis=0), 1e-3, 1 - 1e-3)
        prior = np.log(share) if self.kind == "multiclass" else np.log(share / (1 - share))
        if known is not None and self.foreseen is not None:
            inputs = self.take_outlook(known.outlook)
            if self.kind != "multiclass":
                fitted = [logistic(inputs, targets[:, k], prior[k]) for k in range(len(prior))]
                prior = np.array([start for _, start in fitted])
                weights = np.stack([found for found, _ in fitted])
                self.started = True
                with torch.no_grad():
                    self.foreseen.weight.copy_(torch.from_numpy(weights))
        self.start_at(prior)

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return logits (B, C), in training (B, K, C)."""
        made = self.member_outputs(network, batch)
        return made if self.training else made.mean(1) + self.shift

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        target = batch["target"]
        if output.dim() == 3:
            target = target[:, None].expand_as(output).flatten(0, 1)
            output = output.flatten(0, 1)
        if self.kind == "multiclass":
            return functional.cross_entropy(output, target)
        return functional.binary_cross_entropy_with_logits(output, target)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        if self.kind == "multiclass":
            return torch.softmax(output, -1).numpy()
        return torch.sigmoid(output).numpy()


def to_device(batch: Batch, device: Any) -> Batch:
    """Move a batch's tensors to a device."""
    made: Batch = {}
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            made[key] = value.to(device, non_blocking=True)
        elif isinstance(value, list):
            made[key] = [item.to(device, non_blocking=True) for item in value]
        else:
            made[key] = value
    return made
