"""The judge: metrics of a prediction, and paired comparisons of two methods over several cut-offs.

A comparison averages over seeds and cut-offs and resamples entities, the same ones in every cut-off,
because a customer at four cut-offs is one customer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.evaluation import metrics
from bench.evaluation.definitions import Examples, Task

PRIMARY = {"binary": "auroc", "regression": "mae"}
HIGHER_IS_BETTER = {"binary": True, "regression": False, "recommendation": True}


def primary_metric(task: Task) -> str:
    """Return the metric that decides *task*."""
    if task.leave_one_out:
        return f"ndcg@{task.k}"
    return PRIMARY.get(task.kind, f"map@{task.k}")


def score(task: Task, answers: Examples, values: np.ndarray, num_items: int) -> dict[str, float]:
    """Return all metrics of *values*."""
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} predictions are not finite.")
    if task.kind == "recommendation":
        return metrics.ranking_metrics(values, answers.bought, num_items)
    if task.kind == "binary":
        return metrics.binary_metrics(answers.target, values)
    return metrics.regression_metrics(answers.target, values)


@dataclass(frozen=True)
class Judged:
    """One prediction with what it is judged by."""

    answers: Examples
    values: np.ndarray
    num_items: int


Weighted = Callable[[np.ndarray], float]


def weighted_metric(task: Task, judged: Judged, metric: str) -> tuple[np.ndarray, Weighted]:
    """Return the entities judged and a function from their multiplicities to *metric*."""
    answers = judged.answers
    if task.kind == "binary":
        return answers.entity, _weighted_auroc(answers.target, judged.values)
    if task.kind == "recommendation":
        rows = metrics.ranking_rows(judged.values, answers.bought, judged.num_items)
        return answers.entity[rows["row"]], _weighted_mean(rows[metric])
    if metric == "rmsle":
        mean = _weighted_mean(metrics.squared_log_errors(answers.target, judged.values))
        return answers.entity, lambda weight: float(np.sqrt(mean(weight)))
    errors = metrics.absolute_errors(answers.target, judged.values)
    if metric == "mae":
        return answers.entity, _weighted_mean(errors)
    kept = answers.target <= np.quantile(answers.target, 0.99)
    return answers.entity[kept], _weighted_mean(errors[kept])


def _weighted_mean(values: np.ndarray) -> Weighted:
    def mean(weight: np.ndarray) -> float:
        total = weight.sum()
        return float(values @ weight / total) if total else float("nan")

    return mean


def _weighted_auroc(target: np.ndarray, values: np.ndarray) -> Weighted:
    _, place = np.unique(values, return_inverse=True)

    def area(weight: np.ndarray) -> float:
        positive = np.bincount(place, weight * target)
        negative = np.bincount(place, weight * (1 - target))
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        return float(positive @ (below + negative / 2) / pairs) if pairs else float("nan")

    return area


def compare(
    task: Task,
    metric: str,
    ours: Sequence[Sequence[Judged]],
    theirs: Sequence[Sequence[Judged]],
    *,
    rounds: int = 1000,
) -> dict[str, float]:
    """Return the mean difference (ours - theirs) with its 95 % interval.

    Args:
        task: The question.
        metric: Metric to compare by.
        ours: For each cut-off, one judged prediction for each seed.
        theirs: The same cut-offs of the other method.
        rounds: Resamples.
    """
    sides = [
        [[weighted_metric(task, judged, metric) for judged in seeds] for seeds in side]
        for side in (ours, theirs)
    ]
    everyone = np.unique(np.concatenate([entity for cut in sides[0] for entity, _ in cut[:1]]))
    places = [np.searchsorted(everyone, cut[0][0]) for cut in sides[0]]

    def difference(weight: np.ndarray) -> float:
        total = 0.0
        for ours_cut, theirs_cut, place in zip(*sides, places, strict=True):
            local = weight[place].astype(np.float64)
            total += float(np.mean([value(local) for _, value in ours_cut]))
            total -= float(np.mean([value(local) for _, value in theirs_cut]))
        return total / len(places)

    middle, low, high = metrics.paired_bootstrap(difference, len(everyone), rounds=rounds)
    return {"difference": middle, "low": low, "high": high}
