"""Ten cells of the signal matrix and a short chaos run; `make chaos` has all of both."""

import logging
from dataclasses import replace

import pytest

from tests.chaos.audit import Auditor
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


@pytest.fixture(scope="module")
def chaos(stand):
    """A chaos run of twenty materializations, through to its report."""
    run = ChaosRun(stand, SEED, COUNT, account_kills=1)
    run.run()
    return run


def test_nothing_is_lost_or_launched_twice_under_random_faults(chaos):
    """Twenty materializations under kills, lost answers and lost nodes end as they should."""
    report = chaos.report
    assert report.findings.problems == [], report.text()
    assert report.findings.counts["materializations"] == COUNT
    assert report.findings.counts["reattachments"] > 0


def lose_a_result(auditor):
    """Take one record out of Dagster's."""
    auditor.records.pop()


def run_a_script_twice(auditor):
    """Add an execution to a job service."""
    next(iter(auditor.executions.values()))["another"] = False


def launch_beside_another(auditor):
    """Let a second attempt begin before the first one has ended."""
    services = next(s for s in auditor.services.values() if s[-1].status == "DONE")
    last = services[-1]
    services.append(replace(last, name=f"{last.name}X", attempt=last.attempt + 1))


def leave_one_running(auditor):
    """Let a job service never have ended."""
    services = next(iter(auditor.services.values()))
    services[-1] = replace(services[-1], status="RUNNING")


def change_a_version(auditor):
    """Let Dagster have another data version than the stage."""
    auditor.records[0].data_version = "0" * 64


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lose_a_result, "lost"),
        (run_a_script_twice, "twice"),
        (launch_beside_another, "twice"),
        (leave_one_running, "unowned"),
        (change_a_version, "silent"),
    ],
)
def test_the_auditor_notices(stand, chaos, tamper, kind):
    """Each kind of wrong, brought into true records, is found and called by its name."""
    behaviors = {plan.partition: plan.behavior for plan in chaos.plans}
    auditor = Auditor(stand.local.connection(), stand.instance, behaviors)
    tamper(auditor)
    assert getattr(auditor.audit(), kind)
