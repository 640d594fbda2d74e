"""What usually follows the newest events: counts beside the network's own guess.

Where items are rare, a network of any size learns a pair that was seen three times slowly or together
with noise; the count has it at once. How much the counts weigh is chosen on held-out events.
"""

import torch
from torch import nn

from monad.data.batches import Batch
from monad.data.transitions import KEPT

# Of the counts' log score beside the network's.
WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 6.0)
_NEWEST = 12  # events of a history that are looked up
_HALF = 2.0  # events after which one counts half
_LEAST = 1e-4  # score of an item that follows nothing, as a share of the row's best


class Followers(nn.Module):
    """Log scores of all items by what followed the row's newest items elsewhere."""

    near: torch.Tensor
    strength: torch.Tensor
    weight: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("near", torch.zeros(size, KEPT, dtype=torch.int32))
        self.register_buffer("strength", torch.zeros(size, KEPT))
        self.register_buffer("weight", torch.tensor(0.0))

    def know(self, near: torch.Tensor, strength: torch.Tensor) -> None:
        """Take each item's followers."""
        self.near.copy_(near)
        self.strength.copy_(strength)

    def forward(self, codes: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Return log scores (B, N), zero for each row's best item, for item codes (B, T)."""
        age = torch.arange(_NEWEST, device=codes.device)
        at = length[:, None] - 1 - age
        newest = torch.where(at >= 0, codes.gather(1, at.clamp(min=0)), 0)
        share = 0.5 ** (age / _HALF)
        found = codes.new_zeros(len(codes), len(self.near), dtype=torch.float32)
        found.scatter_add_(
            1,
            self.near[newest].flatten(1).long(),
            (self.strength[newest] * share[:, None]).flatten(1),
        )
        best = found.amax(-1, keepdim=True)
        return torch.log((found + _LEAST * best + 1e-12) / ((1.0 + _LEAST) * best + 1e-12))

    def added(self, scores: torch.Tensor, batch: Batch, position: int) -> torch.Tensor:
        """Return a network's scores with the counts' beside them, by the chosen weight."""
        if not float(self.weight):
            return scores
        return scores + self.weight * self(batch["codes"][position], batch["length"])
