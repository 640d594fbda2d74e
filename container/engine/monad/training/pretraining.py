# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Pretraining: predict the next event field by field, and how much happens in coming windows.

The next-event part trains the trunk on every event of whole histories; the future-window part
trains sketch and aggregates at split points, on the summary that scenarios use.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monad.config.time_range import DAY_SECONDS
from monad.data.batches import FUTURE_DAYS, Batch, RowReader, batches_by_length
from monad.data.device import SHAPED, DeviceColumns
from monad.data.representation import Representation
from monad.logs import log_metrics, pretrain_logger
from monad.model.following import Softmax
from monad.model.head import MemberHead
from monad.model.network import Network
from monad.training.budget import BudgetModule
from monad.training.graphs import StepGraphs
from monad.training.sequences import SequenceBatches
from monad.training.streams import Plan

_SIDE_POSITIONS = 1_024  # positions that learn the smaller fields, times and numbers
_GAP_EDGES = (0.5, 3.0, 5.0, 6.5, 7.3, 8.0, 9.0, 9.6, 10.4, 11.2)  # log minutes
_SPLIT_EVERY, _SPLIT_EVERY_GPU = 4, 48  # every so many batches learn future windows
_RANKED = 10


class PretrainHeads(nn.Module):
    """Predictions of the next event's numbers, of its time gap, and of future counts."""

    gap_edges: torch.Tensor

    def __init__(self, representation: Representation, network: Network) -> None:
        super().__init__()
        width = network.size.width
        self.item = representation.item_field()
        self.numbers = min(len(representation.numbers()), 4)
        edges = [torch.tensor(f.edges).float() for f in representation.numbers()[: self.numbers]]
        for i, edge in enumerate(edges):
            self.register_buffer(f"edges_{i}", edge)
        self.number_scores = nn.ModuleList(nn.Linear(width, len(edge) + 1) for edge in edges)
        self.gap = nn.Linear(width, len(_GAP_EDGES) + 1)
        self.register_buffer("gap_edges", torch.tensor(_GAP_EDGES))
        outputs = len(representation.tables) * len(FUTURE_DAYS)
        self.future = MemberHead(outputs, network.size.summary, network.size.dropout)

    def side_loss(
        self,
        network: Network,
        x: torch.Tensor,
        batch: Batch,
        rows: torch.Tensor,
        at: torch.Tensor,
        counted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of smaller fields, numbers and time gaps at some positions.

        With *counted* (N) shapes depend on no values.
        """
        total = x.sum() * 0.0
        for k in network.following.predicted:
            if k != self.item:
                table = network.events.vectors(k)
                codes = batch["codes"][k][rows, at]
                loss = network.following.loss(k, x, table, codes, Softmax(), counted=counted)
                total = total + 0.25 * loss
        for i, score in enumerate(self.number_scores):
            values = batch["numbers"][rows, at, i]
            known = ~torch.isnan(values)
            bins = torch.bucketize(values.nan_to_num(), getattr(self, f"edges_{i}"))
            loss = functional.cross_entropy(score(x), bins, reduction="none")
            total = total + 0.15 * (loss * known).sum() / known.sum().clamp(min=1)
        bins = torch.bucketize(batch["gaps"][rows, at], self.gap_edges)
        return total + 0.25 * functional.cross_entropy(self.gap(x), bins)

    def future_counts(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the loss of log counts in the windows that lie within the training range."""
        found = self.future.member_outputs(network, batch)
        known = batch["future_known"].to(found.dtype)
        wanted = batch["future_counts"][:, None].expand_as(found)
        error = functional.smooth_l1_loss(found, wanted, reduction="none").mean(1)
        return (error * known).sum() / known.sum().clamp(min=1.0)


def next_item_loss(
    network: Network, states: torch.Tensor, batch: Batch, position: int, softmax: Softmax
) -> torch.Tensor:
    """Return the loss of a field's next value at every position that has one."""
    at = batch["followed"]
    x = states.flatten(0, 1).index_select(0, at)
    target = batch["codes"][position].flatten().index_select(0, at + 1)
    table = network.events.vectors(position)
    complete = bool(batch["complete"] >> position & 1)
    return network.following.loss(position, x, table, target, softmax, complete)


def next_item_loss_by_weight(
    network: Network, states: torch.Tensor, batch: Batch, position: int, softmax: Softmax
) -> torch.Tensor:
    """Return what `next_item_loss` does, at all places of a batch, of which some do not count."""
    x = states[:, :-1].flatten(0, 1)
    target = batch["codes"][position][:, 1:].flatten()
    counted = batch["valid"][:, 1:].flatten()
    table = network.events.vectors(position)
    return network.following.loss(position, x, table, target, softmax, counted=counted)


def drawn_positions(length: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw (row, place) of *number* events that another one of their row follows.

    Rows have *length* (B) events. Without any such event the places are the first row's first.
    """
    upto = (length - 1).clamp(min=0).cumsum(0)
    drawn = (torch.rand(number, device=length.device, dtype=torch.float64) * upto[-1]).long()
    row = torch.searchsorted(upto, drawn, right=True).clamp(max=len(length) - 1)
    before = torch.where(row > 0, upto[(row - 1).clamp(min=0)], 0)
    return row, (drawn - before).clamp(min=0)


def last_event_ranks(
    network: Network, states: torch.Tensor, batch: Batch, position: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss and rank of each row's last event, asked at the one before it."""
    at = batch["length"] - 2
    row = torch.arange(len(at), device=at.device)
    scores = network.following.scores(position, states[row, at], network.events.vectors(position))
    target = batch["codes"][position][row, at + 1]
    wanted = scores.gather(1, target[:, None])
    loss = functional.cross_entropy(scores.float(), target, reduction="none")
    return loss, (scores > wanted).sum(-1)


class NextItemModule(BudgetModule):
    """Learns the next value of one field at every position of whole histories.

    It trains recommendations whose target is the next item, and is the base of pretraining.
    """

    def __init__(
        self, network: Network, plan: Plan, position: int, softmax: Softmax, lines: Any
    ) -> None:
        super().__init__(plan, lines)
        self.network = network
        self.position = position
        self.softmax = softmax
        self.side: PretrainHeads | None = None
        self.reader: RowReader | None = None  # of the columns that windows are cut out of
        self._columns: DeviceColumns | None = None
        self.shapes: list[tuple[int, int]] = []  # (rows, length) of shaped batches
        self.graphs: StepGraphs | None = None
        self._replayed = False
        self.last_events = True  # validation asks for last events, not for every position
        self._validated: list[tuple[torch.Tensor, ...]] = []

    def cut_on_device(
        self, reader: RowReader, train: SequenceBatches, checks: SequenceBatches
    ) -> None:
        """Let windows be cut on the device, out of columns that are put there once."""
        if reader.dense:
            return
        self.reader = reader
        train.named = checks.named = True
        train.fix_shapes()
        self.shapes = train.shapes

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to the device, or make there what it names."""
        if "window_begin" not in batch:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        if SHAPED in batch and self.graphs is not None:  # which cut by themselves
            return batch | {
                "length": batch["window_size"],
                "followed": range(batch["num_followed"]),
            }
        return self.columns(device).sequences(batch)

    def columns(self, device: torch.device) -> DeviceColumns:
        """Return the encoded columns on a device."""
        if self._columns is None:
            assert self.reader is not None
            self._columns = DeviceColumns(self.reader, device)
        return self._columns

    def make_graphs(self, device: torch.device, half: torch.dtype | None) -> None:
        """Capture a graph of a step for each shape that batches have."""
        columns = self.columns(device)

        def loss_of(begin: torch.Tensor, size: torch.Tensor, longest: int) -> torch.Tensor:
            return self._loss_by_weight(columns.cut(begin, size, longest))

        trained = [p for p in self.parameters() if p.requires_grad]
        self.graphs = StepGraphs(trained, loss_of, device, half)
        self.graphs.capture(self.shapes)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        if "future_counts" in batch:
            assert self.side is not None
            return 2.0 * self.side.future_counts(self.network, batch)
        self._replayed = self.graphs is not None and SHAPED in batch
        if self._replayed:
            assert self.graphs is not None
            return self.graphs.step(
                batch["window_begin"], batch["window_size"], int(batch["longest"])
            )
        return self._sequence_loss(batch)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Forget gradients, but not those that a graph has already made."""
        if not self._replayed:
            optimizer.zero_grad()

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Make gradients, or take those that a graph has made."""
        if not self._replayed:
            loss.backward(*args, **kwargs)
            return
        assert self.graphs is not None
        self.graphs.give_gradients()
        self._replayed = False

    def _loss_by_weight(self, batch: Batch) -> torch.Tensor:
        """Return what `_sequence_loss` does by operations whose shapes depend on no values."""
        states = self.network.encode(batch)
        total = states.sum() * 0.0
        if self.position >= 0:
            total = next_item_loss_by_weight(
                self.network, states, batch, self.position, self.softmax
            )
        if self.side is not None:
            rows, at = drawn_positions(batch["length"], _SIDE_POSITIONS)
            counted = batch["length"][rows] > at + 1
            x = states[rows, at]
            total = total + self.side.side_loss(
                self.network, x, batch, rows, (at + 1).clamp(max=states.shape[1] - 1), counted
            )
        return total

    def _sequence_loss(self, batch: Batch) -> torch.Tensor:
        states = self.network.encode(batch)
        total = states.sum() * 0.0
        if self.position >= 0:
            total = next_item_loss(self.network, states, batch, self.position, self.softmax)
        if self.side is not None:
            flat = batch["followed"]
            if len(flat) > _SIDE_POSITIONS:
                flat = flat[torch.randint(len(flat), (_SIDE_POSITIONS,), device=flat.device)]
            rows, at = flat // states.shape[1], flat % states.shape[1]
            if len(rows):
                x = states[rows, at]
                total = total + self.side.side_loss(self.network, x, batch, rows, at + 1)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the losses of a validation batch."""
        if self.last_events and self.position >= 0:
            states = self.network.encode(batch)
            found = last_event_ranks(self.network, states, batch, self.position)
            self._validated.append(found)
        else:
            loss = self._sequence_loss(batch)
            self._validated.append((loss.repeat(len(batch["length"])),))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        made = {"val_loss": float(torch.cat([found[0] for found in self._validated]).mean())}
        if len(self._validated[0]) > 1:
            ranks = torch.cat([found[1] for found in self._validated]).float()
            gains = torch.where(ranks < _RANKED, 1.0 / torch.log2(ranks + 2.0), 0.0)
            made[f"val_ndcg@{_RANKED}"] = float(gains.mean())
        self._validated = []
        self.validation_done()
        for name, value in made.items():
            self.log(name, value)
        text = ", ".join(f"{name} {value:.4f}" for name, value in made.items())
        log_metrics(self.lines, f"Validation: {text}", {"step": self.global_step, **made})


class PretrainModule(NextItemModule):
    """Lightning module of pretraining."""

    def __init__(
        self, network: Network, heads: PretrainHeads, plan: Plan, softmax: Softmax
    ) -> None:
        super().__init__(network, plan, heads.item, softmax, pretrain_logger)
        self.heads = heads
        self.side = heads


class SplitBatches:
    """Rows at random split points with the counts of the windows that follow."""

    def __init__(
        self, reader: RowReader, entities: np.ndarray, end: int, rows: int, tokens: int
    ) -> None:
        self.reader = reader
        self.end = end
        self.rows = rows
        self.tokens = tokens
        begin, stop = reader.bounds(entities, np.full(len(entities), end))
        keep = stop - begin > 1
        self.entities, self.begin = entities[keep], begin[keep]
        self.counts = (stop - begin)[keep]

    def epoch(self, seed: tuple[int, int]) -> Iterator[Batch]:
        """Yield batches whose split points mostly leave a known 30-day window."""
        random = np.random.default_rng(seed)
        times = self.reader.store.stream.times
        place = self.begin + random.integers(1, np.maximum(self.counts, 2))
        late = random.random(len(place)) < 0.5
        place = np.where(late, self.begin + self.counts - 1, place)
        wait = (random.random(len(place)) ** 2 * 30 * DAY_SECONDS).astype(np.int64)
        stamps = np.minimum(np.asarray(times[place]) + wait, self.end)
        known = np.minimum(stamps, self.end - FUTURE_DAYS[-1] * DAY_SECONDS)
        stamps = np.where(known > np.asarray(times[self.begin]), known, stamps)
        lengths = self.reader.lengths(self.entities, stamps)
        for chosen in batches_by_length(lengths, self.tokens, self.rows, random):
            yield self.read(self.entities[chosen], stamps[chosen])

    def read(self, entities: np.ndarray, stamps: np.ndarray) -> Batch:
        """Return one batch with its future counts."""
        batch = self.reader.read(entities, stamps)
        counts, known = self.reader.future_counts(entities, stamps, self.end)
        batch["future_counts"], batch["future_known"] = counts, known
        return batch


def mixed(
    sequences: SequenceBatches,
    splits: SplitBatches,
    seed: int,
    epoch: int,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield one epoch of histories with a batch of split points after every few of them."""
    return islice(_mixed(sequences, splits, seed, epoch), skip, None)


def _mixed(
    sequences: SequenceBatches, splits: SplitBatches, seed: int, epoch: int
) -> Iterator[Batch]:
    others = splits.epoch((seed + 1, epoch))
    for number, batch in enumerate(sequences.epoch((seed, epoch))):
        yield batch
        # Split points are read on the CPU, so a GPU gets them less often, not to wait for them.
        every = _SPLIT_EVERY_GPU if sequences.named else _SPLIT_EVERY
        if number % every == every - 1:
            following = next(others, None)
            if following is not None:
                yield following
