"""Prediction files: tab-separated, `main_entity_id` first.

Columns: `score` (binary), `prediction` or `prediction_<i>` (regression), one column per class
(multi-class, multilabel), `item_1..item_k` and `score_1..score_k` (recommendation).
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from monad.tasks import Task

DEFAULT_TOP_K = 12


def header(task: Task, top_k: int | None) -> list[str]:
    """Return the column names after `main_entity_id`."""
    if task.kind == "recommendation":
        k = top_k or DEFAULT_TOP_K
        return [f"item_{i + 1}" for i in range(k)] + [f"score_{i + 1}" for i in range(k)]
    if task.kind == "binary":
        return ["score"]
    if task.kind == "regression":
        if task.num_outputs == 1:
            return ["prediction"]
        return [f"prediction_{i}" for i in range(task.num_outputs)]
    return list(task.class_names)  # type: ignore[attr-defined]


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return str(value).replace("\t", " ").replace("\n", " ")


class PredictionFile:
    """Writes rows to a file, one batch after the other."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write("\t".join(["main_entity_id", *columns]) + "\n")
        self.rows = 0

    def add(self, ids: Iterable[Any], values: Iterable[Iterable[Any]]) -> None:
        """Append rows."""
        for name, row in zip(ids, values, strict=True):
            self._file.write("\t".join([_cell(name), *map(_cell, row)]) + "\n")
            self.rows += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def copy_sequentially(source: Path, target: Path) -> None:
    """Copy a finished file to its place in one pass."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 4 * 1024 * 1024)
