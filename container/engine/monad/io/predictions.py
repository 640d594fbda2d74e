"""Prediction files: tab-separated, `main_entity_id` first.

Columns: `score` (binary), `prediction` or `prediction_<i>` (regression), one column per class
(multi-class, multilabel), `item_1..item_k` and `score_1..score_k` (recommendation).
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monad.errors import CheckpointError, problem
from monad.io.writer import MANIFEST, check_writable
from monad.logs import run_logger
from monad.tasks import Task

DEFAULT_TOP_K = 12
_SPACES = str.maketrans("\t\n\r", "   ")
_DECIMALS = 5  # of a ranked item's score


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


def check_place(target: Path) -> None:
    """Check, before anything is predicted, that predictions can be saved as *target*.

    Raises:
        CheckpointError: They cannot.
    """
    check_writable(target.parent)
    if target.is_dir():
        raise CheckpointError(
            problem(f"Predictions cannot be saved as {target}", "it is a directory", "Name a file")
        )


def manifest_name(target: Path) -> str:
    """Return the name of the predictions' manifest, which lies beside them.

    Beside another artefact, such as a checkpoint, it is one of their own: that artefact's says whether
    it is complete.
    """
    try:
        kind = json.loads((target.parent / MANIFEST).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return MANIFEST
    return MANIFEST if kind == "predictions" else f"{target.stem}.{MANIFEST}"


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return str(value).translate(_SPACES)


@dataclasses.dataclass
class Ranked:
    """The best items of some rows: places in *names* and scores (rows, k), best first.

    *width* is the number of columns of each kind in the file; a shorter list is filled up with
    empty cells.
    """

    names: pa.Array
    items: np.ndarray
    scores: np.ndarray
    width: int

    def lines(self) -> list[str]:
        """Return each row's cells, joined; whole columns at a time, as k may be thousands."""
        empty = "\t" * (self.width - self.items.shape[1])
        rounded = np.round(self.scores.astype(np.float32), _DECIMALS)
        found = _joined(self.names.take(pa.array(self.items.reshape(-1))), len(self.items))
        shown = _joined(pc.cast(pa.array(rounded.reshape(-1)), pa.string()), len(self.items))
        return [f"{a}{empty}\t{b}{empty}" for a, b in zip(found, shown, strict=True)]


def item_names(values: Iterable[Any]) -> pa.Array:
    """Return item names as they are written."""
    return pa.array([_cell(value) for value in values], pa.string())


def _joined(cells: pa.Array, rows: int) -> list[str]:
    width = len(cells) // max(rows, 1)
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    lists = pa.ListArray.from_arrays(offsets, cells)
    return pc.call_function("binary_join", [lists, pa.scalar("\t")]).to_pylist()


class PredictionFile:
    """Writes rows to a file, one batch after the other."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write("\t".join(["main_entity_id", *columns]) + "\n")
        self.rows = 0
        self._respelled = 0

    def _name(self, name: Any) -> str:
        made = _cell(name)
        self._respelled += made != str(name)
        return made

    def add(self, ids: Iterable[Any], values: Iterable[Iterable[Any]]) -> None:
        """Append rows."""
        for name, row in zip(ids, values, strict=True):
            self._file.write("\t".join([self._name(name), *map(_cell, row)]) + "\n")
            self.rows += 1

    def add_ranked(self, ids: Iterable[Any], ranked: Ranked) -> None:
        """Append rows of ranked items."""
        pairs = zip(ids, ranked.lines(), strict=True)
        lines = [f"{self._name(name)}\t{line}\n" for name, line in pairs]
        self._file.writelines(lines)
        self.rows += len(lines)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
        if self._respelled:
            run_logger.warning(
                "%d main entity ids hold tabs or line breaks, which predictions have as spaces: two"
                " ids may read the same",
                self._respelled,
            )
