"""What heads have in common, and the head on the members of the aggregates' branch."""

import dataclasses

import numpy as np
import torch
from torch import nn

from monad.data.batches import Batch
from monad.model.layers import last_linear, mlp
from monad.model.network import Network
from monad.model.panel import MemberOutputs

_BOUND = 4.0
_SHRINK, _NEWTON_STEPS = 25.0, 6
_SMALL = 0.1  # beside what was foreseen, members begin small


@dataclasses.dataclass
class Known:
    """What a head may start from beside targets: of the same rows, in the same order.

    Attributes:
        aggregates: Aggregates (rows, A), with their *names*.
        outlook: What the pretrained branch foresees (rows, outcomes).
    """

    aggregates: np.ndarray
    names: list[str]
    outlook: np.ndarray


class Head(nn.Module):
    """Base of heads."""

    reach = 1.0  # of the aggregates' branch, see Panel

    def start_from(self, targets: np.ndarray, known: Known | None = None) -> None:
        """Set what can be set from training targets, and what is *known* of their rows."""

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the raw output for a batch."""
        raise NotImplementedError

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        raise NotImplementedError

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions: probabilities, amounts or item scores."""
        raise NotImplementedError

    def explained(self, output: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the one number a row (B,) that attributions explain; *index* picks it (B,)."""
        return output.gather(1, index[:, None]).squeeze(1)


class MemberHead(Head):
    """Outputs of every member of the aggregates' branch, and what sequence and sketch add to them.

    In training the output has a dimension of members, (B, K, O), and each member learns for itself;
    otherwise it is their mean, (B, O). The sequence's part begins at zero. What the branch was
    pretrained to foresee, *outcomes* of it, is an input, too.
    """

    usual: torch.Tensor
    spread: torch.Tensor

    def __init__(self, outputs: int, width: int, dropout: float, outcomes: int = 0) -> None:
        super().__init__()
        self.members = MemberOutputs(width, outputs)
        self.foreseen = nn.Linear(outcomes, outputs, bias=False) if outcomes else None
        self.register_buffer("usual", torch.zeros(outcomes))
        self.register_buffer("spread", torch.ones(outcomes))
        self.summary = mlp(width, width, outputs, min(2 * dropout, 0.5))
        with torch.no_grad():
            last_linear(self.summary).weight.zero_()
            last_linear(self.summary).bias.zero_()
            if self.foreseen is not None:
                self.foreseen.weight.zero_()
                self.members.weight.mul_(_SMALL)

    def start_at(self, prior: np.ndarray) -> None:
        """Set the output before the first step."""
        with torch.no_grad():
            self.members.bias.copy_(torch.from_numpy(prior.reshape(-1).astype(np.float32)))

    def member_outputs(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return (B, K, O)."""
        states = network.members(batch)
        made = self.members(states) + self.summary(network.summarize(batch))[:, None]
        if self.foreseen is not None:
            outlook = (network.panel.outlook(states) - self.usual) / self.spread
            made = made + self.foreseen(outlook.clamp(-_BOUND, _BOUND))
        return made

    def take_outlook(self, outlook: np.ndarray) -> np.ndarray:
        """Scale the pretrained outcomes (rows, outcomes) as inputs; returns them scaled."""
        usual, spread = outlook.mean(0), np.maximum(outlook.std(0), 1e-3)
        self.usual.copy_(torch.from_numpy(usual))
        self.spread.copy_(torch.from_numpy(spread))
        return np.clip((outlook - usual) / spread, -_BOUND, _BOUND)


def logistic(inputs: np.ndarray, target: np.ndarray, start: float) -> tuple[np.ndarray, float]:
    """Fit a logistic regression by Newton's method; returns its weights and its constant.

    Weights shrink as if there were a hundred more rows that say nothing.
    """
    rows = np.column_stack([inputs.astype(np.float64), np.ones(len(inputs))])
    shrink = np.full(rows.shape[1], _SHRINK)
    shrink[-1] = 1e-3
    found = np.zeros(rows.shape[1])
    found[-1] = start
    for _ in range(_NEWTON_STEPS):
        share = 1.0 / (1.0 + np.exp(-np.clip(rows @ found, -30, 30)))
        slope = rows.T @ (share - target) + shrink * found
        bend = (rows * (share * (1 - share))[:, None]).T @ rows + np.diag(shrink)
        found = found - np.linalg.solve(bend, slope)
    return found[:-1].astype(np.float32), float(found[-1])
