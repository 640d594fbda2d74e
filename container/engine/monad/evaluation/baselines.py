"""Naive baselines that `test` reports beside the model, computed from history alone."""

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.pairs import PairReader
from monad.data.store import Store
from monad.evaluation.metrics import auroc, ranking
from monad.tasks import Task


def days_since_last(store: Store, entities: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """Return the days since each entity's last event of any source."""
    latest = np.full(len(entities), np.iinfo(np.int64).min)
    for table in store.tables:
        at = table.position(entities, stamps)
        has = at > table.offsets[entities]
        times = np.asarray(table.times)[np.maximum(at - 1, 0)]
        latest = np.where(has, np.maximum(latest, times), latest)
    return (stamps - latest.astype(np.float64)) / DAY_SECONDS


def vector_baselines(
    task: Task, store: Store, entities: np.ndarray, stamps: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """Return baselines of tasks with vector targets."""
    made: dict[str, float] = {}
    for k in range(targets.shape[1]):
        if task.kind == "regression":
            made[f"baseline_zero_mae_{k}"] = float(np.abs(targets[:, k]).mean())
            made[f"baseline_zero_rmse_{k}"] = float(np.sqrt((targets[:, k] ** 2).mean()))
            spread = targets[:, k] - targets[:, k].mean()
            made[f"baseline_mean_mae_{k}"] = float(np.abs(spread).mean())
        elif task.kind in ("binary", "multilabel"):
            recency = days_since_last(store, entities, stamps)
            area = auroc(recency, targets[:, k])
            made[f"baseline_recency_auroc_{k}"] = max(area, 1.0 - area)
        else:
            made[f"baseline_share_{k}"] = float(targets[:, k].mean())
    return made


def item_baselines(
    pairs: PairReader, entities: np.ndarray, stamps: np.ndarray, relevant: list[np.ndarray], k: int
) -> dict[str, float]:
    """Return most-popular (last 30 days) and most-bought rankings."""
    popular = pairs.context(int(stamps[0])).lately.copy()
    popular[:2] = -1.0
    top = np.argsort(-popular, kind="stable")[:k]
    reader = pairs.reader
    begin, end = reader.bounds(entities, stamps)
    bought = []
    for low, high in zip(begin.tolist(), end.tolist(), strict=True):
        items = reader.codes(pairs.item_position, np.arange(low, high))
        counts = np.bincount(items[items > 1], minlength=2).astype(np.float64)
        taken = np.flatnonzero(counts)
        order = np.lexsort((-popular[taken], -counts[taken]))
        own = taken[order][:k]
        rest = top[~np.isin(top, own)][: k - len(own)]
        bought.append(np.concatenate([own, rest]))
    made = {
        f"baseline_popular_{n}_0": v for n, v in ranking([top] * len(bought), relevant, k).items()
    }
    made.update({f"baseline_most_bought_{n}_0": v for n, v in ranking(bought, relevant, k).items()})
    return made
