"""Heads: from a row's summary to a task's output, its loss and its decoded prediction."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import Batch
from monad.model.layers import last_linear, mlp
from monad.model.network import Network
from monad.model.panel import MemberOutputs
from monad.tasks import RegressionTask

_REGRESSION_BINS = 48


class Head(nn.Module):
    """Base of heads."""

    def start_from(self, targets: np.ndarray) -> None:
        """Set what can be set from training targets before training."""

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the raw output for a batch."""
        raise NotImplementedError

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        raise NotImplementedError

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions: probabilities, amounts or item scores."""
        raise NotImplementedError

    def explained(self, output: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the one number a row (B,) that attributions explain; *index* picks it (B,)."""
        return output.gather(1, index[:, None]).squeeze(1)


class MemberHead(Head):
    """Outputs of every member of the aggregates' branch, and what sequence and sketch add to them.

    In training the output has a dimension of members, (B, K, O), and each member learns for itself;
    otherwise it is their mean, (B, O). The sequence's part begins at zero.
    """

    def __init__(self, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.members = MemberOutputs(width, outputs)
        self.summary = mlp(width, width, outputs, min(2 * dropout, 0.5))
        with torch.no_grad():
            last_linear(self.summary).weight.zero_()
            last_linear(self.summary).bias.zero_()

    def start_at(self, prior: np.ndarray) -> None:
        """Set the output before the first step."""
        with torch.no_grad():
            self.members.bias.copy_(torch.from_numpy(prior.reshape(-1).astype(np.float32)))

    def member_outputs(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return (B, K, O)."""
        return (
            self.members(network.members(batch)) + self.summary(network.summarize(batch))[:, None]
        )


class ScoreHead(MemberHead):
    """Logits for binary, multi-class and multilabel tasks."""

    def __init__(self, kind: str, outputs: int, width: int, dropout: float) -> None:
        super().__init__(outputs, width, dropout)
        self.kind = kind

    def start_from(self, targets: np.ndarray) -> None:
        """Start at the share of each class, so that training begins with calibrated scores."""
        share = np.clip(targets.mean(axis=0), 1e-3, 1 - 1e-3)
        prior = np.log(share) if self.kind == "multiclass" else np.log(share / (1 - share))
        self.start_at(prior)

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return logits (B, C), in training (B, K, C)."""
        made = self.member_outputs(network, batch)
        return made if self.training else made.mean(1)

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


class AmountHead(MemberHead):
    """A distribution over bins of each amount, zero having a bin of its own.

    The median of the distribution is the best guess in absolute error, also where most targets
    are zero; the mean is the best in squared error. Bins come from training targets.
    """

    edges: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    mean: torch.Tensor

    def __init__(self, task: RegressionTask, width: int, dropout: float) -> None:
        super().__init__(task.num_targets * _REGRESSION_BINS, width, dropout)
        self.targets, self.point = task.num_targets, task.point
        self.register_buffer("edges", torch.zeros(self.targets, _REGRESSION_BINS - 1))
        self.register_buffer("low", torch.zeros(self.targets, _REGRESSION_BINS))
        self.register_buffer("high", torch.zeros(self.targets, _REGRESSION_BINS))
        self.register_buffer("mean", torch.zeros(self.targets, _REGRESSION_BINS))

    def start_from(self, targets: np.ndarray) -> None:
        """Place the bins on training targets (rows, targets) and start at their frequencies."""
        prior = np.zeros((self.targets, _REGRESSION_BINS))
        for k in range(self.targets):
            values = targets[:, k].astype(np.float64)
            rest = values[values != 0]
            levels = np.linspace(0, 1, _REGRESSION_BINS)[1:-1]
            cuts = np.unique(np.quantile(rest, levels)) if len(rest) else np.array([0.5])
            tiny = 1e-6 * max(float(np.abs(values).max(initial=0.0)), 1e-6)
            around = [-tiny, tiny] if (values < 0).any() else [tiny]
            cuts = np.unique(np.concatenate([cuts[np.abs(cuts) > tiny], around]))
            cuts = cuts[
                np.linspace(0, len(cuts) - 1, min(len(cuts), _REGRESSION_BINS - 1)).astype(int)
            ]
            edges = np.full(_REGRESSION_BINS - 1, np.inf)
            edges[: len(cuts)] = cuts
            which = np.searchsorted(edges, values, side="left")
            for b in range(_REGRESSION_BINS):
                inside = values[which == b]
                low = inside.min() if len(inside) else (edges[b - 1] if b else 0.0)
                low = low if np.isfinite(low) else 0.0
                self.low[k, b] = float(low)
                self.high[k, b] = float(inside.max()) if len(inside) else float(low)
                self.mean[k, b] = float(inside.mean()) if len(inside) else float(low)
            self.edges[k] = torch.from_numpy(edges)
            counts = np.bincount(which, minlength=_REGRESSION_BINS)
            prior[k] = np.log((counts + 0.1) / (counts.sum() + 0.1 * _REGRESSION_BINS))
        self.start_at(prior)

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the scores of every bin (B, targets, bins), in training (B, K, targets, bins).

        Outside training the members' distributions are averaged, not their scores.
        """
        scores = self.member_outputs(network, batch)
        scores = scores.view(*scores.shape[:2], self.targets, _REGRESSION_BINS)
        if self.training:
            return scores
        return torch.softmax(scores.float(), -1).mean(1).clamp(min=1e-12).log()

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        target = batch["target"].T.contiguous()
        bins = torch.searchsorted(self.edges, target).T.clamp(max=_REGRESSION_BINS - 1)
        if output.dim() == 4:
            bins = bins[:, None].expand(output.shape[:3]).flatten(0, 1)
            output = output.flatten(0, 1)
        entropy = functional.cross_entropy(output.flatten(0, 1), bins.reshape(-1))
        share = torch.softmax(output, -1).cumsum(-1)
        reached = torch.arange(_REGRESSION_BINS, device=bins.device) >= bins[..., None]
        return entropy + ((share - reached.to(share.dtype)) ** 2).sum(-1).mean()

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        share = torch.softmax(output.float(), -1)
        if self.point == "mean":
            return (share * self.mean).sum(-1).numpy()
        median = self._quantile(share)
        if self.point == "median":
            return median.numpy()
        return _unsquash(0.5 * (_squash(median) + (share * _squash(self.mean)).sum(-1))).numpy()

    def explained(self, output: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the mean of the distribution of one target: it follows the inputs smoothly."""
        expected = (torch.softmax(output.float(), -1) * self.mean).sum(-1)
        return expected.gather(1, index[:, None]).squeeze(1)

    def _quantile(self, share: torch.Tensor, level: float = 0.5) -> torch.Tensor:
        upto = share.cumsum(-1)
        at = (upto < level).sum(-1).clamp(max=_REGRESSION_BINS - 1)[..., None]
        before = (upto - share).gather(-1, at)
        inside = ((level - before) / share.gather(-1, at).clamp(min=1e-9)).clamp(0, 1)
        low = self.low.expand_as(share).gather(-1, at)
        high = self.high.expand_as(share).gather(-1, at)
        return (low + inside * (high - low)).squeeze(-1)


def _squash(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * torch.log1p(x.abs())


def _unsquash(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * torch.expm1(x.abs())


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
