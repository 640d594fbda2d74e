"""Runs cells: one data set, cut-off, task, method and seed each, in a process of its own.

A cell is finished when its JSON exists, so a run that was stopped goes on where it stood. The files
of problems hold the past alone; answers are opened here, after the worker has ended.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluation.catalogue import DataMissingError, Sources, datasets, problems, shortened
from bench.evaluation.definitions import Task
from bench.evaluation.methods import METHODS, load_method
from bench.evaluation.scoring import score
from bench.evaluation.store import load_answers, save_answers, save_problem, write_json

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        sources: Where data is.
        seeds: Seeds of methods that have any use for them.
        datasets, cutoffs, tasks, methods: Names to narrow down to; empty for all.
        interpreters: Python of each environment.
        budget_seconds: Training time of the engine.
        timeout_seconds: Limit of one cell.
        num_threads: Threads of a method.
    """

    sources: Sources
    seeds: tuple[int, ...] = (0, 1, 2)
    datasets: tuple[str, ...] = ()
    cutoffs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    interpreters: dict[str, str] = field(default_factory=dict)
    budget_seconds: float | None = None
    timeout_seconds: float = 7200.0
    num_threads: int = 2


@dataclass(frozen=True)
class Cell:
    """One thing to run."""

    dataset: str
    cutoff: str
    task: Task
    method: str
    seed: int
    folder: Path

    @property
    def stem(self) -> Path:
        """Return the path of the cell's files, without a suffix."""
        place = self.folder / "cells" / self.dataset / self.cutoff / self.task.name
        return place / f"{self.method}-{self.seed}"

    @property
    def problem(self) -> Path:
        """Return the file of the past."""
        name = f"{self.dataset}-{self.cutoff}-{self.task.name}.npz"
        return self.folder / "problems" / name

    @property
    def answers(self) -> Path:
        """Return the file of the answers."""
        return self.folder / "answers" / self.problem.name

    @property
    def result(self) -> Path:
        """Return the file that says the cell is finished."""
        return self.stem.with_name(self.stem.name + ".json")


def cells(plan: Plan, say: Callable[[str], None]) -> Iterator[Cell]:
    """Yield the cells of *plan*; problems that are not yet written are written first."""
    folder = plan.sources.work_dir / ("quick" if plan.sources.quick else "full")
    for full in datasets(plan.sources):
        if plan.datasets and full.name not in plan.datasets:
            continue
        if plan.sources.quick and full.quick_skips and not plan.datasets:
            continue
        dataset = shortened(full) if plan.sources.quick else full
        try:
            log = dataset.load(plan.sources)
        except DataMissingError as error:
            say(f"{dataset.name}: skipped, {error}")
            continue
        for text, problem, answers, num_items in problems(dataset, log, plan.cutoffs, plan.tasks):
            names = [name for name in dataset.methods or METHODS if fits(name, problem.task)]
            names = [name for name in names if not plan.methods or name in plan.methods]
            first = Cell(dataset.name, text, problem.task, "", 0, folder)
            if not first.answers.exists():
                save_problem(first.problem, problem)
                save_answers(first.answers, answers, num_items)
            for name in names:
                for seed in plan.seeds if load_method(name).seeded else plan.seeds[:1]:
                    yield Cell(dataset.name, text, problem.task, name, seed, folder)


def fits(name: str, task: Task) -> bool:
    """Tell whether the method called *name* answers *task*."""
    method = load_method(name)
    if task.kind not in method.kinds:
        return False
    return not task.leave_one_out or getattr(method, "leave_one_out", False)


def command(cell: Cell, plan: Plan, interpreter: str) -> list[str]:
    """Return the worker's command line."""
    output = cell.stem.with_name(cell.stem.name + ".npz")
    line = [interpreter, "-m", "bench.evaluation.worker", str(cell.problem), cell.method]
    line += [str(output), "--seed", str(cell.seed), "--num-threads", str(plan.num_threads)]
    if plan.sources.quick:
        line.append("--quick")
    if plan.budget_seconds is not None:
        line += ["--budget-seconds", str(plan.budget_seconds)]
    return line


def run_cell(cell: Cell, plan: Plan) -> dict[str, Any]:
    """Run one cell and return its result.

    Raises:
        RuntimeError: The worker failed; the message ends with its last lines.
    """
    environment = load_method(cell.method).environment
    interpreter = plan.interpreters.get(environment, "")
    if not interpreter or not Path(interpreter).exists():
        raise RuntimeError(f"no interpreter for the environment {environment!r}")
    cell.stem.parent.mkdir(parents=True, exist_ok=True)
    log_path = cell.stem.with_name(cell.stem.name + ".log")
    variables = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'container' / 'engine'}",
        "OMP_NUM_THREADS": str(plan.num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # on a busy machine, spinning threads starve one another
        "OPENBLAS_NUM_THREADS": "1",
    }
    output = cell.stem.with_name(cell.stem.name + ".npz")
    for stale in (output, output.with_suffix(".facts.json")):
        stale.unlink(missing_ok=True)
    load_before = os.getloadavg()[0]
    with log_path.open("w") as log:
        done = subprocess.run(
            command(cell, plan, interpreter),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=variables,
            timeout=plan.timeout_seconds,
            check=False,
        )
    if done.returncode or not output.with_suffix(".facts.json").exists():
        tail = " | ".join(log_path.read_text(errors="replace").splitlines()[-3:])
        raise RuntimeError(f"exit code {done.returncode}: {tail} (log: {log_path})")
    return judge(cell, plan, load_before)


def judge(cell: Cell, plan: Plan, load_before: float) -> dict[str, Any]:
    """Score the predictions of *cell* and write its result."""
    import json

    output = cell.stem.with_name(cell.stem.name + ".npz")
    facts = json.loads(cell.stem.with_name(cell.stem.name + ".facts.json").read_text())
    answers, num_items = load_answers(cell.answers)
    with np.load(output, allow_pickle=False) as stored:
        values = stored["values"]
    result = {
        "dataset": cell.dataset,
        "cutoff": cell.cutoff,
        "task": asdict(cell.task),
        "method": cell.method,
        "seed": cell.seed,
        "quick": plan.sources.quick,
        "budget_seconds": plan.budget_seconds if cell.method.startswith("engine") else None,
        "population": len(answers.entity),
        "metrics": score(cell.task, answers, values, num_items),
        "load_average": [load_before, os.getloadavg()[0]],
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
    }
    write_json(cell.result, result)
    return result


def run(plan: Plan, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> int:
    """Run what is not finished yet and return the number of cells that failed."""
    failed = 0
    for cell in cells(plan, say):
        title = f"{cell.dataset} {cell.cutoff} {cell.task.name} {cell.method} seed {cell.seed}"
        if cell.result.exists():
            continue
        try:
            result = run_cell(cell, plan)
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            failed += 1
            say(f"{title}: failed, {error}")
            continue
        shown = ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
        say(f"{title}: {shown} ({result['wall_seconds']:.1f} s, {result['peak_rss_mib']:.0f} MiB)")
    return failed
