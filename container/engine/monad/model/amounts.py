"""The head of regressions: a distribution over bins of an amount in units of the entity's own level.

Amounts of different entities differ by orders of magnitude, and what one will spend is told best as
a multiple of what it spent. Bins of the bare amount are coarse where the largest amounts lie, which
decide the absolute error; bins of the multiple are fine for everyone.
"""

import re

import numpy as np
import torch
from torch.nn import functional

from monad.data.batches import Batch
from monad.model.head import Known, MemberHead
from monad.model.network import Network
from monad.tasks import RegressionTask

_BINS = 48
_LEVEL = re.compile(r"^(?P<table>.*):(?:sum_.*|count)_365$")
_MOST_MONTHS = 365 / 30
_MEDIAN = 0.35  # weight of the median in a centre, on a log scale; see docs/experiments.md
# Inputs that are left out at random in training draw what is foreseen of them towards the mean. That
# is right for classes, whose scores then say how often they come; large amounts fall short by it.
_REACH = 4 / 3
_LEAST_ROWS, _LEAST_CORRELATION = 50, 0.3  # else amounts stay as they are


class AmountHead(MemberHead):
    """A distribution over bins of each amount, zero having a bin of its own.

    The median of the distribution is the best guess in absolute error, also where most targets
    are zero; the mean is the best in squared error. Bins come from training targets, and so does
    the choice of what an entity's level is: its monthly sum of a numeric column, or its monthly
    number of events, whichever goes along best with the amounts that are not zero.
    """

    reach = _REACH
    edges: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    mean: torch.Tensor
    level_total: torch.Tensor
    level_tenure: torch.Tensor
    level_usual: torch.Tensor

    def __init__(self, task: RegressionTask, width: int, dropout: float, outcomes: int = 0) -> None:
        super().__init__(task.num_targets * _BINS, width, dropout, outcomes)
        self.targets, self.point = task.num_targets, task.point
        self.register_buffer("edges", torch.zeros(self.targets, _BINS - 1))
        for name in ("low", "high", "mean"):
            self.register_buffer(name, torch.zeros(self.targets, _BINS))
        self.register_buffer("level_total", torch.full((self.targets,), -1))
        self.register_buffer("level_tenure", torch.zeros(self.targets, dtype=torch.long))
        self.register_buffer("level_usual", torch.zeros(self.targets))

    def start_from(self, targets: np.ndarray, known: Known | None = None) -> None:
        """Choose levels, place the bins on targets (rows, targets), start at their frequencies."""
        levels = np.ones(targets.shape)
        if known is not None:
            for k in range(self.targets):
                self._choose_level(k, targets[:, k].astype(np.float64), known)
            levels = self.levels(torch.from_numpy(known.aggregates)).double().numpy()
            if self.foreseen is not None:
                self.take_outlook(known.outlook)
        prior = np.zeros((self.targets, _BINS))
        for k in range(self.targets):
            values = targets[:, k].astype(np.float64) / levels[:, k]
            edges = _edges(values)
            which = np.searchsorted(edges, values, side="left")
            for b in range(_BINS):
                inside = values[which == b]
                low = inside.min() if len(inside) else (edges[b - 1] if b else 0.0)
                low = low if np.isfinite(low) else 0.0
                self.low[k, b] = float(low)
                self.high[k, b] = float(inside.max()) if len(inside) else float(low)
                self.mean[k, b] = float(inside.mean()) if len(inside) else float(low)
            self.edges[k] = torch.from_numpy(edges)
            counts = np.bincount(which, minlength=_BINS)
            prior[k] = np.log((counts + 0.1) / (counts.sum() + 0.1 * _BINS))
        self.start_at(prior)

    def _choose_level(self, k: int, values: np.ndarray, known: Known) -> None:
        nonzero = values != 0
        if nonzero.sum() < _LEAST_ROWS:
            return
        wanted = np.log(np.abs(values[nonzero]))
        best = _LEAST_CORRELATION
        for i, name in enumerate(known.names):
            found = _LEVEL.match(name)
            if found is None:
                continue
            tenure = known.names.index(f"{found['table']}:tenure")
            total, months = _monthly(torch.from_numpy(known.aggregates[:, [i, tenure]]))
            usual = float((total / months).median()) or float((total / months).mean())
            if not usual > 0:
                continue
            level = torch.log((total + usual) / (months + 1)).numpy()[nonzero]
            if level.std() < 1e-6 or wanted.std() < 1e-6:
                continue
            correlation = float(np.corrcoef(level, wanted)[0, 1])
            if correlation > best:
                best = correlation
                self.level_total[k], self.level_tenure[k] = i, tenure
                self.level_usual[k] = usual

    def levels(self, aggregates: torch.Tensor) -> torch.Tensor:
        """Return each row's level of each target (B, targets); 1 where amounts stay as they are."""
        made = []
        for k in range(self.targets):
            i, tenure = int(self.level_total[k]), int(self.level_tenure[k])
            if i < 0:
                made.append(torch.ones(len(aggregates), device=aggregates.device))
                continue
            total, months = _monthly(aggregates[:, [i, tenure]].float())
            made.append((total + self.level_usual[k]) / (months + 1))
        return torch.stack(made, 1)

    def output(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the scores of every bin, in training (B, K, targets, bins).

        Outside training the members' distributions are averaged, not their scores, and the
        logarithm of the level follows the bins: (B, targets, bins + 1).
        """
        scores = self.member_outputs(network, batch)
        scores = scores.view(*scores.shape[:2], self.targets, _BINS)
        if self.training:
            return scores
        shares = torch.softmax(scores.float(), -1).mean(1).clamp(min=1e-12).log()
        return torch.cat([shares, self.levels(batch["aggregates"]).log()[..., None]], -1)

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean loss against the batch's targets."""
        target = (batch["target"] / self.levels(batch["aggregates"])).T.contiguous()
        bins = torch.searchsorted(self.edges, target).T.clamp(max=_BINS - 1)
        if output.dim() == 4:
            bins = bins[:, None].expand(output.shape[:3]).flatten(0, 1)
            output = output.flatten(0, 1)
        output = output[..., :_BINS]
        entropy = functional.cross_entropy(output.flatten(0, 1), bins.reshape(-1))
        share = torch.softmax(output, -1).cumsum(-1)
        reached = torch.arange(_BINS, device=bins.device) >= bins[..., None]
        return entropy + ((share - reached.to(share.dtype)) ** 2).sum(-1).mean()

    def decode(self, output: torch.Tensor) -> np.ndarray:
        """Return predictions."""
        output = output.float()
        share, level = torch.softmax(output[..., :_BINS], -1), output[..., _BINS].exp()
        mean = self.mean.to(output.device)  # outputs come to the CPU, the head may be elsewhere
        if self.point == "mean":
            return ((share * mean).sum(-1) * level).numpy()
        median = self._quantile(share) * level
        if self.point == "median":
            return median.numpy()
        centre = (share * _squash(mean * level[..., None])).sum(-1)
        return _unsquash(_MEDIAN * _squash(median) + (1 - _MEDIAN) * centre).numpy()

    def explained(self, output: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the mean of the distribution of one target: it follows the inputs smoothly."""
        share, level = torch.softmax(output[..., :_BINS].float(), -1), output[..., _BINS].exp()
        expected = (share * self.mean).sum(-1) * level
        return expected.gather(1, index[:, None]).squeeze(1)

    def _quantile(self, share: torch.Tensor, level: float = 0.5) -> torch.Tensor:
        upto = share.cumsum(-1)
        at = (upto < level).sum(-1).clamp(max=_BINS - 1)[..., None]
        before = (upto - share).gather(-1, at)
        inside = ((level - before) / share.gather(-1, at).clamp(min=1e-9)).clamp(0, 1)
        low = self.low.to(at.device).expand_as(share).gather(-1, at)
        high = self.high.to(at.device).expand_as(share).gather(-1, at)
        return (low + inside * (high - low)).squeeze(-1)


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the inner edges of the bins, infinite where there are fewer distinct values."""
    rest = values[values != 0]
    levels = np.linspace(0, 1, _BINS)[1:-1]
    cuts = np.unique(np.quantile(rest, levels)) if len(rest) else np.array([0.5])
    tiny = 1e-6 * max(float(np.abs(values).max(initial=0.0)), 1e-6)
    around = [-tiny, tiny] if (values < 0).any() else [tiny]
    cuts = np.unique(np.concatenate([cuts[np.abs(cuts) > tiny], around]))
    cuts = cuts[np.linspace(0, len(cuts) - 1, min(len(cuts), _BINS - 1)).astype(int)]
    edges = np.full(_BINS - 1, np.inf)
    edges[: len(cuts)] = cuts
    return edges


def _monthly(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the totals of a year and the months they come from; columns are on a log scale."""
    total = torch.expm1(columns[:, 0].abs())
    return total, (torch.expm1(columns[:, 1]) / 30).clamp(1.0, _MOST_MONTHS)


def _squash(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * torch.log1p(x.abs())


def _unsquash(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * torch.expm1(x.abs())
