"""Gates: factors between 0 and 1 on every input of the network, for attributing its output.

A batch without gates is read as it is. With gates each input lies on the way from its reference
(gate 0) to what it is (gate 1). The reference of an event input is its mean over the events of a
background batch, so that at 0 every event is the average event; of an attribute its mean over the
entities of that batch; of an aggregate its fitted mean; sketch and pairs start from nothing. The
mean derivative of an output by a gate along that way is the input's integrated gradient.

G counts event inputs: categories, numbers, other event fields, then time and source.
"""

import dataclasses
from typing import Any

import torch


class References:
    """Mean contribution of each input, taken from the first batch that is read with it."""

    def __init__(self) -> None:
        self._means: dict[Any, torch.Tensor] = {}

    def mean(self, key: Any, value: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Return the reference of an input; the first call sets it from *value*."""
        if key not in self._means:
            chosen = value if valid is None else value[valid]
            self._means[key] = chosen.detach().mean(0)
        return self._means[key]


@dataclasses.dataclass
class Gates:
    """Gates of one batch.

    Attributes:
        events: (B, T, G).
        bags: One flat tensor for each sketched field, as long as its codes.
        aggregates: (B, A).
        attributes: (B, M): categories, then numbers, then other fields.
        pairs: (P,) for the (entity, item) pairs of a recommendation, or empty.
    """

    events: torch.Tensor
    bags: list[torch.Tensor]
    aggregates: torch.Tensor
    attributes: torch.Tensor
    pairs: torch.Tensor
    references: References

    def tensors(self) -> list[torch.Tensor]:
        """Return all tensors in a fixed order."""
        return [self.events, *self.bags, self.aggregates, self.attributes, self.pairs]

    def like(self, tensors: list[torch.Tensor]) -> "Gates":
        """Return gates of the same batch with other tensors."""
        return Gates(
            tensors[0], tensors[1:-3], tensors[-3], tensors[-2], tensors[-1], self.references
        )


def event_gated(value: torch.Tensor, batch: dict[str, Any], position: int) -> torch.Tensor:
    """Gate the (B, T, D) contributions of the event input at *position*."""
    gates = batch.get("gates")
    if gates is None:
        return value
    reference = gates.references.mean(("event", position), value, batch["valid"])
    return reference + gates.events[..., position, None] * (value - reference)


def numbers_gated(value: torch.Tensor, batch: dict[str, Any], first: int) -> torch.Tensor:
    """Gate the (B, T, F, W) encodings of the event numbers, whose first input is *first*."""
    gates = batch.get("gates")
    if gates is None:
        return value
    reference = gates.references.mean("numbers", value, batch["valid"])
    inputs = gates.events[..., first : first + value.shape[-2], None]
    return reference + inputs * (value - reference)


def attribute_gated(value: torch.Tensor, batch: dict[str, Any], position: int) -> torch.Tensor:
    """Gate the (B, D) contributions of the attribute at *position*."""
    gates = batch.get("gates")
    if gates is None:
        return value
    reference = gates.references.mean(("attribute", position), value, None)
    return reference + gates.attributes[:, position, None] * (value - reference)


def attribute_numbers_gated(value: torch.Tensor, batch: dict[str, Any], first: int) -> torch.Tensor:
    """Gate the (B, F, W) encodings of the attribute numbers, the first of which is *first*."""
    gates = batch.get("gates")
    if gates is None:
        return value
    reference = gates.references.mean("attribute numbers", value, None)
    inputs = gates.attributes[:, first : first + value.shape[-2], None]
    return reference + inputs * (value - reference)
