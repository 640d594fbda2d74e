"""Interaction files shaped like public ones, for speed and sanity: `python -m ...shaped NAME FILE`.

Users drift between groups of items, popularity is skewed, and several events share a second, so that
a sequence model has something to learn. Quality on them says nothing about the public files.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Shape:
    """Numbers of users, items and events a user (lognormal, least and most)."""

    users: int
    items: int
    mean: float
    spread: float
    least: int
    most: int
    tied: float


SHAPES = {
    "ml-1m": Shape(6_040, 3_416, 165.0, 0.95, 18, 2_277, 0.5),
    "amazon": Shape(22_363, 12_101, 8.9, 0.6, 5, 200, 0.2),
}
_GROUPS, _STAY = 60, 0.85


def generate(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write user, item and timestamp, tab separated, in time order within each user."""
    random = np.random.default_rng(seed)
    size = random.lognormal(np.log(shape.mean) - shape.spread**2 / 2, shape.spread, shape.users)
    size = np.clip(size.astype(int), shape.least, shape.most)
    group_of = random.integers(0, _GROUPS, shape.items)
    weight = 1.0 / (np.arange(shape.items) + 20.0)
    members = [np.flatnonzero(group_of == g) for g in range(_GROUPS)]
    follows = random.integers(0, _GROUPS, (_GROUPS, 3))
    with path.open("w", encoding="utf-8") as file:
        for user in range(shape.users):
            group, clock = int(random.integers(_GROUPS)), int(random.integers(9e8, 1e9))
            seen: set[int] = set()
            for _ in range(size[user]):
                if random.random() > _STAY:
                    group = int(follows[group, random.integers(3)])
                found = members[group]
                item = int(random.choice(found, p=weight[found] / weight[found].sum()))
                if item in seen:
                    item = int(random.integers(shape.items))
                seen.add(item)
                clock += 0 if random.random() < shape.tied else int(random.exponential(3_000)) + 1
                file.write(f"{user}\t{item}\t{clock}\n")


if __name__ == "__main__":
    generate(Path(sys.argv[2]), SHAPES[sys.argv[1]])
