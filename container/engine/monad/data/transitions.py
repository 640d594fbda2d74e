"""Which items follow which soon: counts over whole histories, the strongest of each item."""

from typing import Any

import numpy as np
from scipy import sparse

from monad.data.fields import FIRST

KEPT = 50  # followers of each item
_NEAR = 3  # events within which an item counts as following another, by one over their distance
_MOST_EVENTS = 20_000_000


def followers(
    codes: np.ndarray, owner: np.ndarray, size: int, kept: int = KEPT
) -> tuple[np.ndarray, np.ndarray]:
    """Return each item's strongest followers and their strengths, both (size, kept).

    A strength is a count over the square root of both items' frequencies, so that popular items
    do not follow everything. Unused places name item 0 with strength 0.

    Args:
        codes: Items, owner by owner in time order.
        owner: Whose event each is.
        size: Number of item codes.
        kept: Followers of an item.
    """
    codes, owner = codes[-_MOST_EVENTS:], owner[-_MOST_EVENTS:]
    counts: Any = sparse.csr_matrix((size, size), dtype=np.float32)
    for distance in range(1, _NEAR + 1):
        first, then = codes[:-distance], codes[distance:]
        keep = (owner[:-distance] == owner[distance:]) & (first >= FIRST) & (then >= FIRST)
        keep &= first != then
        share = np.full(int(keep.sum()), 1.0 / distance, np.float32)
        counts = counts + sparse.csr_matrix((share, (first[keep], then[keep])), (size, size))
    frequency = np.bincount(codes, minlength=size) + 1.0
    scale: Any = sparse.diags(frequency**-0.5)
    return _strongest((scale @ counts @ scale).tocsr(), kept)


def _strongest(matrix: Any, kept: int) -> tuple[np.ndarray, np.ndarray]:
    size = matrix.shape[0]
    row = np.repeat(np.arange(size), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, row))
    rank = np.arange(len(row)) - matrix.indptr[row]
    chosen = order[rank < kept]
    near = np.zeros((size, kept), np.int32)
    strength = np.zeros((size, kept), np.float32)
    near[row[chosen], rank[rank < kept]] = matrix.indices[chosen]
    strength[row[chosen], rank[rank < kept]] = matrix.data[chosen]
    return near, strength
