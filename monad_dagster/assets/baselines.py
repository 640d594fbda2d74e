"""Pairs of a metric and the naive baselines a job script reported beside it.

A baseline is named `<prefix>baseline_<method>_<metric>`, such as `test_baseline_recency_auroc_0` for
`test_auroc_0`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_MARK = "baseline_"
_LOWER_IS_BETTER = ("mae", "rmse", "log_loss", "loss", "ece")


@dataclass(frozen=True)
class Comparison:
    """One metric with its best baseline.

    Attributes:
        metric: Name of the metric.
        value: Its value.
        method: Name of the baseline's method, empty when it has none.
        baseline: The baseline's value.
    """

    metric: str
    value: float
    method: str
    baseline: float

    @property
    def is_better(self) -> bool:
        """Whether the metric beats the baseline."""
        if lower_is_better(self.metric):
            return self.value < self.baseline
        return self.value > self.baseline


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of *metric* is the better one."""
    return any(word in metric for word in _LOWER_IS_BETTER)


def is_baseline(name: str) -> bool:
    """Whether *name* names a baseline."""
    return _MARK in name


def compare(metrics: Mapping[str, float]) -> list[Comparison]:
    """Return each metric that has a baseline, with the best of its baselines."""
    found: list[Comparison] = []
    for metric, value in metrics.items():
        if is_baseline(metric):
            continue
        rivals = list(_rivals(metric, metrics))
        if rivals:
            choose = min if lower_is_better(metric) else max
            method, baseline = choose(rivals, key=lambda rival: rival[1])
            found.append(Comparison(metric, value, method, baseline))
    return found


def _rivals(metric: str, metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return (method, value) of the baselines of one metric."""
    rivals: list[tuple[str, float]] = []
    for name, value in metrics.items():
        prefix, mark, rest = name.partition(_MARK)
        if not mark or not metric.startswith(prefix):
            continue
        bare = metric.removeprefix(prefix)
        if rest == bare:
            rivals.append(("", value))
        elif rest.endswith(f"_{bare}"):
            rivals.append((rest.removesuffix(f"_{bare}"), value))
    return rivals
