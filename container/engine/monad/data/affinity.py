"""What goes with what at a split point: companions of items, what follows them, a linear forecast.

All of it is fitted on events with `time <= split`; the forecast on windows that end by then.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import linalg, sparse

_COMPANIONS = 100
_DENSE_WIDTH, _DENSE_VALUES = 20_000, 4_000_000
_LATELY_DAYS = 45.0
_FORECAST_ITEMS = 2_000  # the most taken ones: the solution costs their third power
_FORECAST_DAYS, _FORECASTS = 30.0, 4  # windows of so many days, so many of them
_FORECAST_EVENTS = 2_000  # fewer known events teach nothing
_HALF_LIFE = 120.0
_RIDGE = 8.0  # of the mean diagonal entry
_NEIGHBOURS, _POOL = 60, 10_000  # entities most like one, among so many of the latest active


@dataclasses.dataclass
class Takes:
    """Events up to a split point: who took what, how many days ago, and on which day."""

    entities: np.ndarray
    items: np.ndarray
    age: np.ndarray
    day: np.ndarray
    num_entities: int
    num_items: int

    def matrix(self, weight: np.ndarray, chosen: np.ndarray | None = None) -> Any:
        """Return summed weights of (entity, item), of the *chosen* events only."""
        who, what = self.entities, self.items
        if chosen is not None:
            who, what, weight = who[chosen], what[chosen], weight[chosen]
        entries = (weight.astype(np.float32), (who, what))
        made = sparse.csr_matrix(entries, shape=(self.num_entities, self.num_items))
        made.sum_duplicates()
        return made


@dataclasses.dataclass
class Forecast:
    """A linear forecast of what is taken next from what was taken: items and their weights."""

    items: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass
class Affinity:
    """Sparse matrices from an item taken to others, and forecasts.

    Attributes:
        by_entity: Cosine of items over the entities that took both.
        by_day: The same over an entity's active days.
        lately: The same over the active days of the last weeks.
        following: Items of an active day against those of the entity's next one.
        forecast: None where the windows hold too little.
        tastes: Each entity's recent takes, scaled for comparing entities.
        pool: The entities that others are compared with, the latest active ones.
        taken: What those took lately, a row each.
    """

    by_entity: Any
    by_day: Any
    lately: Any
    following: Any
    forecast: Forecast | None
    tastes: Any
    pool: np.ndarray
    taken: Any


def affinity(takes: Takes) -> Affinity:
    """Fit everything on events up to a split point."""
    visits, owner, when = _visits(takes)
    newest = int(takes.day.max(initial=0))
    late = np.flatnonzero(when > newest - _LATELY_DAYS)
    active = np.full(takes.num_entities, -1, dtype=np.int64)
    np.maximum.at(active, owner, when)
    pool = np.sort(np.argsort(-active, kind="stable")[:_POOL])
    lately = takes.matrix(np.ones(len(takes.items)), takes.age <= _LATELY_DAYS)
    return Affinity(
        companions(takes.matrix(np.ones(len(takes.items))), 2.0),
        companions(visits, 2.0),
        companions(visits[late], 0.7),
        _following(visits, owner),
        _forecast(takes),
        _tastes(takes),
        pool,
        _ones(lately[pool]),
    )


def recent(takes: Takes, chosen: np.ndarray | None = None, ago: float = 0.0) -> Any:
    """Return decayed takes as a forecast reads them: bounded, and scaled by entity."""
    weight = np.exp2(-np.maximum(takes.age - ago, 0.0) / _HALF_LIFE)
    made = takes.matrix(weight, chosen)
    made.data = np.sqrt(np.minimum(made.data, 1.0))
    return made


def scaled(matrix: Any) -> Any:
    """Return rows divided by the square root of their length."""
    square = np.asarray(matrix.multiply(matrix).sum(1)).ravel()
    return sparse.diags((1.0 / np.maximum(square, 1e-6) ** 0.25).astype(np.float32)) @ matrix


def _ones(matrix: Any) -> Any:
    matrix.data[:] = 1.0
    return matrix


def _visits(takes: Takes) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the items of active days as a matrix of ones, and the days' owners and numbers."""
    stride = int(takes.day.max(initial=0)) + 1
    keys, place = np.unique(takes.entities * stride + takes.day, return_inverse=True)
    entries = (np.ones(len(takes.items), np.float32), (place.reshape(-1), takes.items))
    made = sparse.csr_matrix(entries, shape=(len(keys), takes.num_items))
    made.sum_duplicates()
    return _ones(made), keys // stride, keys % stride


def companions(taken: Any, shrink: float) -> Any:
    """Return the cosine of items over rows, the best companions of each item only."""
    taken = _ones(taken)
    norm = np.sqrt(np.maximum(np.asarray(taken.sum(0)).ravel(), 1.0)) + shrink
    weight = 1.0 / np.log2(2.0 + np.asarray(taken.sum(1)).ravel())
    common = (taken.T @ (sparse.diags(weight.astype(np.float32)) @ taken)).tocsr()
    owner = np.repeat(np.arange(common.shape[0]), np.diff(common.indptr))
    common.data = common.data / (norm[owner] * norm[common.indices]).astype(np.float32)
    common.data[owner == common.indices] = 0.0
    return best_columns(common, _COMPANIONS)


def _following(visits: Any, owner: np.ndarray) -> Any:
    """Return how items of one active day go with those of the same entity's next one."""
    size = np.asarray(visits.sum(1)).ravel()
    share = sparse.diags((1.0 / np.sqrt(np.maximum(size, 1.0))).astype(np.float32)) @ visits
    first = np.flatnonzero(owner[1:] == owner[:-1])
    before, after = share[first], share[first + 1]
    left, right = (
        sparse.diags((1.0 / (np.sqrt(np.asarray(m.sum(0)).ravel()) + 0.3)).astype(np.float32))
        for m in (before, after)
    )
    return best_columns((left @ (before.T @ after) @ right).tocsr(), _COMPANIONS)


def _forecast(takes: Takes) -> Forecast | None:
    """Fit the next window's items on all items before it, by ridge regression."""
    taken = np.bincount(takes.items, minlength=takes.num_items)
    best = np.argsort(-taken, kind="stable")[:_FORECAST_ITEMS]
    items = np.sort(best[taken[best] > 4])
    squares = products = None
    for number in range(1, _FORECASTS + 1):
        ago = number * _FORECAST_DAYS
        after = (takes.age < ago) & (takes.age >= ago - _FORECAST_DAYS)
        wanted = np.zeros(takes.num_entities, dtype=bool)
        wanted[takes.entities[after]] = True
        before = (takes.age >= ago) & wanted[takes.entities]
        if before.sum() < _FORECAST_EVENTS:
            continue
        inputs = scaled(recent(takes, before, ago)[:, items])
        found = _ones(takes.matrix(np.ones(len(takes.items)), after)[:, items])
        outputs = scaled(found)
        square, product = (inputs.T @ inputs).toarray(), (inputs.T @ outputs).toarray()
        squares = square if squares is None else squares + square
        products = product if products is None else products + product
    if squares is None or products is None:
        return None
    at = np.diag_indices_from(squares)
    squares[at] += _RIDGE * float(squares[at].mean()) + 1.0
    solved = linalg.cho_solve(
        linalg.cho_factor(squares, overwrite_a=True, check_finite=False),
        products,
        overwrite_b=True,
        check_finite=False,
    )
    return Forecast(items, solved.astype(np.float32))


def _tastes(takes: Takes) -> Any:
    """Return recent takes, common items weighing less, scaled to about unit length."""
    made = recent(takes)
    owners = np.bincount(made.indices, minlength=takes.num_items)
    rare = np.log(takes.num_entities / np.maximum(owners, 1)).clip(min=0.0)
    made = (made @ sparse.diags(rare.astype(np.float32))).tocsr()
    square = np.asarray(made.multiply(made).sum(1)).ravel()
    return (sparse.diags((1.0 / (np.sqrt(square) + 0.5)).astype(np.float32)) @ made).tocsr()


def neighbours(found: Affinity, entities: np.ndarray) -> Any:
    """Return how much those most like each entity took items lately (rows x items)."""
    alike = (found.tastes[entities] @ found.tastes[found.pool].T).tocsr()
    row = np.repeat(np.arange(len(entities)), np.diff(alike.indptr))
    alike.data[found.pool[alike.indices] == entities[row]] = 0.0
    alike.eliminate_zeros()
    return (best_columns(alike, _NEIGHBOURS) @ found.taken).tocsr()


def best_columns(matrix: Any, most: int) -> Any:
    """Return a sparse matrix with about the *most* largest positive values of each row."""
    width = matrix.shape[1]
    if width <= most:
        return matrix
    counts = np.diff(matrix.indptr)
    edges = np.zeros(matrix.shape[0], dtype=matrix.dtype)
    long = np.flatnonzero(counts > most)
    if width <= _DENSE_WIDTH:  # a whole row at a time costs less than sorting what is in it
        step = max(_DENSE_VALUES // width, 1)
        for at in range(0, len(long), step):
            part = long[at : at + step]
            dense = matrix[part].toarray()
            edges[part] = np.partition(dense, width - most, axis=1)[:, width - most]
    else:
        for row in long.tolist():
            values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
            edges[row] = np.partition(values, len(values) - most)[len(values) - most]
    kept = matrix.data >= np.repeat(edges, counts)
    kept &= matrix.data > 0
    total = np.concatenate([[0], np.cumsum(kept)])
    entries = (matrix.data[kept], matrix.indices[kept], total[matrix.indptr])
    return sparse.csr_matrix(entries, shape=matrix.shape)


def top_columns(matrix: Any, most: int) -> np.ndarray:
    """Return the keys row * width + column of the largest positive values of each row."""
    if isinstance(matrix, np.ndarray):
        most = min(most, matrix.shape[1])
        best = np.argpartition(-matrix, most - 1, axis=1)[:, :most]
        row = np.arange(len(matrix), dtype=np.int64)[:, None]
        return (row * matrix.shape[1] + best)[matrix[row, best] > 0]
    best = best_columns(matrix, most)
    rows = np.repeat(np.arange(best.shape[0], dtype=np.int64), np.diff(best.indptr))
    return rows * best.shape[1] + best.indices


def matched(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the place of each wanted value among sorted keys, or their number where absent."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, len(keys))
