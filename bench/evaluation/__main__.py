"""Command line: `python -m bench.evaluation run|report`.

Example: python -m bench.evaluation run --data DIR --dataset online-retail --method lightgbm --seeds 3
"""

import argparse
import os
import sys
from pathlib import Path

from bench.evaluation.catalogue import Sources
from bench.evaluation.report import write_report
from bench.evaluation.runner import ROOT, Plan, run


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("run", "report", "all"))
    data = os.environ.get("MONAD_EVALUATION_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--hm", type=Path, help="folder with the H&M Kaggle files")
    parser.add_argument("--interactions", type=Path, action="append", default=[])
    parser.add_argument("--work", type=Path, default=ROOT / ".monad" / "evaluation")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "evaluation.md")
    for name in ("dataset", "cutoff", "task", "method"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--budget-seconds", type=float, help="training time of the engine")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--timeout-seconds", type=float, default=7200.0)
    parser.add_argument("--quick", action="store_true", help="small versions, in minutes")
    for name, venv in (
        ("peers", ".venv-peers"),
        ("rectools", ".venv-rectools"),
        ("engine", ".venv"),
    ):
        parser.add_argument(f"--python-{name}", default=str(ROOT / venv / "bin" / "python"))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run cells, write the report, or both."""
    chosen = _parser().parse_args(arguments)
    sources = Sources(
        work_dir=chosen.work.resolve(),
        data_dir=chosen.data,
        hm_dir=chosen.hm,
        interactions=tuple(chosen.interactions),
        quick=chosen.quick,
    )
    plan = Plan(
        sources=sources,
        seeds=tuple(range(chosen.seeds)),
        datasets=tuple(chosen.dataset),
        cutoffs=tuple(chosen.cutoff),
        tasks=tuple(chosen.task),
        methods=tuple(chosen.method),
        interpreters={
            "peers": chosen.python_peers,
            "rectools": chosen.python_rectools,
            "engine": chosen.python_engine,
        },
        budget_seconds=chosen.budget_seconds,
        timeout_seconds=chosen.timeout_seconds,
        num_threads=chosen.num_threads,
    )
    failed = run(plan) if chosen.command in ("run", "all") else 0
    if chosen.command in ("report", "all"):
        written = write_report(sources, results_dir=chosen.results, docs=chosen.docs)
        print("\n".join(str(path) for path in written))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
