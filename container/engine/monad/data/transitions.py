"""Which items follow which soon: counts over whole histories, the strongest of each item."""

from typing import Any

import numpy as np
import torch
from scipy import sparse

from monad.data.fields import FIRST

KEPT = 50  # followers of each item
_NEAR = 6  # events within which an item counts as following another, by one over their distance
_BACK = 0.5  # what an item counts for that came before
_POWER = 0.4  # of both items' frequencies, by which a count is divided
_MOST_EVENTS = 20_000_000
# Items up to which a square of all pairs is counted, which is fastest, on a CPU and on a GPU.
_DENSE, _DENSE_GPU = 6_000, 20_000


def followers(
    codes: np.ndarray,
    owner: np.ndarray,
    size: int,
    kept: int = KEPT,
    device: torch.device | str = "cpu",
    dense: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each item's strongest followers and their strengths, both (size, kept).

    A strength is a count over powers of both items' frequencies, so that popular items do not
    follow everything. Unused places have strength 0.

    Args:
        codes: Items, owner by owner in time order.
        owner: Whose event each is.
        size: Number of item codes.
        kept: Followers of an item.
        device: Where to count.
        dense: Items up to which all pairs are counted in one square.
    """
    codes, owner = codes[-_MOST_EVENTS:], owner[-_MOST_EVENTS:]
    scale = (np.bincount(codes, minlength=size) + 1.0) ** -_POWER
    if dense is None:
        dense = _DENSE_GPU if torch.device(device).type == "cuda" else _DENSE
    if size <= dense:
        near, strength = _counted_densely(codes, owner, scale, min(kept, size), device)
    else:
        near, strength = _counted_sparsely(codes, owner, scale, kept)
    made = torch.zeros(size, kept, dtype=torch.int32), torch.zeros(size, kept)
    made[0][:, : near.shape[1]], made[1][:, : near.shape[1]] = near, strength
    return made


def _pairs(codes: Any, owner: Any, distance: int) -> tuple[Any, Any]:
    first, then = codes[:-distance], codes[distance:]
    keep = (owner[:-distance] == owner[distance:]) & (first >= FIRST) & (then >= FIRST)
    keep &= first != then
    return first[keep], then[keep]


def _counted_densely(
    codes: np.ndarray, owner: np.ndarray, scale: np.ndarray, kept: int, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    size = len(scale)
    flat = torch.zeros(size * size, device=device)
    items, owners = torch.from_numpy(codes).to(device), torch.from_numpy(owner).to(device)
    for distance in range(1, _NEAR + 1):
        first, then = _pairs(items, owners, distance)
        share = torch.full((len(first),), 1.0 / distance, device=device)
        flat.scatter_add_(0, first * size + then, share)
    counts = flat.view(size, size)
    counts = torch.add(counts, counts.T, alpha=_BACK)
    shares = torch.from_numpy(scale.astype(np.float32)).to(device)
    best = torch.topk(counts.mul_(shares[:, None]).mul_(shares), kept)
    return best.indices.int().cpu(), best.values.cpu()


def _counted_sparsely(
    codes: np.ndarray, owner: np.ndarray, scale: np.ndarray, kept: int
) -> tuple[torch.Tensor, torch.Tensor]:
    size = len(scale)
    counts: Any = sparse.csr_matrix((size, size), dtype=np.float32)
    for distance in range(1, _NEAR + 1):
        first, then = _pairs(codes, owner, distance)
        share = np.full(len(first), 1.0 / distance, np.float32)
        counts = counts + sparse.csr_matrix((share, (first, then)), (size, size))
    counts = counts + _BACK * counts.T
    shares: Any = sparse.diags(scale.astype(np.float32))
    counts = (shares @ counts @ shares).tocsr()
    row = np.repeat(np.arange(size), np.diff(counts.indptr))
    order = np.lexsort((-counts.data, row))
    rank = np.arange(len(row)) - counts.indptr[row]
    chosen, at = order[rank < kept], rank[rank < kept]
    near, strength = np.zeros((size, kept), np.int32), np.zeros((size, kept), np.float32)
    near[row[chosen], at], strength[row[chosen], at] = counts.indices[chosen], counts.data[chosen]
    return torch.from_numpy(near), torch.from_numpy(strength)
