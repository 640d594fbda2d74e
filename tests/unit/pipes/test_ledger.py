"""The ledger: which attempt is launched, adopted or refused."""

import json
from types import SimpleNamespace

import dagster as dg
import pytest

from monad_dagster.errors import JobServiceExistsError
from monad_dagster.pipes.ledger import LaunchLedger, run_family
from monad_dagster.pipes.naming import job_service_name
from monad_dagster.pipes.pacing import Clock
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from tests.support.scripted_connection import FakeTime, refused, scripted_session

STEP = "toy"


@dg.asset(name=STEP)
def toy():
    """An asset to make runs of."""


@dg.asset(name=STEP)
def failing_toy():
    """The same asset, failing."""
    raise ValueError("no")


def names(run_id, count=3):
    """Return the names of the first attempts of a run."""
    return [
        job_service_name(asset=STEP, partition=None, run_family=run_id, attempt=number)
        for number in range(1, count + 1)
    ]


class Account:
    """Answers DESCRIBE SERVICE for the job services it holds."""

    def __init__(self):
        self.held = {}

    def add(self, name, status, sha="same", **labels):
        """Hold a job service."""
        comment = json.dumps({"monad_dagster": {"spec_sha256": sha, **labels}})
        self.held[name] = {
            "name": name,
            "status": status,
            "database_name": "D",
            "schema_name": "S",
            "comment": comment,
        }

    def answer(self, text):
        """Answer one statement."""
        if text.startswith("DESCRIBE"):
            row = self.held.get(text.rsplit(".", 1)[1])
            return [row] if row else refused(2003)
        return []


@pytest.fixture
def instance():
    """A Dagster instance of its own."""
    with dg.instance_for_test() as instance:
        yield instance


def run_of(instance, asset=toy, **arguments):
    """Make a finished run."""
    result = dg.materialize([asset], instance=instance, raise_on_error=False)
    return instance.get_run_by_id(result.run_id)


def child_of(instance, parent, **tags):
    """Make a run that retries another."""
    return instance.add_run(
        dg.DagsterRun(
            job_name=parent.job_name,
            parent_run_id=parent.run_id,
            root_run_id=parent.root_run_id or parent.run_id,
            tags=tags,
        )
    )


def plan(instance, run, account, *, may_resume=False, time=None):
    """Ask for the plan of a run."""
    session, _ = scripted_session(account.answer)
    step = SimpleNamespace(step=SimpleNamespace(key=STEP))
    said = []
    context = SimpleNamespace(
        instance=instance,
        run=run,
        get_step_execution_context=lambda: step,
        log=SimpleNamespace(info=said.append),
    )
    time = time or FakeTime()
    ledger = LaunchLedger(context, JobServices(session), Clock(time.now, time.sleep))
    return ledger.plan(
        asset=STEP,
        partition=None,
        schema=QualifiedName("D", "S", "ANY"),
        prefix="",
        spec_sha256=lambda _: "same",
        may_resume=lambda _: may_resume,
    )


def test_a_first_run_launches_the_first_attempt(instance):
    """Nothing is held, so attempt 1 writes to a directory of its own name."""
    run = run_of(instance)
    found = plan(instance, run, Account())
    assert (found.attempt.number, found.found) == (1, None)
    assert found.attempt.output_name == names(run.run_id)[0].lower()


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "DONE", "RESCHEDULING"])
def test_a_submission_that_was_never_recorded_is_adopted(instance, status):
    """The name alone closes the gap between the accepted statement and its record."""
    run, account = run_of(instance), Account()
    account.add(names(run.run_id)[0], status)
    assert plan(instance, run, account).found.raw_status == status


def test_another_specification_that_still_runs_is_refused(instance):
    """Two launches of one attempt never run side by side."""
    run, account = run_of(instance), Account()
    account.add(names(run.run_id)[0], "RUNNING", sha="other")
    with pytest.raises(JobServiceExistsError, match="SPCS_CANCEL_JOB"):
        plan(instance, run, account)


def test_the_result_of_another_specification_is_not_taken(instance):
    """A finished job service of other code or configuration is followed by a new attempt."""
    run, account = run_of(instance), Account()
    account.add(names(run.run_id)[0], "DONE", sha="other")
    found = plan(instance, run, account)
    assert (found.attempt.number, found.attempt.resumed) == (2, False)


@pytest.mark.parametrize("may_resume", [True, False])
def test_a_failed_attempt_is_followed_by_the_next(instance, may_resume):
    """It continues in the first attempt's directory only when that makes sense."""
    run, account = run_of(instance), Account()
    first, second, _ = names(run.run_id)
    account.add(first, "FAILED", output_name=first.lower())
    found = plan(instance, run, account, may_resume=may_resume)
    assert found.attempt.number == 2
    assert found.attempt.resumed is may_resume
    assert found.attempt.output_name == (first if may_resume else second).lower()


def test_resuming_twice_stays_in_the_same_directory(instance):
    """The third attempt continues what the second continued."""
    run, account = run_of(instance), Account()
    first, second, _ = names(run.run_id)
    account.add(first, "FAILED", output_name=first.lower())
    account.add(second, "FAILED", output_name=first.lower(), resumed=True)
    found = plan(instance, run, account, may_resume=True)
    assert (found.attempt.number, found.attempt.output_name) == (3, first.lower())


@pytest.mark.parametrize("ending", ["CANCELLING", "DELETING"])
@pytest.mark.parametrize("end", ["CANCELLED", None])
def test_the_next_attempt_waits_for_the_end_of_one_that_is_being_cancelled(instance, ending, end):
    """Until then its containers may write into the directory that would be continued."""
    run, account, time = run_of(instance), Account(), FakeTime()
    first = names(run.run_id)[0]
    account.add(first, ending, output_name=first.lower())

    def pass_time(_):
        if time.time >= 1030:
            account.held.pop(first)
            if end:
                account.add(first, end, output_name=first.lower())

    time.on_sleep = pass_time
    found = plan(instance, run, account, time=time)
    assert (found.attempt.number, found.found) == (2, None)
    assert 1030 <= time.now() < 1035


def test_one_that_does_not_end_is_not_followed(instance):
    """After a bounded wait nothing is launched, and the error says how to go on."""
    run, account, time = run_of(instance), Account(), FakeTime()
    account.add(names(run.run_id)[0], "CANCELLING")
    with pytest.raises(JobServiceExistsError, match="still CANCELLING.*DROP SERVICE"):
        plan(instance, run, account, time=time)
    assert 1100 < time.now() < 1200


def test_retries_belong_to_the_family_of_their_original(instance):
    """A tagged retry, and an untagged one of an unfinished step, keep the original's names."""
    original = run_of(instance, failing_toy)
    untagged = child_of(instance, original)
    tagged = child_of(instance, untagged, **{"dagster/is_resume_retry": "true"})
    chain = [run.run_id for run in run_family(instance, tagged, STEP)]
    assert chain == [tagged.run_id, untagged.run_id, original.run_id]


def test_repeating_what_ended_well_starts_a_family(instance):
    """Re-execution of a successful step was asked for: it launches, whatever there was."""
    original = run_of(instance)
    repeat = child_of(instance, original)
    assert [run.run_id for run in run_family(instance, repeat, STEP)] == [repeat.run_id]
