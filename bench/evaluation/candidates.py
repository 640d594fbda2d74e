"""Candidate pairs (entity, item) at a timestamp, with features: what a ranker chooses from.

Candidates are the entity's own items, the popular ones and neighbours by co-purchase and by a
factorisation of the purchase matrix. All is computed from events up to the timestamp.
"""

from dataclasses import dataclass

import numpy as np

from bench.evaluation.events import DAY, EventLog
from bench.evaluation.ranking import popularity, rank_pairs

NUM_OWN = 250
NUM_POPULAR = 60
NUM_NEIGHBOURS = 50
NUM_FACTORS = 32


@dataclass(frozen=True)
class Pairs:
    """Scored pairs; `row` does not decrease."""

    row: np.ndarray
    item: np.ndarray
    values: np.ndarray
    names: list[str]


def candidate_pairs(log: EventLog, entity: np.ndarray, cutoff: int) -> Pairs:
    """Return the candidates of *entity* (codes) at *cutoff* and their features."""
    known = log.select(slice(0, log.position(cutoff)))
    place = np.full(log.num_entities, -1, np.int64)
    place[entity] = np.arange(len(entity))
    everyone = known.entity.astype(np.int64)
    mine = place[known.entity] >= 0
    row, own = place[known.entity][mine], known.select(mine)
    together = _together(known, everyone)
    recent = _profile(own, row, len(entity), cutoff, half_life_days=60)
    whole = _profile(own, row, len(entity), cutoff, half_life_days=3650)
    left, right = _factors(known, everyone)
    near = _best_columns(recent @ together, NUM_NEIGHBOURS)
    pairs = _union(own, row, len(entity), known, cutoff, near)
    which, item = pairs // log.num_items, pairs % log.num_items
    columns = _pair_features(own, row, pairs, cutoff)
    columns |= _item_features(known, item, cutoff)
    columns |= _row_features(own, row, which, len(entity), cutoff)
    columns["near"] = _scores(recent, together, which, item)
    columns["near_whole"] = _scores(whole, together, which, item)
    columns["factors"] = np.einsum("ij,ij->i", left[entity[which]], right[item])
    price = _mean_by(known.item, known.numeric.get("unit_price", known.amount), log.num_items)
    columns["price"] = price[item]
    columns["price_to_usual"] = price[item] / (columns["row_price"] + 1e-9)
    values = np.column_stack([np.asarray(v, np.float32) for v in columns.values()])
    return Pairs(which, item, values, list(columns))


def _mean_by(group: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of *values* for each group, 0 for empty ones."""
    return np.bincount(group, values, size) / np.maximum(np.bincount(group, minlength=size), 1)


def _together(known: EventLog, everyone: np.ndarray):
    """Return the cosine of items over entities, the nearest neighbours of each item only."""
    from scipy import sparse

    shape = (known.num_entities, known.num_items)
    bought = sparse.csr_matrix((np.ones(len(known)), (everyone, known.item)), shape=shape)
    bought.data[:] = 1.0
    norm = np.sqrt(np.maximum(np.asarray(bought.sum(axis=0)).ravel(), 1)) + 2.0
    weight = 1 / np.log2(2 + np.asarray(bought.sum(axis=1)).ravel())
    scaled = sparse.diags(weight) @ bought @ sparse.diags(1 / norm)
    cosine = (sparse.diags(1 / norm) @ bought.T @ scaled).tocsr()
    cosine.setdiag(0)
    cosine.eliminate_zeros()
    return _keep_top(cosine, NUM_NEIGHBOURS * 2)


def _chunks(matrix, length: int = 1000):
    """Return dense pieces of a sparse matrix with the first row of each."""
    for first in range(0, matrix.shape[0], length):
        yield first, matrix[first : first + length].toarray()


def _best_columns(matrix, k: int) -> np.ndarray:
    """Return the columns of the *k* largest positive values of each row, -1 where there are fewer."""
    k = min(k, matrix.shape[1])
    lists = np.full((matrix.shape[0], k), -1, np.int64)
    for first, dense in _chunks(matrix):
        best = np.argpartition(-dense, k - 1, axis=1)[:, :k]
        positive = np.take_along_axis(dense, best, axis=1) > 0
        lists[first : first + len(dense)] = np.where(positive, best, -1)
    return lists


def _keep_top(matrix, k: int):
    """Return a sparse matrix with the *k* largest values of each row."""
    from scipy import sparse

    parts = []
    for _, dense in _chunks(matrix):
        if k < dense.shape[1]:
            edge = np.partition(dense, -k, axis=1)[:, -k]
            dense[dense < edge[:, None]] = 0
        parts.append(sparse.csr_matrix(dense))
    return sparse.vstack(parts, format="csr")


def _scores(profile, together, which: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return the co-purchase score of pairs sorted by row."""
    scores = np.empty(len(which))
    for first, dense in _chunks(profile @ together):
        low, high = np.searchsorted(which, [first, first + len(dense)])
        scores[low:high] = dense[which[low:high] - first, item[low:high]]
    return scores


def _profile(own: EventLog, row: np.ndarray, size: int, cutoff: int, *, half_life_days: float):
    """Return what each row bought, older purchases weighing less, each row summing to 1."""
    from scipy import sparse

    weight = 0.5 ** ((cutoff - own.time) / DAY / half_life_days)
    total = np.bincount(row, weight, size)
    scaled = weight / np.maximum(total[row], 1e-12)
    return sparse.csr_matrix((scaled, (row, own.item)), shape=(size, own.num_items))


def _factors(known: EventLog, everyone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of entities and items from the log-counts of purchases."""
    from scipy import sparse
    from scipy.sparse.linalg import svds

    shape = (known.num_entities, known.num_items)
    counts = sparse.csr_matrix((np.ones(len(known)), (everyone, known.item)), shape=shape)
    counts.data = np.log1p(counts.data)
    rank = min(NUM_FACTORS, min(shape) - 1)
    if rank < 1:
        return np.zeros((shape[0], 1)), np.zeros((shape[1], 1))
    left, size, right = svds(counts.astype(np.float64), k=rank, v0=np.ones(min(shape)))
    return left * size, right.T


def _union(
    own: EventLog, row: np.ndarray, size: int, known: EventLog, cutoff: int, near: np.ndarray
) -> np.ndarray:
    """Return the sorted codes row * items + item of all candidates."""
    key, count = np.unique(row * own.num_items + own.item, return_counts=True)
    bought = rank_pairs(key // own.num_items, key % own.num_items, count, num_rows=size, k=NUM_OWN)
    popular = np.argsort(-popularity(known, cutoff, 30), kind="stable")[:NUM_POPULAR]
    parts = []
    for lists in (bought, near, np.tile(popular, (size, 1))):
        rows, places = np.nonzero(lists >= 0)
        parts.append(rows * own.num_items + lists[rows, places])
    return np.unique(np.concatenate(parts))


def _pair_features(
    own: EventLog, row: np.ndarray, pairs: np.ndarray, cutoff: int
) -> dict[str, np.ndarray]:
    """Return what the entity did with the item."""
    key = row * own.num_items + own.item
    at = np.searchsorted(pairs, key)
    inside = (at < len(pairs)) & (pairs[np.minimum(at, len(pairs) - 1)] == key)
    at, size = at[inside], len(pairs)
    age = (cutoff - own.time[inside]) / DAY
    num_baskets = int(own.basket.max(initial=0)) + 1
    visits = np.unique(at * num_baskets + own.basket[inside]) // num_baskets
    last, first = np.full(size, np.nan), np.full(size, np.nan)
    np.fmin.at(last, at, age)
    np.fmax.at(first, at, age)
    baskets = np.bincount(visits, minlength=size)
    gap = (first - last) / np.where(baskets > 1, baskets - 1, np.nan)
    columns = {
        "pair_lines": np.bincount(at, minlength=size),
        "pair_baskets": baskets,
        "pair_amount": np.bincount(at, own.amount[inside], size),
        "pair_last": last,
        "pair_first": first,
        "pair_gap": gap,
        "pair_overdue": last / np.maximum(gap, 1.0),
    }
    for days in (30, 90, 180):
        columns[f"pair_lines_{days}"] = np.bincount(at, age < days, size)
    for days in (15, 60):
        columns[f"pair_decayed_{days}"] = np.bincount(at, 0.5 ** (age / days), size)
    for name, values in own.numeric.items():
        columns[f"pair_{name}"] = np.bincount(at, values[inside], size)
    return columns


def _item_features(known: EventLog, item: np.ndarray, cutoff: int) -> dict[str, np.ndarray]:
    """Return how the item sells."""
    size = known.num_items
    taken = {days: popularity(known, cutoff, days) for days in (7, 30, 90, 365)}
    columns = {f"item_entities_{days}": values[item] for days, values in taken.items()}
    columns["item_trend"] = (taken[30][item] + 1) / (taken[90][item] + 3)
    columns["item_trend_7"] = (taken[7][item] + 1) / (taken[30][item] + 4)
    first, last = np.full(size, cutoff), np.zeros(size)
    first[known.item[::-1]] = known.time[::-1]
    last[known.item] = known.time
    columns["item_age"] = (cutoff - first[item]) / DAY
    columns["item_last"] = (cutoff - last[item]) / DAY
    num_baskets = int(known.basket.max(initial=0)) + 1
    visit = np.unique(known.item.astype(np.int64) * num_baskets + known.basket) // num_baskets
    per_item = np.bincount(visit, minlength=size)
    columns["item_baskets_per_entity"] = (per_item / np.maximum(popularity(known, cutoff), 1))[item]
    return columns


def _row_features(
    own: EventLog, row: np.ndarray, which: np.ndarray, size: int, cutoff: int
) -> dict[str, np.ndarray]:
    """Return what kind of entity it is."""
    lines = np.bincount(row, minlength=size)
    num_baskets = int(own.basket.max(initial=0)) + 1
    baskets = np.bincount(np.unique(row * num_baskets + own.basket) // num_baskets, minlength=size)
    distinct = np.bincount(
        np.unique(row * own.num_items + own.item) // own.num_items, minlength=size
    )
    last = np.zeros(size)
    last[row] = own.time
    per_row = {
        "row_lines": lines,
        "row_baskets": baskets,
        "row_items": distinct,
        "row_repeats": lines / np.maximum(distinct, 1),
        "row_lines_per_basket": lines / np.maximum(baskets, 1),
        "row_recency": (cutoff - last) / DAY,
        "row_price": _mean_by(row, own.numeric.get("unit_price", own.amount), size),
    }
    return {name: values[which] for name, values in per_row.items()}
