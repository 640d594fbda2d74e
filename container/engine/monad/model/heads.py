"""Heads: from a row's summary to a task's output, its loss and its decoded prediction."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import Batch
from monad.data.pairs import ITEM_FEATURES, PAIR_FEATURES
from monad.data.representation import FIRST
from monad.model.layers import last_linear, mlp
from monad.model.network import Network
from monad.tasks import RegressionTask, Task

_REGRESSION_BINS = 48
_MOST_BOUGHT = [0.5, -0.3, 0.0, 2.0, 1.0, 0.0, 0.0, 1.0, 0.5]  # order of monad.data.pairs


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


class ScoreHead(Head):
    """Logits for binary, multi-class and multilabel tasks."""

    def __init__(self, kind: str, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.score = mlp(width, width, outputs, dropout)

    def start_from(self, targets: np.ndarray) -> None:
        """Start at the share of each class, so that training begins with calibrated scores."""
        share = np.clip(targets.mean(axis=0), 1e-3, 1 - 1e-3)
        prior = np.log(share) if self.kind == "multiclass" else np.log(share / (1 - share))
        with torch.no_grad():
            last_linear(self.score).bias.copy_(torch.from_numpy(prior.astype(np.float32)))

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return logits (B, C)."""
        return self.score(network.summarize(batch))

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        target = batch["target"]
        if self.kind == "multiclass":
            return functional.cross_entropy(output, target)
        return functional.binary_cross_entropy_with_logits(output, target)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        if self.kind == "multiclass":
            return torch.softmax(output, -1).numpy()
        return torch.sigmoid(output).numpy()


class AmountHead(Head):
    """A distribution over bins of each amount, zero having a bin of its own.

    The median of the distribution is the best guess in absolute error, also where most targets
    are zero; the mean is the best in squared error. Bins come from training targets.
    """

    edges: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    mean: torch.Tensor

    def __init__(self, task: RegressionTask, width: int, dropout: float) -> None:
        super().__init__()
        self.targets, self.point = task.num_targets, task.point
        self.score = mlp(width, width, self.targets * _REGRESSION_BINS, dropout)
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
        with torch.no_grad():
            last_linear(self.score).bias.copy_(
                torch.from_numpy(prior.reshape(-1).astype(np.float32))
            )

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the scores of every bin (B, targets, bins)."""
        scores = self.score(network.summarize(batch))
        return scores.view(-1, self.targets, _REGRESSION_BINS)

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        target = batch["target"].T.contiguous()
        bins = torch.searchsorted(self.edges, target).T.clamp(max=_REGRESSION_BINS - 1)
        entropy = functional.cross_entropy(output.flatten(0, 1), bins.reshape(-1))
        share = torch.softmax(output, -1).cumsum(-1)
        reached = torch.arange(_REGRESSION_BINS, device=bins.device) >= bins[..., None]
        return entropy + ((share - reached.to(share.dtype)) ** 2).sum(-1).mean()

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        share = torch.softmax(output.float(), -1)
        if self.point == "mean":
            return (share * self.mean).sum(-1).numpy()
        upto = share.cumsum(-1)
        at = (upto < 0.5).sum(-1).clamp(max=_REGRESSION_BINS - 1)[..., None]
        before = (upto - share).gather(-1, at)
        inside = ((0.5 - before) / share.gather(-1, at).clamp(min=1e-9)).clamp(0, 1)
        low = self.low.expand_as(share).gather(-1, at)
        high = self.high.expand_as(share).gather(-1, at)
        return (low + inside * (high - low)).squeeze(-1).numpy()

    def explained(self, output: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the mean of the distribution of one target: it follows the inputs smoothly."""
        expected = (torch.softmax(output.float(), -1) * self.mean).sum(-1)
        return expected.gather(1, index[:, None]).squeeze(1)


class ItemHead(Head):
    """Score of every item: dot product, item popularity, and features of (entity, item) pairs.

    Items without pair features get the score of the general formula, so the ranking over the
    whole catalogue is exact, not limited to candidates.
    """

    def __init__(self, item_position: int, items: int, width: int, summary: int) -> None:
        super().__init__()
        self.item_position = item_position
        self.query = nn.Linear(summary, width)
        self.bias = nn.Parameter(torch.zeros(items))
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.base = mlp(ITEM_FEATURES, 16, 1, 0.0)
        self.base_linear = nn.Linear(ITEM_FEATURES, 1, bias=False)
        self.pair_linear = nn.Linear(PAIR_FEATURES, 1, bias=False)
        self.context = nn.Linear(summary, 32)
        self.pair = nn.Linear(PAIR_FEATURES + ITEM_FEATURES, 32)
        self.pair_score = nn.Sequential(nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
        self._start_at_most_bought()

    def _start_at_most_bought(self) -> None:
        """Begin as a mix of most bought and most popular, and learn from there."""
        with torch.no_grad():
            self.base_linear.weight.zero_()
            self.base_linear.weight[0, 1] = 2.0  # last 30 days
            self.pair_linear.weight.copy_(torch.tensor([_MOST_BOUGHT]))
            for last in (last_linear(self.base), last_linear(self.pair_score)):
                last.weight.mul_(0.1)
                last.bias.zero_()

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return a score for every item (B, N)."""
        summary = network.summarize(batch)
        table = network.events.vectors(self.item_position)
        features = batch["item_features"]
        pairs = batch["pair_features"]
        if batch.get("gates") is not None:
            pairs = pairs * batch["gates"].pairs[:, None]
        scores = self.scale * (self.query(summary) @ table.T) + self.bias
        scores = scores + (self.base(features) + self.base_linear(features)).squeeze(-1)
        rows, items = batch["pair_rows"], batch["pair_items"]
        joined = torch.cat([pairs, features[items]], dim=-1)
        delta = self.pair_score(self.pair(joined) + self.context(summary)[rows])
        delta = (delta + self.pair_linear(pairs)).squeeze(-1)
        scores = scores.index_put((rows, items), delta.to(scores.dtype), accumulate=True)
        blocked = torch.zeros_like(scores[0])
        blocked[:FIRST] = -math.inf
        return scores + blocked

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        rows, items, weights = batch["target_rows"], batch["target_items"], batch["target_weights"]
        if len(batch["masked_rows"]):
            output = output.index_put(
                (batch["masked_rows"], batch["masked_items"]), output.new_tensor(-math.inf)
            )
        log_share = functional.log_softmax(output, -1)[rows, items]
        total = torch.zeros(len(output), device=output.device).index_add(0, rows, weights)
        return -(log_share * weights / total[rows]).sum() / max(len(output), 1)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        return output.numpy()


def build_head(task: Task, network: Network, items: tuple[int, int]) -> Head:
    """Make the head of a task; *items* are the item field's position and its size."""
    size = network.size
    if task.kind == "regression":
        assert isinstance(task, RegressionTask)
        return AmountHead(task, size.summary, size.dropout)
    if task.kind == "recommendation":
        return ItemHead(items[0], items[1], size.width, size.summary)
    return ScoreHead(task.kind, task.num_outputs, size.summary, size.dropout)


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
