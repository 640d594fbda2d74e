"""Metrics in numpy: ranking by full catalogue, exact areas with ties."""

from collections.abc import Iterator, Sequence

import numpy as np

from monad.tasks import Task


def auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the area under the ROC curve; ties count half, NaN with one class only."""
    positives = targets > 0.5
    many, few = int(positives.sum()), int((~positives).sum())
    if not many or not few:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    ranks = (upto - (counts - 1) / 2.0)[inverse.reshape(-1)]
    return float((ranks[positives].sum() - many * (many + 1) / 2) / (many * few))


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the average precision; tied scores share one threshold."""
    order = np.argsort(-scores, kind="stable")
    hits, ordered = targets[order] > 0.5, scores[order]
    if not hits.any():
        return float("nan")
    last = np.append(ordered[1:] != ordered[:-1], True)
    found = np.cumsum(hits)[last]
    seen = (np.arange(len(hits)) + 1)[last]
    gained = np.diff(found, prepend=0)
    return float((gained * found / seen).sum() / hits.sum())


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean binary cross-entropy."""
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())


def average_precisions(
    ranked: Sequence[np.ndarray], relevant: Sequence[np.ndarray], k: int
) -> np.ndarray:
    """Return the average precision at k of each row that has relevant items."""
    return np.array([_precision(found, best) for found, best in _hits(ranked, relevant, k)])


def ranking(
    ranked: Sequence[np.ndarray], relevant: Sequence[np.ndarray], k: int
) -> dict[str, float]:
    """Return MAP@k, HR@k and NDCG@k over rows of ranked and of relevant items."""
    average, hit, gain = [], [], []
    discount = 1.0 / np.log2(np.arange(k) + 2)
    for found, best in _hits(ranked, relevant, k):
        average.append(_precision(found, best))
        hit.append(float(found.any()))
        gain.append(float((found * discount[: len(found)]).sum() / discount[:best].sum()))
    if not average:
        return {f"MAP@{k}": float("nan"), f"HR@{k}": float("nan"), f"NDCG@{k}": float("nan")}
    return {
        f"MAP@{k}": float(np.mean(average)),
        f"HR@{k}": float(np.mean(hit)),
        f"NDCG@{k}": float(np.mean(gain)),
    }


def _hits(
    ranked: Sequence[np.ndarray], relevant: Sequence[np.ndarray], k: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield which of a row's first k are relevant, and how many could be; rows without are left out."""
    for mine, wanted in zip(ranked, relevant, strict=True):
        if best := min(len(wanted), k):
            yield np.isin(mine[:k], wanted), best


def _precision(found: np.ndarray, best: int) -> float:
    precision = np.cumsum(found) / (np.arange(len(found)) + 1)
    return float((precision * found).sum() / best)


def vector_metrics(task: Task, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the metrics of a task whose targets are vectors, keyed `<alias>_<output index>`."""
    made: dict[str, float] = {}
    if task.kind == "multiclass":
        truth = targets.argmax(1)
        made["accuracy"] = float((predictions.argmax(1) == truth).mean())
        recalls = [(predictions.argmax(1)[truth == c] == c).mean() for c in np.unique(truth)]
        made["multiple_targets_recall"] = float(np.mean(recalls))
        chosen = predictions[np.arange(len(truth)), truth]
        made["log_loss"] = float(-np.log(np.clip(chosen, 1e-7, 1)).mean())
        return made
    for k in range(predictions.shape[1]):
        p, t = predictions[:, k], targets[:, k]
        if task.kind == "regression":
            made[f"mae_{k}"] = float(np.abs(p - t).mean())
            made[f"rmse_{k}"] = float(np.sqrt(((p - t) ** 2).mean()))
        else:
            made[f"auroc_{k}"] = auroc(p, t)
            made[f"average_precision_{k}"] = average_precision(p, t)
            made[f"log_loss_{k}"] = log_loss(p, t)
    return made
