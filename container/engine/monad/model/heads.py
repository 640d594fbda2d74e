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
from monad.model.amounts import AmountHead
from monad.model.head import Head, Known, MemberHead, logistic
from monad.model.layers import last_linear, mlp
from monad.model.network import Network
from monad.model.panel import MemberOutputs, Panel
from monad.tasks import RegressionTask, Task

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


class ScoreHead(MemberHead):
    """Logits for binary, multi-class and multilabel tasks."""

    def __init__(
        self, kind: str, outputs: int, width: int, dropout: float, outcomes: int = 0
    ) -> None:
        super().__init__(outputs, width, dropout, outcomes)
        self.kind = kind
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

    def start_from(
        self,
        targets: np.ndarray,
        known: Known | None = None,  # noqa: ARG002
    ) -> None:
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

    It has no weights beside the network's, which learns at every event instead of once a row.
    """

    def __init__(self, item_position: int) -> None:
        super().__init__()
        self.item_position = item_position
        self.register_buffer("first", torch.tensor(FIRST))

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return a score for every item (B, N)."""
        table = network.events.vectors(self.item_position)
        states = network.last_states(batch)
        scores = network.following.scores(self.item_position, states, table)
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
    size, outcomes = network.size, network.panel.outlook.outputs
    if task.kind == "regression":
        assert isinstance(task, RegressionTask)
        return AmountHead(task, size.summary, size.dropout, outcomes)
    if task.kind == "recommendation":
        assert items is not None
        return NextItemHead(items.position) if next_item else ItemHead(items, network)
    return ScoreHead(task.kind, task.num_outputs, size.summary, size.dropout, outcomes)


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
