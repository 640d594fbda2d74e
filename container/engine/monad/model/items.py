"""Heads of recommendations: scores of items from pair features, or the network's own scores."""

import dataclasses
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import Batch
from monad.data.fields import FIRST
from monad.model.followers import Followers
from monad.model.head import Head, Known
from monad.model.network import Network
from monad.model.panel import MemberOutputs, Panel

# Where training begins: own items by how often they were taken, then what sells and goes with them.
_MOST_BOUGHT = {"days": 0.3, "lines": 0.15, "day_share": 0.15, "sold_30": 0.1, "near_2": 0.1}
_WIDTH, _DROPOUT, _MEMBERS = 64, 0.1, 4
_ENOUGH = 12.0  # wanted candidates from which on a row counts in full
_BOUND = 4.0
_POPULARITY, _EXPECTED = 0.3, 0.3  # in the order of items that are no candidates
_BELOW = 1.0  # by how much items that are no candidates lie below those that are
_MEAN_PLACE, _PLACE_DEVIATION = 3.5, 1.25  # of the logarithm of a place among candidates
# What is also seen as a place among the row's candidates, and not only by its size.
_COMPARED = (
    *("days", "last", "overdue", "day_share", "days_90", "decayed_15", "decayed_60"),
    *("visits_1.5", "visits_4", "since_first", "near_0", "near_1", "near_2", "near_3"),
    *("lately", "next", "alike", "forecast", "sold_7", "sold_30", "again_30", "adopted_30"),
    *("sales_7", "sales_21"),
)


@dataclasses.dataclass
class ItemField:
    """The field that recommendations are about, and the features of pairs and items."""

    position: int
    size: int
    names: list[str]
    pair_features: int
    item_features: int


class ItemHead(Head):
    """Score of every item: a ranker of candidate pairs, and a plain formula for the others.

    Several members score the pairs, as in the aggregates' branch; their mean counts. A pair is
    seen with its features, those of the item, and the places that the main ones have among the
    row's candidates. Items that are no candidates follow by popularity and by what the network
    expects next, so that any number of items can be asked for. What the network expects is no input of the
    ranker: it has been pretrained on the very events that training rows ask for.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, items: ItemField, network: Network) -> None:
        super().__init__()
        self.position = items.position
        self.pair_features = items.pair_features
        inputs = items.pair_features + items.item_features
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.popular = items.names.index("sold_30") - items.pair_features
        self.compared = [items.names.index(name) for name in _COMPARED]
        width = inputs + len(self.compared)
        self.pair = Panel([0.0] * width, [1.0] * width, _WIDTH, _DROPOUT, _MEMBERS)
        self.pair_score = MemberOutputs(_WIDTH, 1, _MEMBERS)
        self.linear = nn.Linear(width, 1, bias=False)
        self.next_known = items.position in network.following.predicted
        with torch.no_grad():
            self.pair_score.weight.mul_(0.1)
            self.linear.weight.zero_()
            for name, weight in _MOST_BOUGHT.items():
                if name in items.names:
                    self.linear.weight[0, items.names.index(name)] = weight

    def start_from(self, targets: np.ndarray, known: Known | None = None) -> None:  # noqa: ARG002
        """Scale the features by a sample of training pairs (rows, pair and item features)."""
        self.mean.copy_(torch.from_numpy(targets.mean(0)))
        self.deviation.copy_(torch.from_numpy(targets.std(0)).clamp(min=1e-2))

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return a score for every item (B, N); in training every member's of the pairs (P, K)."""
        rows, which = batch["pair_rows"], batch["pair_items"]
        pairs = batch["pair_features"]
        if batch.get("gates") is not None:
            pairs = pairs * batch["gates"].pairs[:, None]
        scores = self._scores(pairs, batch["item_features"], rows, which, len(batch["length"]))
        if self.training:
            return scores
        found = scores.mean(1).float()
        lowest = found.new_full((len(batch["length"]),), math.inf)
        lowest = lowest.scatter_reduce(0, rows, found.detach(), "amin")
        lowest = torch.where(lowest.isinf(), 0.0, lowest)
        full = self._outside(network, batch) + lowest[:, None] - _BELOW
        return full.index_put((rows, which), found)

    def _scores(
        self,
        pairs: torch.Tensor,
        items: torch.Tensor,
        rows: torch.Tensor,
        which: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        cut = self.pair_features
        scaled_items = (items - self.mean[cut:]) / self.deviation[cut:]
        scaled = (pairs - self.mean[:cut]) / self.deviation[:cut]
        plain = torch.cat([scaled, scaled_items[which]], -1).clamp(-_BOUND, _BOUND)
        with torch.no_grad():
            places = order_among(plain[:, self.compared], rows, size)
        joined = torch.cat([plain, places], -1)
        return self.pair_score(self.pair(joined)).squeeze(-1) + self.linear(joined)

    def _outside(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the order of items that are no candidates (B, N), as numbers below zero.

        Popularity and what the pretrained network expects next; the network is not read where
        histories are left out.
        """
        items, cut = batch["item_features"], self.pair_features + self.popular
        sold = (items[:, self.popular] - self.mean[cut]) / self.deviation[cut]
        made = _POPULARITY * sold.clamp(-_BOUND, _BOUND)[None]
        if self.next_known and "codes" in batch:
            table = network.events.vectors(self.position)
            states = network.last_states(batch)
            scores = network.following.scores(self.position, states, table).float()
            made = made + _EXPECTED * torch.log_softmax(scores, -1)
        made = made.expand(len(batch["length"]), -1)
        blocked = torch.zeros_like(made[0])
        blocked[:FIRST] = -math.inf
        return made - made[:, FIRST:].amax(1, keepdim=True) + blocked

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss of the order of each row's candidates.

        What an entity takes that is no candidate does not count: most of it cannot be told, and
        learning to try would cost the order of what can.
        """
        if not self.training:
            output = output[batch["pair_rows"], batch["pair_items"]][:, None]
        return candidate_loss(output, batch)

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        return output.numpy()


def order_among(values: torch.Tensor, rows: torch.Tensor, size: int) -> torch.Tensor:
    """Return the logarithm of how many values of the same row are larger, about standardized.

    Rows do not decrease. Equal values have equal places.
    """
    counts = torch.bincount(rows, minlength=size)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    longest = int(counts.max()) if len(counts) else 0
    padded = values.new_full((size, longest, values.shape[1]), math.inf)
    padded = padded.index_put((rows, place), -values).transpose(1, 2).contiguous()
    larger = torch.searchsorted(padded.sort(-1).values, padded)
    found = larger.transpose(1, 2)[rows, place]
    return (torch.log1p(found.to(values.dtype)) - _MEAN_PLACE) / _PLACE_DEVIATION


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


def candidate_loss(members: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the softmax loss over each row's candidates, for members' scores (P, K)."""
    rows, items = batch["pair_rows"], len(batch["item_features"])
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
