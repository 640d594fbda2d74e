"""Ten cells of the signal matrix and a short chaos run; `make chaos` has all of both."""

import logging

import pytest

from tests.chaos.matrix import COVERING_CELLS, EXECUTORS, PHASES, SIGNALS, judge, run_cells
from tests.chaos.run import ChaosRun
from tests.chaos.stand import open_stand

SEED = 20
COUNT = 20

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    """An account, a fork server and a Dagster instance for both experiments."""
    # What the connector writes of every connection that breaks, which is the purpose here.
    logging.getLogger("snowflake.connector").setLevel(logging.CRITICAL)
    with open_stand(tmp_path_factory.mktemp("chaos")) as stand:
        yield stand


@pytest.fixture(scope="module")
def outcomes(stand):
    """What was counted in each covering cell, several at a time; retries share the fork server."""
    found = run_cells(stand, COVERING_CELLS, at_once=5, retry_executor="in_process")
    return {outcome.cell: outcome for outcome in found}


def test_the_covering_cells_cover():
    """Every signal and every phase is there, with either executor."""
    for names, part in ((SIGNALS, "signal"), (PHASES, "phase")):
        pairs = {(getattr(cell, part), cell.executor) for cell in COVERING_CELLS}
        assert pairs == {(name, executor) for name in names for executor in EXECUTORS}


@pytest.mark.parametrize("cell", COVERING_CELLS, ids=str)
def test_an_interrupted_run_leaves_what_the_matrix_says(outcomes, cell):
    """Launches, final states, messages and results are those of the cell, retry included."""
    assert judge(outcomes[cell]) == []


def test_nothing_is_lost_or_launched_twice_under_random_faults(stand):
    """Twenty materializations under kills, lost answers and lost nodes end as they should."""
    report = ChaosRun(stand, SEED, COUNT, account_kills=1).run()
    assert report.findings.problems == [], report.text()
    assert report.findings.counts["materializations"] == COUNT
    assert report.findings.counts["reattachments"] > 0
