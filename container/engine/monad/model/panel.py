"""The aggregates' branch: several perceptrons that share their weight matrices.

Members differ in how they scale inputs and hidden units, so that they learn different functions at
the cost of one; heads read every member and average what they say.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MEMBERS = 8
_LAYERS = 2
_INPUT_SPREAD, _HIDDEN_SPREAD = 0.5, 0.1
_BOUND = 4.0
_LEAST_DEVIATION = 1e-3


class MemberOutputs(nn.Module):
    """One output layer for each member: (B, K, W) to (B, K, O)."""

    def __init__(self, width: int, outputs: int, members: int = MEMBERS) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.randn(members, width, outputs) * 0.3 / width**0.5)
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the members' outputs."""
        return torch.einsum("bkw,kwo->bko", x, self.weight.to(x.dtype)) + self.bias


class Panel(nn.Module):
    """Members' hidden states (B, K, W) of standardized inputs (B, A)."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        mean: list[float],
        deviation: list[float],
        width: int,
        dropout: float,
        members: int = MEMBERS,
        outcomes: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).float())
        self.register_buffer("deviation", torch.tensor(deviation).float())
        inputs = len(mean)
        spread = 1.0 + _INPUT_SPREAD * torch.randn(members, inputs)
        self.input_scales = nn.Parameter(spread)
        self.layers = nn.ModuleList(
            nn.Linear(inputs if i == 0 else width, width) for i in range(_LAYERS)
        )
        self.scales = nn.ParameterList(
            nn.Parameter(1.0 + _HIDDEN_SPREAD * torch.randn(members, width)) for _ in self.layers
        )
        self.dropout = dropout
        self.reach = 1.0  # what inputs are multiplied by outside of training; the head's choice
        self.outlook = MemberOutputs(width, outcomes, members)  # what pretraining taught it

    def forward(self, aggregates: torch.Tensor) -> torch.Tensor:
        """Return the members' states; whole inputs are dropped at random in training."""
        x = ((aggregates - self.mean) / self.deviation).clamp(-_BOUND, _BOUND)
        # What is kept is scaled up: else sums are larger without dropout, and scores too sure.
        x = functional.dropout(x, self.dropout, True) if self.training else x * self.reach
        x = x[:, None] * self.input_scales
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = functional.silu(layer(x) * scale)
            x = functional.dropout(x, self.dropout, self.training)
        return x

    def scale_by(self, aggregates: torch.Tensor) -> None:
        """Standardize inputs by these rows: those that are asked about, not all that there are."""
        self.mean.copy_(aggregates.mean(0))
        self.deviation.copy_(aggregates.std(0).clamp(min=_LEAST_DEVIATION))

    @torch.inference_mode()
    def foresee(self, aggregates: np.ndarray, rows: int = 4096) -> np.ndarray:
        """Return the members' mean outlook (rows, outcomes) of aggregates (rows, A), on the CPU."""
        training, reach = self.training, self.reach
        self.eval()
        self.reach = 1.0
        made = [
            self.outlook(self(torch.from_numpy(aggregates[at : at + rows]))).mean(1).numpy()
            for at in range(0, max(len(aggregates), 1), rows)
        ]
        self.train(training)
        self.reach = reach
        return np.concatenate(made)
