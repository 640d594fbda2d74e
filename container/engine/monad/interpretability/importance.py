"""Importance of sources, columns and values over many rows, and the files that hold it.

    source_importance.json, source_importance.png
    <source>/feature_importance.json
    <source>/<column>.json

A column's importance is the mean over rows of the size of all its attributions in that row; a
source's is that of its columns, as a share of all. A value's attribution is the mean over its
occurrences, with its sign.
"""

import itertools
import json
import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from monad.data.fields import Field
from monad.data.store import NUMBER
from monad.interpretability.inputs import Entries, unsquash

logger = logging.getLogger("monad.run")
_MOST_VALUES = 1_000


class Importance:
    """Adds up attributions, one group of rows after the other."""

    def __init__(self) -> None:
        self.rows = 0
        self._size: dict[tuple[str, str], float] = defaultdict(float)
        self._signed: dict[tuple[str, str], float] = defaultdict(float)
        self._values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)

    def add(self, entries: list[Entries], rows: int) -> None:
        """Add the attributions of a group of rows."""
        per_row: dict[tuple[str, str], np.ndarray] = {}
        for item in entries:
            key = (item.source, item.name)
            total = np.bincount(item.rows, weights=item.amounts, minlength=rows)
            per_row[key] = per_row.get(key, 0.0) + total
            self._add_values(key, item)
        for key, total in per_row.items():
            self._size[key] += float(np.abs(total).sum())
            self._signed[key] += float(total.sum())
        self.rows += rows

    def _add_values(self, key: tuple[str, str], item: Entries) -> None:
        if item.codes is not None and item.field is not None:
            labels = np.array(item.values(), dtype=object)
        elif item.numbers is not None and item.field is not None:
            labels = _binned(item.field, item.numbers)
        else:
            return
        found = self._values[key]
        names, codes = np.unique(labels.astype(str), return_inverse=True)
        sums = np.bincount(codes, weights=item.amounts, minlength=len(names))
        counts = np.bincount(codes, minlength=len(names))
        for name, total, count in zip(names.tolist(), sums, counts, strict=True):
            kept = found.setdefault(name, [0.0, 0])
            kept[0] += float(total)
            kept[1] += int(count)

    def features(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return source -> column -> importance and mean signed attribution."""
        made: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        for (source, name), size in self._size.items():
            made[source][name] = {
                "importance": size / max(self.rows, 1),
                "attribution": self._signed[source, name] / max(self.rows, 1),
            }
        return {
            source: dict(sorted(found.items(), key=lambda kv: -kv[1]["importance"]))
            for source, found in made.items()
        }

    def sources(self) -> dict[str, float]:
        """Return each source's share of all importance, largest first."""
        sums = {
            source: sum(item["importance"] for item in found.values())
            for source, found in self.features().items()
        }
        whole = sum(sums.values()) or 1.0
        shares = {source: value / whole for source, value in sums.items()}
        return dict(sorted(shares.items(), key=lambda kv: -kv[1]))

    def write(self, directory: Path, facts: dict[str, Any]) -> None:
        """Write all files into *directory*, which is on scratch."""
        directory.mkdir(parents=True, exist_ok=True)
        shares = self.sources()
        _dump(directory / "source_importance.json", {**facts, "rows": self.rows, "sources": shares})
        _draw(directory / "source_importance.png", shares)
        for source, found in self.features().items():
            place = directory / _file_name(source)
            place.mkdir(exist_ok=True)
            _dump(place / "feature_importance.json", found)
            for name in found:
                values = self._values.get((source, name))
                if values:
                    _dump(place / f"{_file_name(name)}.json", _ordered(values))


def _ordered(values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    most = sorted(values.items(), key=lambda kv: -kv[1][1])[:_MOST_VALUES]
    return {
        name: {"attribution": total / max(count, 1), "count": count}
        for name, (total, count) in sorted(most, key=lambda kv: -abs(kv[1][0] / max(kv[1][1], 1)))
    }


def _binned(field: Field, numbers: np.ndarray) -> np.ndarray:
    """Name the quantile bin of each number."""
    assert field.kind == NUMBER
    edges = unsquash(np.asarray(field.edges))
    at = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:.6g} to {high:.6g}" for low, high in itertools.pairwise(edges)]
    made = np.array(names, dtype=object)[at]
    made[np.isnan(numbers)] = "(missing)"
    return made


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._()-]", "_", name)


def _dump(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _draw(path: Path, shares: dict[str, float]) -> None:
    """Draw the shares of sources; says so when matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning(
            "%s is not drawn: matplotlib is missing. Install it (the engine's `interpretability` extra);"
            " the numbers are in source_importance.json",
            path.name,
        )
        return
    figure = Figure(figsize=(6, 1 + 0.4 * len(shares)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh(list(shares)[::-1], list(shares.values())[::-1])
    axes.set_xlabel("share of importance")
    figure.savefig(path, dpi=120)
