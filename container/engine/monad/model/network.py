"""The network: event embeddings -> trunk, beside an additive sketch and causal aggregates.

`Network.forward` returns the state of every event and one summary per row; heads read those.
"""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from monad.data.batches import BAG_DECAY_DAYS, Batch, sketched_fields
from monad.data.representation import Representation
from monad.model.following import Following
from monad.model.layers import Block, PiecewiseLinear, mlp, rotary
from monad.model.panel import Panel

_PANEL_DROPOUT = 0.25


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


def _padded(rows: list[list[float]]) -> torch.Tensor:
    longest = max((len(row) for row in rows), default=2)
    return torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows]).float()


class EventEncoder(nn.Module):
    """Sum of field embeddings: categories, numbers, source, time gap and calendar."""

    def __init__(self, representation: Representation, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.Embedding(field.size, width, padding_idx=0) for field in representation.categories()
        )
        numbers = representation.numbers()
        self.piecewise = PiecewiseLinear(_padded([f.edges for f in numbers])) if numbers else None
        if self.piecewise is not None:
            self.numbers = nn.Linear(len(numbers) * self.piecewise.width, width, bias=False)
        self.source = nn.Embedding(len(representation.tables), width)
        self.weekday = nn.Embedding(7, width)
        self.hour = nn.Embedding(24, width)
        self.gap = mlp(2, width, width, 0.0)
        for table in [*self.tables, self.source, self.weekday, self.hour]:
            nn.init.normal_(table.weight, std=width**-0.5)
        self.norm = nn.LayerNorm(width)

    def vectors(self, position: int) -> torch.Tensor:
        """Return the embedding vectors of a categorical field's values."""
        table = self.tables[position]
        assert isinstance(table, nn.Embedding)
        return table.weight

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D) event embeddings."""
        x = self.source(batch["source"]) + self.weekday(batch["weekday"]) + self.hour(batch["hour"])
        gaps = batch["gaps"]
        x = x + self.gap(torch.stack([gaps / 5.0, (gaps == 0).to(gaps.dtype)], dim=-1))
        for table, codes in zip(self.tables, batch["codes"], strict=True):
            x = x + table(codes)
        if self.piecewise is not None:
            x = x + self.numbers(self.piecewise(batch["numbers"]).flatten(-2))
        return self.norm(x)


class Network(nn.Module):
    """Trunk, sketch, aggregates and attributes, fused into one summary per row."""

    def __init__(self, representation: Representation, size: Size) -> None:
        super().__init__()
        self.size = size
        self.frozen = False  # scenarios of few entities read the trunk as it was pretrained
        width = size.width
        self.events = EventEncoder(representation, width)
        self.blocks = nn.ModuleList(
            Block(width, size.heads, size.dropout) for _ in range(size.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.input_dropout = nn.Dropout(size.dropout)
        categories = representation.categories()
        self.following = Following(categories, width)
        self.sketched = sketched_fields(categories, size.sketch_fields)
        bag = max(len(self.sketched), 1) * len(BAG_DECAY_DAYS) * width
        self.bag = mlp(bag, width, width, size.dropout)
        self.panel = Panel(
            representation.mean, representation.deviation, size.summary, _PANEL_DROPOUT
        )
        self._build_attributes(representation, width)
        parts = 2 * width + size.summary + (width if self.has_attributes else 0)
        self.fuse = nn.Sequential(
            nn.Linear(parts, size.summary), nn.SiLU(), nn.Dropout(size.dropout)
        )

    def _build_attributes(self, representation: Representation, width: int) -> None:
        fields = representation.attributes
        self.has_attributes = bool(fields)
        self.attribute_tables = nn.ModuleList(
            nn.Embedding(field.size, width, padding_idx=0)
            for field in fields
            if field.kind == "category"
        )
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
        for block in self.blocks:
            x = block(x, cosines, sines)
        return self.norm(x)

    def _rotary(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, sines = rotary(x.shape[1], x.shape[2] // self.size.heads, x.device)
        return cosines.to(x.dtype), sines.to(x.dtype)

    def members(self, batch: Batch) -> torch.Tensor:
        """Return the states of the aggregates' members (B, K, S)."""
        return self.panel(batch["aggregates"])

    def _sketch(self, batch: Batch) -> torch.Tensor:
        rows = len(batch["length"])
        if not self.sketched:
            return batch["aggregates"].new_zeros(rows, self.bag[0].in_features)
        parts: list[Any] = []
        for position, codes in zip(self.sketched, batch["bag_codes"], strict=True):
            table = self.events.vectors(position)
            parts += [
                functional.embedding_bag(
                    codes,
                    table,
                    batch["bag_starts"],
                    mode="sum",
                    per_sample_weights=weights.to(table.dtype),
                )
                for weights in batch["bag_weights"]
            ]
        return torch.cat(parts, dim=-1)

    def _attributes(self, batch: Batch) -> torch.Tensor:
        x = self.source_of_zero(batch)
        for i, table in enumerate(self.attribute_tables):
            x = x + table(batch["attribute_codes"][:, i])
        if self.attribute_piecewise is not None:
            encoded = self.attribute_piecewise(batch["attribute_numbers"]).flatten(-2)
            x = x + self.attribute_numbers(encoded)
        return x

    def source_of_zero(self, batch: Batch) -> torch.Tensor:
        """Return zeros of (B, D) on the batch's device."""
        return batch["aggregates"].new_zeros(len(batch["length"]), self.size.width)
