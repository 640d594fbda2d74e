"""The page with the signal matrix, written from what was counted."""

from collections.abc import Iterable

from tests.chaos.matrix import Outcome

HEAD = """# Signals and job services

Written by `make chaos` from what it counted; `tests/chaos/matrix.py` has the experiment.

A run is interrupted while its job service is in a phase, everything is let go, and the run is
retried as the user interface does. Each cell runs real processes against the local account.

| Signal | What it is |
|---|---|
| SIGINT | Ctrl-C at the terminal of a foreground run: every process of the run gets it |
| SIGTERM | an eviction or a redeployment: the run worker gets it, and nothing is said of a cancel |
| SIGKILL | the run worker's container dies: every process at once, and the run monitor notices |
| SIGKILL-alone | only the run worker is killed; the process of the step lives on for a while |
| cancel | *Terminate* in the user interface: the run is CANCELING, then its process is interrupted |
| force-terminate | the run is marked CANCELED and its worker, which still lives, is not told |

| Phase | The job service | Held there by |
|---|---|---|
| queued | is PENDING, without a node | a full compute pool |
| starting | was accepted, and the client waits for the answer | a slow answer |
| running | is RUNNING, and its messages arrive | a script that waits |
| draining | is DONE, and its last messages are not on the stage | a late stage |
| finished | is DONE, everything has arrived and is not recorded yet | an asset that waits |

A user's interruption ends a job service that has not ended, and a retry launches the next attempt.
Any other leaves it alone, and a retry finds it and launches nothing. What has ended is never run
again. In every cell each message reaches the retry once and in order, and the retry records one
result.

| Signal | Phase | Executor | Launched | Job service | Run | Retry launched | Retry found it | Retry | Messages | Results |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def render(outcomes: Iterable[Outcome]) -> str:
    """Write the page."""
    return HEAD + "".join(_row(outcome) for outcome in outcomes)


def _row(outcome: Outcome) -> str:
    cell = outcome.cell
    cells = [
        cell.signal,
        cell.phase,
        cell.executor,
        outcome.launched,
        outcome.job_status,
        outcome.run_status,
        outcome.retry_launched,
        "yes" if outcome.retry_reattached else "no",
        outcome.retry_status,
        ", ".join(map(str, outcome.retry_steps)),
        outcome.results,
    ]
    return f"| {' | '.join(map(str, cells))} |\n"
