"""The network: event embeddings -> trunk, beside an additive sketch and causal aggregates.

`Network.forward` returns the state of every event and one summary per row; heads read those.
"""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import BAG_DECAY_DAYS, Batch, sketched_fields
from monad.data.fields import Field
from monad.data.outlook import outlook_size
from monad.data.representation import Representation
from monad.model.dense import DenseFields
from monad.model.following import Following
from monad.model.gates import (
    attribute_gated,
    attribute_numbers_gated,
    event_gated,
    numbers_gated,
)
from monad.model.layers import Block, Dropout, PiecewiseLinear, mlp, rotary
from monad.model.panel import Panel

_PANEL_DROPOUT = 0.25
_TIME_SCALE = 1.0


@dataclasses.dataclass
class Size:
    """The size of a network."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    summary: int = 128
    dropout: float = 0.1
    max_events: int = 64
    sketch_fields: int = 2


def zip_tables(fields: list[Field], tables: nn.ModuleList) -> list[tuple[str, nn.Module]]:
    """Return pairs of shared entity and its embedding table."""
    return [(f.shared, t) for f, t in zip(fields, tables, strict=True) if f.shared]


def field_tables(
    fields: list[Field], width: int, known: dict[str, nn.Module] | None = None
) -> nn.ModuleList:
    """Return an embedding table for each category; fields of a shared entity have one in common."""
    shared = dict(known or {})
    made = nn.ModuleList()
    for field in fields:
        table = shared.get(field.shared) if field.shared else None
        if table is None:
            table = nn.Embedding(field.size, width, padding_idx=0)
        if field.shared:
            shared[field.shared] = table
        made.append(table)
    return made


def _padded(rows: list[list[float]]) -> torch.Tensor:
    longest = max((len(row) for row in rows), default=2)
    return torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows]).float()


def _looked_up(table: nn.Embedding, codes: torch.Tensor) -> torch.Tensor:
    """Return the rows of a small table.

    On a GPU the gradient of many lookups of few rows is slow, that of a product is not.
    """
    if not codes.is_cuda:
        return table(codes)
    if table.num_embeddings == 1:
        return table.weight.expand(*codes.shape, -1)
    rows = torch.arange(table.num_embeddings, device=codes.device)
    return (codes[..., None] == rows).to(table.weight.dtype) @ table.weight


class EventEncoder(nn.Module):
    """Sum of field embeddings: categories, numbers, source, time gap and calendar."""

    def __init__(self, representation: Representation, width: int) -> None:
        super().__init__()
        self.tables = field_tables(representation.categories(), width)
        self.dense = DenseFields(representation.dense(), width)
        numbers = representation.numbers()
        self.piecewise = PiecewiseLinear(_padded([f.edges for f in numbers])) if numbers else None
        if self.piecewise is not None:
            self.numbers = nn.Linear(len(numbers) * self.piecewise.width, width, bias=False)
        self.source = nn.Embedding(len(representation.tables), width)
        self.weekday = nn.Embedding(7, width)
        self.hour = nn.Embedding(24, width)
        self.gap = mlp(2, width, width, 0.0)
        for position in range(len(self.tables)):
            nn.init.normal_(self.vectors(position), std=width**-0.5)
        for table in (self.source, self.weekday, self.hour):
            nn.init.normal_(table.weight, std=_TIME_SCALE * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.num_numbers = len(numbers)
        # gates: also time and source
        self.num_inputs = len(self.tables) + len(numbers) + len(self.dense) + 2

    def vectors(self, position: int) -> torch.Tensor:
        """Return the embedding vectors of a categorical field's values."""
        table = self.tables[position]
        assert isinstance(table, nn.Embedding)
        return table.weight

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D) event embeddings."""
        gaps = batch["gaps"]
        when = _looked_up(self.weekday, batch["weekday"]) + _looked_up(self.hour, batch["hour"])
        when = when + self.gap(torch.stack([gaps / 5.0, (gaps == 0).to(gaps.dtype)], dim=-1))
        x = event_gated(when, batch, -2)
        x = x + event_gated(_looked_up(self.source, batch["source"]), batch, -1)
        for position, table in enumerate(self.tables):
            x = x + event_gated(table(batch["codes"][position]), batch, position)
        if self.piecewise is not None:
            encoded = self.piecewise(batch["numbers"])
            encoded = numbers_gated(encoded, batch, len(self.tables))
            x = x + self.numbers(encoded.flatten(-2))
        first = len(self.tables) + self.num_numbers
        for i, contribution in enumerate(self.dense.contributions(batch, "dense")):
            x = x + event_gated(contribution, batch, first + i)
        return self.norm(x)


def _through(
    block: nn.Module, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
) -> torch.Tensor:
    return block(x, cosines, sines)


def compiled_through() -> Any:
    """Return a layer's step compiled for any length and number of rows."""
    return torch.compile(_through, dynamic=True)


class Network(nn.Module):
    """Trunk, sketch, aggregates and attributes, fused into one summary per row."""

    def __init__(self, representation: Representation, size: Size) -> None:
        super().__init__()
        self.size = size
        self.through: Any = None  # what takes a layer's step in training, such as a compiled one
        self.frozen = False  # scenarios of few entities read the trunk as it was pretrained
        width = size.width
        self.events = EventEncoder(representation, width)
        self.blocks = nn.ModuleList(
            Block(width, size.heads, size.dropout) for _ in range(size.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.input_dropout = Dropout(size.dropout)
        categories = representation.categories()
        self.following = Following(categories, width)
        self.sketched = sketched_fields(categories, size.sketch_fields)
        bag = max(len(self.sketched), 1) * len(BAG_DECAY_DAYS) * width
        self.bag = mlp(bag, width, width, size.dropout)
        self.panel = Panel(
            representation.mean,
            representation.deviation,
            size.summary,
            _PANEL_DROPOUT,
            outcomes=outlook_size(representation.aggregates),
        )
        self._build_attributes(representation, width)
        parts = 2 * width + size.summary + (width if self.has_attributes else 0)
        self.fuse = nn.Sequential(
            nn.Linear(parts, size.summary), nn.SiLU(), nn.Dropout(size.dropout)
        )

    def _build_attributes(self, representation: Representation, width: int) -> None:
        fields = representation.attributes
        self.has_attributes = bool(fields)
        self.num_attributes = len(fields)
        self.attribute_tables = field_tables(
            [field for field in fields if field.kind == "category"],
            width,
            dict(zip_tables(representation.categories(), self.events.tables)),
        )
        dense = [field for field in fields if field.kind in ("text", "vector")]
        self.attribute_dense = DenseFields(dense, width)
        numbers = [field.edges for field in fields if field.kind == "number"]
        self.attribute_piecewise = PiecewiseLinear(_padded(numbers)) if numbers else None
        if self.attribute_piecewise is not None:
            self.attribute_numbers = nn.Linear(len(numbers) * self.attribute_piecewise.width, width)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states (B, T, D) and summaries (B, S)."""
        states = self.encode(batch)
        last = (batch["length"] - 1).clamp(min=0)
        pooled = states[torch.arange(len(last), device=last.device), last]
        return states, self.summary_of(pooled, batch)

    def summarize(self, batch: Batch) -> torch.Tensor:
        """Return the summaries of `forward` (B, S); the last layer works on last events only."""
        return self.read(batch)[1]

    def read(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each row's last state and its summary; without gradients when frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            states = self.last_states(batch)
            return states, self.summary_of(states, batch)

    def last_states(self, batch: Batch) -> torch.Tensor:
        """Return the state after each row's last event (B, D); zero for rows without events."""
        x = self.input_dropout(self.events(batch))
        cosines, sines = self._rotary(x)
        for block in self.blocks[:-1]:
            x = block(x, cosines, sines)
        last = (batch["length"] - 1).clamp(min=0)
        final = self.blocks[-1]
        assert isinstance(final, Block)
        pooled = self.norm(final.last(x, cosines, sines, last))
        return pooled * (batch["length"] > 0)[:, None]

    def summary_of(self, pooled: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the summaries of rows whose last states are known."""
        pooled = pooled * (batch["length"] > 0)[:, None]
        parts = [pooled, self.bag(self._sketch(batch)), self.members(batch).mean(1)]
        if self.has_attributes:
            parts.append(self._attributes(batch))
        return self.fuse(torch.cat(parts, dim=-1))

    def encode(self, batch: Batch) -> torch.Tensor:
        """Return the trunk's state after each event."""
        x = self.input_dropout(self.events(batch))
        cosines, sines = self._rotary(x)
        through = self.through if self.training and self.through is not None else _through
        for block in self.blocks:
            x = through(block, x, cosines, sines)
        return self.norm(x)

    def _rotary(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, sines = rotary(x.shape[1], x.shape[2] // self.size.heads, x.device)
        return cosines.to(x.dtype), sines.to(x.dtype)

    def members(self, batch: Batch) -> torch.Tensor:
        """Return the states of the aggregates' members (B, K, S)."""
        aggregates = batch["aggregates"]
        if batch.get("gates") is not None:
            mean = self.panel.mean
            aggregates = mean + batch["gates"].aggregates * (aggregates - mean)
        return self.panel(aggregates)

    def _sketch(self, batch: Batch) -> torch.Tensor:
        rows = len(batch["length"])
        if not self.sketched:
            return batch["aggregates"].new_zeros(rows, self.bag[0].in_features)
        parts: list[Any] = []
        gates = batch.get("gates")
        for i, position in enumerate(self.sketched):
            codes, table = batch["bag_codes"][i], self.events.vectors(position)
            gate = 1.0 if gates is None else gates.bags[i]
            parts += [
                functional.embedding_bag(
                    codes,
                    table,
                    batch["bag_starts"],
                    mode="sum",
                    per_sample_weights=(weights * gate).to(table.dtype),
                )
                for weights in batch["bag_weights"]
            ]
        return torch.cat(parts, dim=-1)

    def _attributes(self, batch: Batch) -> torch.Tensor:
        x = self.source_of_zero(batch)
        for i, table in enumerate(self.attribute_tables):
            x = x + attribute_gated(table(batch["attribute_codes"][:, i]), batch, i)
        if self.attribute_piecewise is not None:
            encoded = self.attribute_piecewise(batch["attribute_numbers"])
            encoded = attribute_numbers_gated(encoded, batch, len(self.attribute_tables))
            x = x + self.attribute_numbers(encoded.flatten(-2))
        first = self.num_attributes - len(self.attribute_dense)
        for i, contribution in enumerate(
            self.attribute_dense.contributions(batch, "attribute_dense")
        ):
            x = x + attribute_gated(contribution, batch, first + i)
        return x

    def source_of_zero(self, batch: Batch) -> torch.Tensor:
        """Return zeros of (B, D) on the batch's device."""
        return batch["aggregates"].new_zeros(len(batch["length"]), self.size.width)
