"""What rows took before a split point, and features of rows and of pairs that need nothing else."""

import dataclasses
from typing import Any

import numpy as np

DAY_STRIDE = 1 << 17  # days fit below this stride: 359 years
NEVER = 3650.0  # days
VISIT_LIVES = (1.5, 4.0)  # half lives in active days


@dataclasses.dataclass
class Own:
    """What rows took: parallel arrays over their events, and distinct days counted back."""

    size: int
    entities: np.ndarray
    rows: np.ndarray
    items: np.ndarray
    age: np.ndarray
    day: np.ndarray
    numbers: list[np.ndarray]
    back: np.ndarray  # active days of the row after the event's own
    days: np.ndarray  # active days of each row
    profiles: dict[str, Any] = dataclasses.field(default_factory=dict)
    forecast: np.ndarray | None = None  # (rows, items of the forecast)


def in_visits(own: Own, at: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Return where among the row's active days the item was taken, and how at the last."""
    keys, first = np.unique(at * DAY_STRIDE + own.day, return_index=True)
    which, back = keys // DAY_STRIDE, own.back[first]
    days = np.bincount(which, minlength=size + 1)[:size]
    oldest = np.zeros(size + 1)
    np.maximum.at(oldest, which, back)
    oldest = oldest[:size]
    made: dict[str, np.ndarray] = {
        f"visits_{life:g}": np.bincount(which, np.exp2(-back / life), size + 1)[:size]
        for life in VISIT_LIVES
    }
    made["since_first"] = np.where(days > 0, (days + 0.5) / (oldest + 2), 0.0)
    made["first_visit"] = np.log1p(oldest)
    for i, values in enumerate(own.numbers):  # events of a row are in time order
        last = np.zeros(size + 1)
        last[at] = values
        made[f"last_number_{i}"] = last[:size]
    return made


def row_features(own: Own, num_items: int) -> dict[str, np.ndarray]:
    """Return what kind of entity each row is."""
    lines = np.bincount(own.rows, minlength=own.size)
    triples = np.unique((own.rows * num_items + own.items) * DAY_STRIDE + own.day) // DAY_STRIDE
    new = np.concatenate([[True], triples[1:] != triples[:-1]])[: len(triples)]
    owner = triples // num_items
    takes = np.bincount(owner, minlength=own.size)
    kinds = np.bincount(owner, new, own.size)
    newest, oldest = np.full(own.size, NEVER), np.zeros(own.size)
    np.minimum.at(newest, own.rows, own.age)
    np.maximum.at(oldest, own.rows, own.age)
    made: dict[str, np.ndarray] = {
        "row_lines": np.log1p(lines),
        "row_days": np.log1p(own.days),
        "row_items": np.log1p(kinds),
        "row_repeats": np.log((lines + 1) / (kinds + 1)),
        "row_lines_a_day": np.log((lines + 1) / (own.days + 1)),
        "row_recency": np.log1p(newest),
        "row_tenure": np.log1p(oldest),
        "row_gap": np.log1p((oldest - newest).clip(0) / np.maximum(own.days - 1, 1)),
        "row_new_share": kinds / np.maximum(takes, 1),
    }
    for i, values in enumerate(own.numbers):
        sums = np.bincount(own.rows, values.astype(np.float64), own.size)
        made[f"row_number_{i}"] = sums / np.maximum(lines, 1)
    return made
