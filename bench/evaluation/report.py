"""Writes docs/evaluation.md and a dated JSON from the cells that are finished.

The page is made by code alone: a figure in it that is not in a cell cannot exist.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluation.catalogue import Sources
from bench.evaluation.definitions import Task
from bench.evaluation.machine import machine_facts
from bench.evaluation.scoring import HIGHER_IS_BETTER, Judged, compare, primary_metric
from bench.evaluation.store import load_answers, write_json

SUBJECT, SCRATCH, LABELS = "engine", "-from-scratch", "-labels-"
COMPARED = {
    "binary": ("auroc",),
    "regression": ("mae", "rmsle", "mae_without_top_1_percent"),
    "recommendation": ("primary",),
}
INTRODUCTION = """# Evaluation

Written by `make evaluate`; do not edit. Definitions: `bench/evaluation/definitions.py`. Inputs end at the
cut-off (`time <= T`), labels lie in `T < time <= T + horizon`. A method runs in a process of its own, on a
file that ends at the cut-off; every choice is made before it. A figure with a spread is the mean over seeds
and the standard deviation between them. Intervals are 95 %, from a paired bootstrap over entities, the same
entities in every cut-off. "Best peer" is the best on the test windows themselves, which favours the peers.

## Running it

| what | command |
|---|---|
| in minutes, to see that it works | `make evaluate QUICK=1 DATA=DIR` |
| in full (hours; finished cells are kept, so it can be stopped) | `make evaluate DATA=DIR` |
| a copy of the H&M Kaggle files (RelBench rel-hm definition) | `make evaluate HM=DIR` |
| leave-one-out on a file of user, item, timestamp | `make evaluate INTERACTIONS=FILE` |
| one part | `.venv-peers/bin/python -m bench.evaluation run --dataset online-retail --task churn --method lightgbm` |

DIR holds `online-retail/` and `complete-journey-sample/`; what is not there is skipped with a reason. Generated
H&M-shaped data always run. A cell is one method on one task, cut-off and seed; it is run again when its JSON below
`.monad/evaluation` is removed.
"""


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Return the finished cells below *folder*."""
    found = sorted(p for p in (folder / "cells").glob("*/*/*/*.json") if ".facts" not in p.name)
    return [json.loads(path.read_text()) | {"path": str(path)} for path in found]


def by_task(cells: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the cells of each data set and task."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        grouped[(cell["dataset"], cell["task"]["name"])].append(cell)
    return grouped


def spread(values: list[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation between *values*."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def number(value: float) -> str:
    """Return *value* with as many digits as matter."""
    if not np.isfinite(value):
        return "n/a"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def with_spread(values: list[float]) -> str:
    """Return the mean, with its spread over seeds when there are several."""
    if not values:
        return ""
    mean, deviation = spread(values)
    return f"{number(mean)} ± {number(deviation)}" if len(values) > 1 else number(mean)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def method_means(cells: list[dict[str, Any]], metric: str) -> dict[str, dict[str, list[float]]]:
    """Return metric values by method and cut-off."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if metric in cell["metrics"]:
            found[cell["method"]][cell["cutoff"]].append(cell["metrics"][metric])
    return found


def overall(cutoffs: dict[str, list[float]]) -> float:
    """Return the mean over cut-offs of the mean over seeds."""
    return float(np.mean([np.mean(values) for values in cutoffs.values()]))


def metric_table(cells: list[dict[str, Any]], metric: str, *, higher: bool) -> str:
    """Return methods by cut-offs for one metric, best first."""
    found = method_means(cells, metric)
    cutoffs = sorted({cell["cutoff"] for cell in cells})
    order = sorted(found, key=lambda name: overall(found[name]) * (-1 if higher else 1))
    rows = []
    for name in order:
        row = [name] + [with_spread(found[name].get(cutoff, [])) for cutoff in cutoffs]
        complete = len(found[name]) == len(cutoffs)
        rows.append([*row, number(overall(found[name])) if complete else ""])
    return table([metric, *cutoffs, "mean"], rows)


def cost_table(cells: list[dict[str, Any]]) -> str:
    """Return wall seconds, processor seconds and peak memory of a cell, by method."""
    rows = []
    for name in sorted({cell["method"] for cell in cells}):
        mine = [cell for cell in cells if cell["method"] == name]
        rows.append(
            [
                name,
                with_spread([c["wall_seconds"] for c in mine]),
                with_spread([c["cpu_seconds"] for c in mine]),
                f"{max(c['peak_rss_mib'] for c in mine):.0f}",
                f"{max(max(c['load_average']) for c in mine):.1f}",
            ]
        )
    head = ["cost of one cell", "wall seconds", "processor seconds", "peak MiB", "highest load"]
    return table(head, rows)


def best_peer(cells: list[dict[str, Any]], metric: str, *, higher: bool) -> str | None:
    """Return the peer with the best mean that has every cut-off."""
    found = method_means(cells, metric)
    cutoffs = {cell["cutoff"] for cell in cells}
    names = [n for n in found if n != SUBJECT and set(found[n]) == cutoffs]
    if not names:
        return None
    pick = max if higher else min
    return pick(names, key=lambda name: overall(found[name]))


def judged(cells: list[dict[str, Any]], method: str, folder: Path) -> list[list[Judged]]:
    """Return predictions of *method* for each cut-off and seed."""
    sides: dict[str, list[Judged]] = defaultdict(list)
    for cell in sorted(cells, key=lambda c: (c["cutoff"], c["seed"])):
        if cell["method"] != method:
            continue
        name = f"{cell['dataset']}-{cell['cutoff']}-{cell['task']['name']}.npz"
        answers, num_items = load_answers(folder / "answers" / name)
        with np.load(Path(cell["path"]).with_suffix(".npz"), allow_pickle=False) as stored:
            sides[cell["cutoff"]].append(Judged(answers, stored["values"], num_items))
    return [sides[cutoff] for cutoff in sorted(sides)]


def comparisons(cells: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield comparisons of the engine with the best peer of the cut-offs that it has."""
    task = Task(**cells[0]["task"])
    higher = HIGHER_IS_BETTER[task.kind]
    engine = [cell for cell in cells if cell["method"] == SUBJECT]
    shared = {cell["cutoff"] for cell in engine}
    among = [cell for cell in cells if cell["cutoff"] in shared]
    for named in COMPARED[task.kind]:
        metric = primary_metric(task) if named == "primary" else named
        peer = best_peer(among, metric, higher=higher)
        if peer is None or not engine:
            continue
        both = [cell for cell in among if cell["method"] in (SUBJECT, peer)]
        for cutoff in ("mean", *sorted(shared)):
            picked = [c for c in both if cutoff in ("mean", c["cutoff"])]
            sides = [judged(picked, name, folder) for name in (SUBJECT, peer)]
            found = compare(task, metric, *sides)
            theirs = overall(method_means(picked, metric)[peer])
            yield {
                "metric": metric,
                "cutoff": cutoff,
                "peer": peer,
                "relative": found["difference"] / theirs if theirs else float("nan"),
                **found,
            }


def comparison_table(found: list[dict[str, Any]]) -> str:
    """Return the comparisons as a table."""
    rows = [
        [
            c["metric"],
            c["cutoff"],
            c["peer"],
            number(c["difference"]),
            f"{number(c['low'])} to {number(c['high'])}",
            f"{100 * c['relative']:+.1f} %",
        ]
        for c in found
    ]
    head = ["engine minus best peer", "cut-off", "peer", "difference", "95 % interval", "relative"]
    return table(head, rows)


def section(cells: list[dict[str, Any]], folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of one data set and task, and its comparisons."""
    task = Task(**cells[0]["task"])
    higher = HIGHER_IS_BETTER[task.kind]
    sizes = {c["cutoff"]: c["population"] for c in cells}
    counted = ", ".join(f"{cutoff}: {size}" for cutoff, size in sorted(sizes.items()))
    who = f" among those active in the {task.active_days} days before" if task.active_days else ""
    split = (
        "last event of each entity" if task.leave_one_out else f"{task.horizon_days}-day windows"
    )
    parts = [
        f"### {cells[0]['dataset']}: {task.name}",
        f"{task.kind}, {split}{who}. Population: {counted}.",
        metric_table(cells, primary_metric(task), higher=higher),
    ]
    found = list(comparisons(cells, folder))
    if found:
        parts.append(comparison_table(found))
    for metric in sorted({name for cell in cells for name in cell["metrics"]}):
        if metric != primary_metric(task):
            up = higher and metric not in ("log_loss", "ece")
            parts.append(metric_table(cells, metric, higher=up))
    parts.append(cost_table(cells))
    return "\n\n".join(parts), found


def label_table(cells: list[dict[str, Any]]) -> str:
    """Return the engine beside the same network from scratch, by share of labels."""
    rows = []
    for (dataset, name), mine in sorted(by_task(cells).items()):
        task = Task(**mine[0]["task"])
        found = method_means(mine, primary_metric(task))
        for share, suffix in (("1 %", "-labels-1"), ("10 %", "-labels-10"), ("100 %", "")):
            sides = [found.get(f"{kind}{suffix}", {}) for kind in (SUBJECT, f"{SUBJECT}{SCRATCH}")]
            shared = sorted(set(sides[0]) & set(sides[1]))
            if not shared:
                continue
            values = [overall({cutoff: side[cutoff] for cutoff in shared}) for side in sides]
            each = " ".join(
                number(float(np.mean(sides[0][cutoff]) - np.mean(sides[1][cutoff])))
                for cutoff in shared
            )
            shown = [number(value) for value in (*values, values[0] - values[1])]
            rows.append([dataset, name, share, primary_metric(task), *shown, each])
    if not rows:
        return ""
    head = ["data set", "task", "labels", "metric", "pretrained", "from scratch", "difference"]
    text = (
        "The same network, size, rows and steps. `from scratch` begins at random weights, may train all"
        " of them, and has the budget of pretraining on top of its own. Labels are a share of the"
        " pairs of an entity and a split point, validation included."
    )
    made = table([*head, "difference by cut-off"], rows)
    return f"### What pretraining brings\n\n{text}\n\n{made}"


def attribute_table(cells: list[dict[str, Any]]) -> str:
    """Return what attributes change: a data set beside itself without them; empty when not run."""
    suffix, rows = "-without-attributes", []
    grouped = by_task(cells)
    for (dataset, name), bare in sorted(grouped.items()):
        full = grouped.get((dataset.removesuffix(suffix), name))
        if not dataset.endswith(suffix) or not full:
            continue
        metric = primary_metric(Task(**bare[0]["task"]))
        with_them, without = method_means(full, metric), method_means(bare, metric)
        for method in sorted(set(with_them) & set(without)):
            if set(with_them[method]) != set(without[method]):
                continue
            values = overall(with_them[method]), overall(without[method])
            shown = [number(value) for value in (*values, values[0] - values[1])]
            rows.append([dataset.removesuffix(suffix), name, method, metric, *shown])
    if not rows:
        return ""
    head = ["data set", "task", "method", "metric", "with", "without", "difference"]
    return "### What attributes add\n\n" + table(head, rows)


def machine_lines(cells: list[dict[str, Any]]) -> str:
    """Return which methods ran on which machine, and the budgets of the engine."""
    ran: dict[str, set[str]] = defaultdict(set)
    budgets: dict[str, set[float]] = defaultdict(set)
    for cell in cells:
        facts = cell.get("machine") or {"machine": "not recorded"}
        described = ", ".join(f"{name} {value}" for name, value in sorted(facts.items()))
        ran[described].add(cell["method"])
        if cell.get("budget_seconds"):
            budgets[cell["dataset"]].add(cell["budget_seconds"])
    lines = [f"- {', '.join(sorted(names))}: {described}" for described, names in ran.items()]
    if budgets:
        shown = "; ".join(
            f"{dataset} {', '.join(f'{seconds:g} s' for seconds in sorted(found))}"
            for dataset, found in sorted(budgets.items())
        )
        lines.append(f"- Budget of the engine, for pretraining and again for each task: {shown}")
    return "\n".join(lines)


def write_report(sources: Sources, *, results_dir: Path, docs: Path) -> list[Path]:
    """Write the page and the dated JSON from the finished cells, and return their paths."""
    folder = sources.work_dir / ("quick" if sources.quick else "full")
    every = read_cells(folder)
    variants = (f"{SUBJECT}{SCRATCH}", f"{SUBJECT}{LABELS}")
    cells = [cell for cell in every if not cell["method"].startswith(variants)]
    facts, day = machine_facts(), time.strftime("%Y-%m-%d", time.gmtime())
    sections, compared = [], {}
    for (dataset, task), mine in sorted(by_task(cells).items()):
        text, compared[f"{dataset}/{task}"] = section(mine, folder)
        sections.append(text)
    size = "Quick run: small data, little tuning; not figures to compare." if sources.quick else ""
    written = f"## Results\n\nWritten on {day}. What ran where:\n\n{machine_lines(every)}"
    head = [INTRODUCTION.strip(), written, size]
    parts = [*head, label_table(every), attribute_table(cells), *sections]
    page = "\n\n".join(part for part in parts if part) + "\n"
    docs.parent.mkdir(parents=True, exist_ok=True)
    docs.write_text(page)
    suffix = "-quick" if sources.quick else ""
    path = results_dir / f"evaluation-{day}{suffix}.json"
    plain = [{k: v for k, v in cell.items() if k != "path"} for cell in every]
    write_json(path, {"machine": facts, "cells": plain, "comparisons": compared})
    return [docs, path]
