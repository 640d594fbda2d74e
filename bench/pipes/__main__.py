"""Runs this suite alone: `python -m bench.pipes`."""

from bench.figures import print_table, store
from bench.pipes import PARTS

if __name__ == "__main__":
    for measure in PARTS.values():
        figures = measure()
        print_table(figures)
        print(f"-> {store('pipes', figures)}")
