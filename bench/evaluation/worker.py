"""One cell in a process of its own, so that wall time and memory are its own.

`python -m bench.evaluation.worker PROBLEM METHOD OUTPUT --seed N` reads the past from PROBLEM, writes
the predictions to OUTPUT (.npz) and the facts beside it (.facts.json).
"""

import argparse
import platform
import resource
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from bench.evaluation.machine import machine_facts
from bench.evaluation.methods import load_method
from bench.evaluation.methods.base import Effort
from bench.evaluation.store import load_problem, write_json

_PACKAGES = ("numpy", "scipy", "lightgbm", "implicit", "rectools", "torch", "pytorch-lightning")


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process, in MiB.

    `ru_maxrss` also counts the process that was forked from, so Linux's own figure comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run one cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", type=Path)
    parser.add_argument("method")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--budget-seconds", type=float)
    parser.add_argument("--num-threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    problem = load_problem(chosen.problem)
    effort = Effort(
        seed=chosen.seed,
        quick=chosen.quick,
        budget_seconds=chosen.budget_seconds,
        num_threads=chosen.num_threads,
        work_dir=str(chosen.output.parent / f"{chosen.output.stem}.work"),
    )
    base_mib, began, cpu = peak_rss_mib(), time.perf_counter(), time.process_time()
    prediction = load_method(chosen.method).predict(problem, effort)
    facts = {
        "wall_seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_mib": peak_rss_mib(),
        "rss_before_mib": base_mib,
        "packages": package_versions(),
        "machine": machine_facts(),
        "details": prediction.facts,
    }
    if prediction.values.shape[0] != len(problem.population):
        raise ValueError(
            f"{chosen.method} answered for {prediction.values.shape[0]} of "
            f"{len(problem.population)} rows."
        )
    np.savez(chosen.output, values=prediction.values)
    write_json(chosen.output.with_suffix(".facts.json"), facts)


if __name__ == "__main__":
    main()
