"""Heads: from a row's summary to a task's output, its loss and its decoded prediction."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import Batch
from monad.data.fields import FIRST
from monad.model.followers import Followers
from monad.model.layers import last_linear, mlp
from monad.model.network import Network
from monad.model.panel import MemberOutputs, Panel
from monad.tasks import RegressionTask, Task

_REGRESSION_BINS = 48
_MOST_BOUGHT = {"days": 1.0, "lines": 0.5, "day_share": 0.5, "sold_30": 0.3, "near_2": 0.3}
_PAIR_WIDTH, _PAIR_DROPOUT, _PAIR_MEMBERS = 64, 0.1, 4
_ENOUGH = 12.0  # wanted candidates from which on a row counts in full


@dataclasses.dataclass
class ItemField:
    """The field that recommendations are about, and the features of pairs and items."""

    position: int
    size: int
    names: list[str]
    pair_features: int
    item_features: int


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


class ItemHead(Head):
    """Score of every item: what the network expects next, how the item sells, and pair features.

    Items without pair features get the score of the general formula, so the ranking over the
    whole catalogue is exact, not limited to candidates. Several members score the pairs, as in
    the aggregates' branch; their mean counts.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, items: ItemField, network: Network) -> None:
        super().__init__()
        self.position = items.position
        size = network.size
        self.query = nn.Linear(size.summary, size.width)
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.bias = nn.Parameter(torch.zeros(items.size))
        self.base = mlp(items.item_features, 32, 1, 0.0)
        inputs = items.pair_features + items.item_features
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        plain = ([0.0] * (inputs + 1), [1.0] * (inputs + 1))
        self.pair = Panel(*plain, _PAIR_WIDTH, _PAIR_DROPOUT, _PAIR_MEMBERS)
        self.context = nn.Linear(size.summary, _PAIR_WIDTH)
        self.pair_score = MemberOutputs(_PAIR_WIDTH, 1, _PAIR_MEMBERS)
        self.linear = nn.Linear(inputs + 1, 1, bias=False)
        self.pair_features = items.pair_features
        self.next_known = items.position in network.following.predicted
        with torch.no_grad():  # begin as most bought, then most popular
            self.linear.weight.zero_()
            for name, weight in _MOST_BOUGHT.items():
                if name in items.names:
                    self.linear.weight[0, items.names.index(name)] = weight
            self.pair_score.weight.mul_(0.1)
            last_linear(self.base).weight.mul_(0.1)

    def start_from(self, targets: np.ndarray) -> None:
        """Scale the features by a sample of training pairs (rows, pair and item features)."""
        self.mean.copy_(torch.from_numpy(targets.mean(0)))
        self.deviation.copy_(torch.from_numpy(targets.std(0)).clamp(min=1e-2))

    def output(self, network: Network, batch: Batch) -> Any:
        """Return a score for every item (B, N); in training also every member's of the pairs."""
        states, summary = network.read(batch)
        table = network.events.vectors(self.position)
        items = batch["item_features"]
        cut = self.pair_features
        scaled_items = ((items - self.mean[cut:]) / self.deviation[cut:]).clamp(-4, 4)
        expected = self._expected(network, states, table)
        scores = expected + self.scale * (self.query(summary) @ table.T) + self.bias
        scores = scores + self.base(scaled_items).squeeze(-1)
        rows, which = batch["pair_rows"], batch["pair_items"]
        pairs = batch["pair_features"]
        if batch.get("gates") is not None:
            pairs = pairs * batch["gates"].pairs[:, None]
        scaled = ((pairs - self.mean[:cut]) / self.deviation[:cut]).clamp(-4, 4)
        hint = expected[rows, which].clamp(-4, 4)
        joined = torch.cat([scaled, scaled_items[which], hint[:, None].to(scaled.dtype)], dim=-1)
        hidden = self.pair(joined) + 0.1 * torch.tanh(self.context(summary))[rows][:, None]
        delta = self.pair_score(hidden).squeeze(-1) + self.linear(joined)
        blocked = torch.zeros_like(scores[0])
        blocked[:FIRST] = -math.inf
        full = scores.index_put((rows, which), delta.mean(1).to(scores.dtype), accumulate=True)
        full = full + blocked
        return (full, scores[rows, which][:, None] + delta) if self.training else full

    def without_memory(self) -> None:
        """Leave out what could remember single items of single entities, for few entities."""
        for parameter in (self.scale, self.bias, *self.query.parameters()):
            parameter.requires_grad_(False)
        with torch.no_grad():
            self.scale.zero_()
            self.bias.zero_()

    def _expected(
        self, network: Network, states: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        """Return how much more than by chance the network expects each item next (B, N)."""
        if not self.next_known:
            return states.new_zeros(len(states), len(table))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not network.frozen):
            scores = network.following.scores(self.position, states, table).float()
            return 0.3 * (torch.log_softmax(scores, -1) + math.log(len(table)))

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets.

        In training every member ranks the candidates. The whole catalogue counts little there:
        most of what an entity takes for the first time cannot be told, and learning to try
        would cost the order of what can.
        """
        if isinstance(output, torch.Tensor):
            return items_loss(output, batch)
        full, members = output
        return _candidate_loss(members, batch, full.shape[-1]) + 0.2 * items_loss(full, batch)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        return output.numpy()


class NextItemHead(Head):
    """Score of every item as the next one: the network's own, for targets that are just that.

    It has no weights beside the network's, which learns at every event instead of once a row; what
    usually follows an item is counted.
    """

    def __init__(self, item_position: int, size: int) -> None:
        super().__init__()
        self.item_position = item_position
        self.followers = Followers(size)
        self.register_buffer("first", torch.tensor(FIRST))

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return a score for every item (B, N)."""
        table = network.events.vectors(self.item_position)
        states = network.last_states(batch)
        scores = network.following.scores(self.item_position, states, table)
        scores = self.followers.added(scores, batch, self.item_position)
        blocked = torch.zeros_like(scores[0])
        blocked[:FIRST] = -math.inf
        return scores + blocked

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        return items_loss(output, batch)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        return output.numpy()


def _candidate_loss(members: torch.Tensor, batch: Batch, items: int) -> torch.Tensor:
    """Return the softmax loss over each row's candidates, for members' scores (P, K)."""
    rows = batch["pair_rows"]
    keys = rows * items + batch["pair_items"]
    size = len(batch["length"])

    def places(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = batch[f"{kind}_rows"] * items + batch[f"{kind}_items"]
        at = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        return at, keys[at] == wanted

    weights = members.new_zeros(len(keys))
    if not len(keys):
        return members.sum() * 0.0
    at, found = places("target")
    weights[at[found]] = batch["target_weights"][found].to(weights.dtype)
    at, found = places("masked")
    scores = members.float()
    if found.any():
        scores = scores.index_fill(0, at[found], -1e4)
    index = rows[:, None].expand_as(scores)
    top = scores.new_full((size, scores.shape[1]), -1e4)
    top = top.scatter_reduce(0, index, scores.detach(), "amax")
    shifted = scores - top[rows]
    norm = scores.new_zeros(top.shape).index_add(0, rows, shifted.exp())
    log_share = shifted - norm.clamp(min=1e-30).log()[rows]
    total = weights.new_zeros(size).index_add(0, rows, weights)
    wins = weights.new_zeros(size).index_add(0, rows, (weights > 0).to(weights.dtype))
    importance = (wins.clamp(max=_ENOUGH) / _ENOUGH).sqrt()
    share = weights / total[rows].clamp(min=1e-9) * importance[rows]
    return -(log_share.mean(1) * share).sum() / importance.sum().clamp(min=1e-9)


def items_loss(output: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the softmax loss of weighted target items; masked items do not count as wrong."""
    rows, items, weights = batch["target_rows"], batch["target_items"], batch["target_weights"]
    if len(batch["masked_rows"]):
        output = output.index_put(
            (batch["masked_rows"], batch["masked_items"]), output.new_tensor(-math.inf)
        )
    log_share = functional.log_softmax(output, -1)[rows, items]
    total = torch.zeros(len(output), device=output.device).index_add(0, rows, weights)
    return -(log_share * weights / total[rows]).sum() / max(len(output), 1)


def build_head(task: Task, network: Network, items: ItemField | None, next_item: bool) -> Head:
    """Make the head of a task; *next_item* if a recommendation asks for the next event's item."""
    size = network.size
    if task.kind == "regression":
        assert isinstance(task, RegressionTask)
        return AmountHead(task, size.summary, size.dropout)
    if task.kind == "recommendation":
        assert items is not None
        return NextItemHead(items.position, items.size) if next_item else ItemHead(items, network)
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
