"""A measured figure beside its peer and its limit; a table and a dated file of them."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.evaluation.machine import machine_facts

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        limit: What it must not exceed (or, with `at_least`, not fall below); None promises nothing.
        at_least: The limit is a lower one.
        peer: What it was measured beside, in the same run.
        note: Anything needed to read the figure.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    peer: str = ""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Tell whether the limit is kept; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def print_table(figures: Sequence[Figure]) -> None:
    """Print figures with limits, peers and whether each holds."""
    rows = [("figure", "value", "limit", "holds", "beside", "note")]
    for f in figures:
        bound = "" if f.limit is None else f"{'>=' if f.at_least else '<='} {f.limit:g}"
        holds = {None: "", True: "yes", False: "NO"}[f.holds]
        rows.append((f.name, f"{f.value:.4g} {f.unit}".strip(), bound, holds, f.peer, f.note))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def store(suite: str, figures: Sequence[Figure]) -> Path:
    """Write a run of a suite to results/<suite>-<date>.json; a later run of the day replaces it."""
    now = dt.datetime.now(dt.UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{suite}-{now:%Y-%m-%d}.json"
    kept = []
    if path.exists():  # parts of the suite that were not run again stay
        names = {figure.name for figure in figures}
        kept = [f for f in json.loads(path.read_text())["figures"] if f["name"] not in names]
    document = {
        "measured_at": now.isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "figures": kept + [{**asdict(f), "holds": f.holds} for f in figures],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
