"""Embeds text n-grams and user-supplied vectors; one module for the columns of one kind of row."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from monad.data.fields import TEXT, Field


class DenseFields(nn.Module):
    """Turns each dense column's distinct values into vectors of the network's width."""

    def __init__(self, fields: list[Field], width: int) -> None:
        super().__init__()
        self.kinds = [field.kind for field in fields]
        self.parts = nn.ModuleList()
        for field in fields:
            if field.kind == TEXT:
                table = nn.Embedding(field.buckets, width)
                nn.init.normal_(table.weight, std=width**-0.5)
                self.parts.append(table)
            else:
                self.parts.append(nn.Linear(len(field.center), width))

    def __len__(self) -> int:
        return len(self.kinds)

    def contributions(self, batch: dict[str, Any], prefix: str) -> list[torch.Tensor]:
        """Return each column's contribution, shaped as its index with the width added."""
        made = []
        for i, (kind, part) in enumerate(zip(self.kinds, self.parts, strict=True)):
            values, index = batch[f"{prefix}_values"][i], batch[f"{prefix}_index"][i]
            if kind == TEXT:
                assert isinstance(part, nn.Embedding)
                starts = batch[f"{prefix}_starts"][i]
                if not len(starts):
                    vectors = part.weight[:0]
                    made.append(torch.cat([vectors.new_zeros(1, vectors.shape[1])])[index])
                    continue
                vectors = functional.embedding_bag(values, part.weight, starts, mode="mean")
            else:
                vectors = part(values)
            none = vectors.new_zeros(1, vectors.shape[1])
            made.append(torch.cat([none, vectors])[index])
        return made
