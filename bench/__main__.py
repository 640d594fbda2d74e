"""Runs the suites: `python -m bench [--only SUITE[/PART]]...`; see SUITES for how to add one."""

import argparse
import importlib
import sys

from bench.figures import print_table, store

# Each module has PARTS: names to functions without arguments that return a list of figures.
SUITES = ("bench.local_account", "bench.pipes")


def main() -> int:
    """Measure, print and store; a figure beyond its limit is exit code 1."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", action="append", default=[], metavar="SUITE[/PART]")
    wanted = parser.parse_args().only
    all_hold = True
    for module in SUITES:
        suite = module.rpartition(".")[2]
        for part, measure in importlib.import_module(module).PARTS.items():
            if wanted and not {suite, f"{suite}/{part}"} & set(wanted):
                continue
            print(f"\n{suite}/{part}", flush=True)
            figures = measure()
            print_table(figures)
            print(f"-> {store(suite, figures)}", flush=True)
            all_hold = all_hold and all(figure.holds is not False for figure in figures)
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
