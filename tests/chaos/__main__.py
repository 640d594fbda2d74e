"""Command line of the experiments: `python -m tests.chaos matrix`, `python -m tests.chaos run`."""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.matrix import ALL_CELLS, COVERING_CELLS, judge, run_cells
from tests.chaos.run import ChaosRun
from tests.chaos.stand import open_stand
from tests.chaos.table import render


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run one experiment; the exit status says whether everything was right."""
    logging.disable(logging.ERROR)  # the connector's account of every connection that broke
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    commands = parser.add_subparsers(required=True)
    matrix = commands.add_parser("matrix", help="the signal matrix")
    matrix.add_argument("--covering", action="store_true", help="ten cells instead of all")
    matrix.add_argument("--only", default="", help="cells whose name contains this")
    matrix.add_argument("--write", type=Path, help="write the table into this page")
    matrix.set_defaults(command=run_matrix)
    chaos = commands.add_parser("run", help="materializations under random faults")
    chaos.add_argument("--seed", type=int, action="append", help="may be given several times")
    chaos.add_argument("--count", type=int, default=200)
    chaos.set_defaults(command=run_chaos)
    for command in (matrix, chaos):
        command.add_argument("--at-once", type=int, default=6, help="how many at the same time")
        command.add_argument("--keep", action="store_true", help="keep the directory and its logs")
    arguments = parser.parse_args()
    return arguments.command(arguments)


def run_matrix(arguments: argparse.Namespace) -> int:
    """Run the cells, print the table, and write it where asked."""
    began = time.monotonic()
    cells = COVERING_CELLS if arguments.covering else ALL_CELLS
    cells = [cell for cell in cells if arguments.only in str(cell)]
    outcomes, wrong = [], []
    with _directory(arguments) as home, open_stand(Path(home)) as stand:
        for outcome in run_cells(stand, cells, at_once=arguments.at_once):
            outcomes.append(outcome)
            wrong += judge(outcome)
            say(f"{time.monotonic() - began:5.0f} s  {len(outcomes)}/{len(cells)} {outcome.cell}")
    page = render(outcomes)
    say(page)
    for problem in wrong:
        say(f"WRONG {problem}")
    if arguments.write and not wrong:
        arguments.write.write_text(page, encoding="utf-8")
    say(f"{len(cells)} cells, {len(wrong)} problems, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def run_chaos(arguments: argparse.Namespace) -> int:
    """Run the seeds one after the other, each on a new stand."""
    failed = 0
    for seed in arguments.seed or [1]:
        with _directory(arguments) as home, open_stand(Path(home)) as stand:
            chaos = ChaosRun(
                stand, seed, arguments.count, in_flight=arguments.at_once, say=say,
                account_kills=max(1, arguments.count // 60),
            )  # fmt: skip
            report = chaos.run()
        say(report.text())
        failed += bool(report.findings.problems)
    return 1 if failed else 0


def _directory(arguments: argparse.Namespace) -> "tempfile.TemporaryDirectory[str]":
    if not arguments.keep:
        return tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
    kept = tempfile.TemporaryDirectory(prefix="chaos-")
    kept._finalizer.detach()
    kept.cleanup = lambda: say(f"kept: {kept.name}")
    return kept


if __name__ == "__main__":
    sys.exit(main())
