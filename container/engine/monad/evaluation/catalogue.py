"""Metrics by name, for `MetricParams`, and the user's own, for `CustomMetric`.

A metric of a vector task gives one value for each output, keyed `<alias>_<output index>`; one of a
multi-class task or a recommendation gives one value. A custom metric is called with predictions
and targets as arrays, or with ranked and relevant items a row, and is keyed by its alias.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from monad.config.params import CustomMetric, MetricParams
from monad.errors import ConfigError, nearest, problem
from monad.evaluation.metrics import (
    auroc,
    average_precision,
    log_loss,
    ranking,
    vector_metrics,
)
from monad.tasks import Task

Values = np.ndarray


def brier(scores: Values, targets: Values) -> float:
    """Return the mean squared error of probabilities."""
    return float(((scores - targets) ** 2).mean())


def calibration_error(scores: Values, targets: Values, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=scores - targets, minlength=bins)
    return float(np.abs(gap).sum() / max(counts.sum(), 1))


def accuracy(scores: Values, targets: Values, threshold: float = 0.5) -> float:
    """Return the share of right decisions at a threshold."""
    return float(((scores >= threshold) == (targets > 0.5)).mean())


def precision(scores: Values, targets: Values, threshold: float = 0.5) -> float:
    """Return the share of positives among the chosen; NaN when none is chosen."""
    chosen = scores >= threshold
    return float(targets[chosen].mean()) if chosen.any() else float("nan")


def recall(scores: Values, targets: Values, threshold: float = 0.5) -> float:
    """Return the share of the positives that are chosen; NaN when there is none."""
    positive = targets > 0.5
    return float((scores[positive] >= threshold).mean()) if positive.any() else float("nan")


def f1(scores: Values, targets: Values, threshold: float = 0.5) -> float:
    """Return the harmonic mean of precision and recall."""
    chosen, positive = scores >= threshold, targets > 0.5
    total = chosen.sum() + positive.sum()
    return float(2 * (chosen & positive).sum() / total) if total else float("nan")


def mae(predictions: Values, targets: Values) -> float:
    """Return the mean absolute error."""
    return float(np.abs(predictions - targets).mean())


def rmse(predictions: Values, targets: Values) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(((predictions - targets) ** 2).mean()))


def rmse_log1p(predictions: Values, targets: Values) -> float:
    """Return the root mean squared error of log(1 + x), negative amounts as 0."""
    return rmse(np.log1p(np.maximum(predictions, 0)), np.log1p(np.maximum(targets, 0)))


def r2(predictions: Values, targets: Values) -> float:
    """Return the share of the variance explained; NaN when targets are all alike."""
    spread = ((targets - targets.mean()) ** 2).sum()
    return float(1 - ((predictions - targets) ** 2).sum() / spread) if spread else float("nan")


def class_accuracy(scores: Values, targets: Values, top_k: int = 1) -> float:
    """Return the share of rows whose class is among the k best."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return float((best == targets.argmax(1)[:, None]).any(1).mean())


def class_recall(scores: Values, targets: Values) -> float:
    """Return the recall averaged over the classes that occur."""
    truth, found = targets.argmax(1), scores.argmax(1)
    return float(np.mean([(found[truth == c] == c).mean() for c in np.unique(truth)]))


def class_log_loss(scores: Values, targets: Values) -> float:
    """Return the mean cross-entropy of the true class."""
    chosen = scores[np.arange(len(targets)), targets.argmax(1)]
    return float(-np.log(np.clip(chosen, 1e-7, 1)).mean())


def _ranked(name: str) -> Callable[..., float]:
    def metric(ranked: Any, relevant: Any, top_k: int = 10) -> float:
        return ranking(ranked, relevant, top_k)[f"{name}@{top_k}"]

    return metric


_DECISIONS: dict[str, Callable[..., float]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "ece": calibration_error,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
CATALOGUE: dict[str, dict[str, Callable[..., float]]] = {
    "binary": _DECISIONS,
    "multilabel": _DECISIONS,
    "multiclass": {
        "accuracy": class_accuracy,
        "multiple_targets_recall": class_recall,
        "log_loss": class_log_loss,
    },
    "regression": {"mae": mae, "rmse": rmse, "rmse_log1p": rmse_log1p, "r2": r2},
    "recommendation": {"MAP": _ranked("MAP"), "HR": _ranked("HR"), "NDCG": _ranked("NDCG")},
}


# The documentation's names of metrics that go by another one here.
_OTHER_NAMES = {"hitrate": "hr", "hitratek": "hr", "hitrateatk": "hr"}


def metric_function(name: str, task: Task) -> Callable[..., float] | None:
    """Return a metric by its name, or None; case and underscores do not matter."""
    plain = _plain(name)
    plain = _OTHER_NAMES.get(plain, plain)
    named = {_plain(known): function for known, function in CATALOGUE[task.kind].items()}
    return named.get(plain)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def check_metrics(metrics: Iterable[MetricParams | CustomMetric], task: Task) -> None:
    """Refuse metrics that the task does not have, before anything is computed."""
    known = CATALOGUE[task.kind]
    for metric in metrics:
        if isinstance(metric, MetricParams) and metric_function(metric.name, task) is None:
            raise ConfigError(
                problem(
                    f"MetricParams names the metric `{metric.name}`",
                    f"{task!r} has {', '.join(known)}",
                    nearest(metric.name, known),
                )
            )


def check_monitored(
    name: str | None, metrics: Iterable[MetricParams | CustomMetric], task: Task
) -> None:
    """Refuse a metric to monitor that validation will not compute, before anything is computed."""
    if name is None:
        return
    if task.kind == "recommendation":
        known = [f"{metric}@{k}_0" for metric in CATALOGUE[task.kind] for k in (12, 10)]
    else:
        nothing = np.zeros((2, task.num_outputs))
        known = list(vector_metrics(task, nothing, nothing))
    single = task.kind in ("multiclass", "recommendation")
    for metric in metrics:
        numbers = range(1 if single else task.num_outputs)
        custom = isinstance(metric, CustomMetric)
        known += [metric.alias] if custom else [f"{metric.alias}_{k}" for k in numbers]
    wanted = ["val_loss", *(f"val_{one}" for one in known)]
    if name not in wanted:
        raise ConfigError(
            problem(
                f"metric_to_monitor is `{name}`",
                f"validations of {task!r} have {', '.join(wanted)}",
                nearest(name, wanted),
            )
        )


def extra_metrics(
    metrics: Iterable[MetricParams | CustomMetric], task: Task, predictions: Any, targets: Any
) -> dict[str, float]:
    """Compute the metrics asked for beside the task's own."""
    made: dict[str, float] = {}
    for metric in metrics:
        if isinstance(metric, CustomMetric):
            made[metric.alias] = float(metric.function(predictions, targets))
            continue
        function = metric_function(metric.name, task)
        assert function is not None  # check_metrics has looked
        try:
            if task.kind in ("multiclass", "recommendation"):
                made[f"{metric.alias}_0"] = function(predictions, targets, **metric.kwargs)
                continue
            for k in range(predictions.shape[1]):
                value = function(predictions[:, k], targets[:, k], **metric.kwargs)
                made[f"{metric.alias}_{k}"] = value
        except TypeError as error:
            raise ConfigError(
                problem(f"MetricParams {metric.alias} has unusable kwargs", str(error))
            ) from error
    return made
