"""Shared arithmetic of the recommenders: popularity, ranked lists, co-purchase neighbours."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.events import DAY, EventLog


def popularity(log: EventLog, cutoff: int, days: int | None = None) -> np.ndarray:
    """Return how many distinct entities took each item in the last *days* days."""
    window = log if days is None else log.between(cutoff - days * DAY, cutoff)
    pairs = np.unique(window.entity.astype(np.int64) * log.num_items + window.item)
    return np.bincount(pairs % log.num_items, minlength=log.num_items)


def recent_days(problem: Problem) -> int | None:
    """Return the window of recent popularity: the horizon, or everything for leave-one-out."""
    return problem.task.horizon_days or None


def rank_pairs(
    row: np.ndarray, item: np.ndarray, score: np.ndarray, *, num_rows: int, k: int
) -> np.ndarray:
    """Return lists (rows x k) of the best items of each row from scored pairs; -1 fills up."""
    order = np.lexsort((item, -score, row))
    row, item = row[order], item[order]
    place = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    lists = np.full((num_rows, k), -1, np.int64)
    kept = place < k
    lists[row[kept], place[kept]] = item[kept]
    return lists


def fill_up(lists: np.ndarray, popular: np.ndarray, seen: set[int] | None = None) -> np.ndarray:
    """Return *lists* with their empty places taken by popular items that they do not hold.

    Args:
        lists: Item codes (rows x k), -1 at the end of short lists.
        popular: Item codes, best first.
        seen: Codes row * stride + item to avoid, with the stride 2**32; None: none.
    """
    filled = lists.copy()
    for index in np.flatnonzero((lists < 0).any(axis=1)):
        have = lists[index][lists[index] >= 0].tolist()
        held = set(have)
        for item in popular.tolist():
            if len(have) == lists.shape[1]:
                break
            if item not in held and (seen is None or (int(index) << 32) + item not in seen):
                have.append(item)
        filled[index, : len(have)] = have
    return filled


def seen_pairs(problem: Problem) -> set[int] | None:
    """Return the pairs that may not be recommended, in the code of `fill_up`."""
    if not problem.task.filter_seen:
        return None
    place = np.full(problem.log.num_entities, -1, np.int64)
    place[problem.population] = np.arange(len(problem.population))
    row = place[problem.log.entity]
    mine = row >= 0
    return set(((row[mine] << 32) + problem.log.item[mine]).tolist())


def popular_items(problem: Problem) -> np.ndarray:
    """Return all items by recent, then by overall popularity."""
    overall = popularity(problem.log, problem.cutoff)
    recent = popularity(problem.log, problem.cutoff, recent_days(problem))
    return np.lexsort((-overall, -recent))
