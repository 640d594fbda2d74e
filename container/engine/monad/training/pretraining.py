# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Pretraining: predict the next event field by field, and how much happens in coming windows.

The next-event part trains the trunk on every event; the future-window part trains sketch and
aggregates at the split point, on the summary that scenarios use.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.config.time_range import DAY_SECONDS
from monad.data.batches import FUTURE_DAYS, Batch, RowReader, batches_by_length
from monad.data.representation import FIRST, Representation
from monad.logs import log_metrics, pretrain_logger
from monad.model.layers import mlp
from monad.model.network import Network
from monad.training.loop import BudgetModule, Plan

FULL_SOFTMAX_ITEMS = 8_000
_NEGATIVES = 1_024
_POSITIONS = 2_048
_GAP_EDGES = (0.5, 3.0, 5.0, 6.5, 7.3, 8.0, 9.0, 9.6, 10.4, 11.2)  # log minutes


class PretrainHeads(nn.Module):
    """Predictions of the next event's fields, of its time gap, and of future counts."""

    gap_edges: torch.Tensor

    def __init__(self, representation: Representation, network: Network) -> None:
        super().__init__()
        width = network.size.width
        categories = representation.categories()
        order = sorted(range(len(categories)), key=lambda k: -categories[k].size)
        self.predicted = sorted(order[:4])
        self.largest = order[0] if order else -1
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in self.predicted)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(categories[k].size)) for k in self.predicted
        )
        self.numbers = min(len(representation.numbers()), 4)
        edges = [torch.tensor(f.edges).float() for f in representation.numbers()[: self.numbers]]
        for i, edge in enumerate(edges):
            self.register_buffer(f"edges_{i}", edge)
        self.number_scores = nn.ModuleList(nn.Linear(width, len(edge) + 1) for edge in edges)
        self.gap = nn.Linear(width, len(_GAP_EDGES) + 1)
        self.register_buffer("gap_edges", torch.tensor(_GAP_EDGES))
        outputs = len(representation.tables) * len(FUTURE_DAYS)
        self.future = mlp(network.size.summary, network.size.summary, outputs, 0.0)

    def next_event(self, network: Network, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the next-event loss over a sample of positions."""
        follows = batch["valid"][:, 1:]
        spots = follows.nonzero()
        if not len(spots):
            return states.sum() * 0.0
        if len(spots) > _POSITIONS:
            spots = spots[torch.randperm(len(spots), device=spots.device)[:_POSITIONS]]
        rows, at = spots[:, 0], spots[:, 1]
        x = states[rows, at]
        total = x.sum() * 0.0
        for query, bias, k in zip(self.queries, self.biases, self.predicted, strict=True):
            table = network.events.vectors(k)
            weight = 1.0 if k == self.largest else 0.25
            loss = _softmax_loss(query(x), table, bias, batch["codes"][k][rows, at + 1])
            total = total + weight * loss
        for i, score in enumerate(self.number_scores):
            values = batch["numbers"][rows, at + 1, i]
            known = ~torch.isnan(values)
            if known.any():
                bins = torch.bucketize(values[known], getattr(self, f"edges_{i}"))
                total = total + 0.15 * functional.cross_entropy(score(x[known]), bins)
        bins = torch.bucketize(batch["gaps"][rows, at + 1], self.gap_edges)
        return total + 0.25 * functional.cross_entropy(self.gap(x), bins)

    def future_counts(self, summary: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of log counts in the windows that lie within the training range."""
        known = batch["future_known"].to(summary.dtype)
        error = functional.smooth_l1_loss(
            self.future(summary), batch["future_counts"], reduction="none"
        )
        return (error * known).sum() / known.sum().clamp(min=1.0)


def _softmax_loss(
    query: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Full softmax for small catalogues, shared uniform negatives for large ones."""
    known = target >= FIRST - 1  # absent fields of other sources are not predicted
    if not known.any():
        return query.sum() * 0.0
    query, target = query[known], target[known]
    if len(table) <= FULL_SOFTMAX_ITEMS:
        return functional.cross_entropy(functional.linear(query, table, bias), target)
    negatives = torch.randint(FIRST, len(table), (_NEGATIVES,), device=query.device)
    positive = (query * table[target]).sum(-1) + bias[target]
    shift = math.log((len(table) - FIRST) / _NEGATIVES)
    other = functional.linear(query, table[negatives], bias[negatives]) + shift
    other = other.masked_fill(negatives[None, :] == target[:, None], -math.inf)
    scores = torch.cat([positive[:, None], other], dim=1)
    return functional.cross_entropy(scores, torch.zeros_like(target))


class PretrainModule(BudgetModule):
    """Lightning module of pretraining."""

    def __init__(self, network: Network, heads: PretrainHeads, plan: Plan) -> None:
        super().__init__(plan, pretrain_logger)
        self.network = network
        self.heads = heads
        self._validated: list[tuple[float, float, int]] = []

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        states, summary = self.network(batch)
        return (
            self.heads.next_event(self.network, states, batch),
            self.heads.future_counts(summary, batch),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        following, future = self._losses(batch)
        return following + 2.0 * future

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the losses of a validation batch."""
        following, future = self._losses(batch)
        self._validated.append((float(following), float(future), len(batch["length"])))

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss."""
        rows = sum(item[2] for item in self._validated) or 1
        following = sum(item[0] * item[2] for item in self._validated) / rows
        future = sum(item[1] * item[2] for item in self._validated) / rows
        self._validated = []
        self.validation_done()
        self.log("val_loss", following + 2.0 * future)
        log_metrics(
            pretrain_logger,
            f"Validation: loss {following + 2 * future:.4f}, next event {following:.4f},"
            f" future counts {future:.4f}",
            {
                "step": self.global_step,
                "val_loss": following + 2 * future,
                "val_next_event": following,
                "val_future": future,
            },
        )


class PretrainBatches:
    """Makes pretraining batches: one or more random split points per entity and epoch."""

    def __init__(
        self,
        reader: RowReader,
        entities: np.ndarray,
        end: int,
        tokens: int,
        seed: int,
        per_entity: int = 1,
    ) -> None:
        self.reader = reader
        self.end = end
        self.tokens = tokens
        self.seed = seed
        positions = [t.position(entities, np.full(len(entities), end)) for t in reader.store.tables]
        counts = sum(
            p - t.offsets[entities] for p, t in zip(positions, reader.store.tables, strict=True)
        )
        keep = np.asarray(counts) > 1
        self.entities = np.repeat(entities[keep], per_entity)
        self.counts = np.repeat(np.asarray(counts)[keep], per_entity)

    def num_batches(self) -> int:
        """Estimate the number of batches of an epoch."""
        return max(int(np.ceil(self.total_events() / self.tokens / 0.75)), 1)

    def total_events(self) -> float:
        """Return the number of events that an epoch reads at most."""
        return float(np.minimum(self.counts, self.reader.max_events).sum())

    def epoch(self, epoch: int, rows: int = 256, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, without the first *skip*."""
        random = np.random.default_rng((self.seed, epoch))
        stream = self.reader.store.stream
        begin = stream.offsets[self.entities]
        # The split point falls on an event or up to a month after it, within the range.
        place = begin + random.integers(1, np.maximum(self.counts, 2))
        late = random.random(len(place)) < 0.5
        place = np.where(late, begin + self.counts - 1, place)
        wait = (random.random(len(place)) ** 2 * 30 * DAY_SECONDS).astype(np.int64)
        stamps = np.minimum(np.asarray(stream.times[place]) + wait, self.end)
        # Half of the rows of the first kind keep a known 30-day window.
        known = np.minimum(stamps, self.end - FUTURE_DAYS[-1] * DAY_SECONDS)
        stamps = np.where(known > np.asarray(stream.times[begin]), known, stamps)
        lengths = self.reader.lengths(self.entities, stamps)
        for chosen in batches_by_length(lengths, self.tokens, rows, random)[skip:]:
            yield self.read(self.entities[chosen], stamps[chosen])

    def read(self, entities: np.ndarray, stamps: np.ndarray) -> dict[str, Any]:
        """Return one batch with its future counts."""
        batch = self.reader.read(entities, stamps)
        counts, known = self.reader.future_counts(entities, stamps, self.end)
        batch["future_counts"], batch["future_known"] = counts, known
        return batch
