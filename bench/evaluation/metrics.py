"""Metrics in numpy alone, so that every environment scores alike; checked against scikit-learn.

Each metric of single rows also exists as a value for each row, which is what a bootstrap resamples.
"""

from collections.abc import Callable

import numpy as np


def auroc(target: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the area under the ROC curve; NaN when one class is missing.

    Args:
        target: 0 or 1.
        score: Higher means more likely 1.
        weight: Multiplicity of each row, for a bootstrap.
    """
    weight = np.ones(len(target)) if weight is None else weight
    _, inverse = np.unique(score, return_inverse=True)
    positive = np.bincount(inverse, weight * target)
    negative = np.bincount(inverse, weight * (1 - target))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def average_precision(target: np.ndarray, score: np.ndarray) -> float:
    """Return the step-wise area under the precision-recall curve."""
    if not target.sum():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(target[order])
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    hits, place = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    gain = np.diff(np.append(0.0, hits)) / target.sum()
    return float((gain * hits / place).sum())


def log_loss(target: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean negative log-likelihood of a probability."""
    p = np.clip(probability.astype(np.float64), 1e-15, 1 - 1e-15)
    return float(-(target * np.log(p) + (1 - target) * np.log1p(-p)).mean())


def calibration_error(target: np.ndarray, probability: np.ndarray, num_bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width."""
    place = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    count = np.bincount(place, minlength=num_bins)
    gap = np.abs(np.bincount(place, probability, num_bins) - np.bincount(place, target, num_bins))
    return float(gap[count > 0].sum() / len(target))


def absolute_errors(target: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the absolute error of each row."""
    return np.abs(target - value)


def squared_log_errors(target: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the squared error of log(1 + x) of each row, with negative values taken as 0."""
    return (np.log1p(np.maximum(target, 0)) - np.log1p(np.maximum(value, 0))) ** 2


def mae(target: np.ndarray, value: np.ndarray) -> float:
    """Return the mean absolute error."""
    return float(absolute_errors(target, value).mean())


def rmsle(target: np.ndarray, value: np.ndarray) -> float:
    """Return the root mean squared error of log(1 + x)."""
    return float(np.sqrt(squared_log_errors(target, value).mean()))


def hit_matrix(ranked: np.ndarray, bought: np.ndarray, num_items: int) -> np.ndarray:
    """Return whether each recommended item was bought.

    Args:
        ranked: Item codes (rows x k), -1 where a list is shorter.
        bought: Distinct pairs (row, item).
        num_items: Number of item codes, those first seen in the window included.
    """
    width = max(num_items, int(ranked.max(initial=0)) + 1, int(bought[:, 1].max(initial=0)) + 1)
    wanted = bought[:, 0].astype(np.int64) * width + bought[:, 1]
    asked = np.arange(len(ranked))[:, None] * width + ranked
    return np.isin(asked, wanted) & (ranked >= 0)


def average_precisions(hits: np.ndarray, num_true: np.ndarray) -> np.ndarray:
    """Return AP@k of each row, divided by min(number of true items, k)."""
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(axis=1) / np.minimum(num_true, hits.shape[1])


def discounted_gains(hits: np.ndarray, num_true: np.ndarray) -> np.ndarray:
    """Return NDCG@k of each row with binary gains."""
    k = hits.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.append(0.0, np.cumsum(discount))[np.minimum(num_true, k)]
    return (hits * discount).sum(axis=1) / ideal


def hit_rates(hits: np.ndarray) -> np.ndarray:
    """Return 1 for each row with at least one true item in its list."""
    return hits.any(axis=1).astype(np.float64)


def binary_metrics(target: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Return AUROC, AP, log-loss and calibration error; the last two of probabilities only."""
    values = {
        "auroc": auroc(target, probability),
        "average_precision": average_precision(target, probability),
    }
    if probability.min() >= 0 and probability.max() <= 1:
        values["log_loss"] = log_loss(target, probability)
        values["ece"] = calibration_error(target, probability)
    return values


def regression_metrics(target: np.ndarray, value: np.ndarray) -> dict[str, float]:
    """Return MAE, RMSE of log1p, and MAE without the 1 % of rows with the highest targets."""
    kept = target <= np.quantile(target, 0.99)
    return {
        "mae": mae(target, value),
        "rmsle": rmsle(target, value),
        "mae_without_top_1_percent": mae(target[kept], value[kept]),
    }


def ranking_rows(ranked: np.ndarray, bought: np.ndarray, num_items: int) -> dict[str, np.ndarray]:
    """Return the row-wise ranking metrics of the rows that bought something."""
    num_true = np.bincount(bought[:, 0], minlength=len(ranked))
    rows = np.flatnonzero(num_true)
    hits = hit_matrix(ranked, bought, num_items)[rows]
    k = ranked.shape[1]
    return {
        "row": rows,
        f"map@{k}": average_precisions(hits, num_true[rows]),
        f"ndcg@{k}": discounted_gains(hits, num_true[rows]),
        f"hr@{k}": hit_rates(hits),
    }


def ranking_metrics(ranked: np.ndarray, bought: np.ndarray, num_items: int) -> dict[str, float]:
    """Return MAP@k, NDCG@k and HR@k over the rows that bought something."""
    rows = ranking_rows(ranked, bought, num_items)
    return {name: float(values.mean()) for name, values in rows.items() if name != "row"}


def paired_bootstrap(
    difference: Callable[[np.ndarray], float], num_rows: int, *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return a difference on the whole sample and its 95 % interval, resampling rows.

    Args:
        difference: Difference of two methods, given the multiplicity of each row.
        num_rows: Number of rows.
        rounds: Resamples.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            difference(np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows))
            for _ in range(rounds)
        ]
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(difference(np.ones(num_rows, int))), float(low), float(high)
