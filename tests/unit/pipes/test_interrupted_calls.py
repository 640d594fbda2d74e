"""Interrupts and refusals at awkward moments of a call, over a scripted account."""

import contextlib

import dagster as dg
import pytest
from dagster import DagsterExecutionInterruptedError

from monad_dagster.pipes.interrupts import cancel_and_wait
from monad_dagster.pipes.invocation import Invocation
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.pacing import Clock
from monad_dagster.pipes.wait import WaitLimits
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.spec import SpecSettings
from tests.support.scripted_account import ScriptedAccount
from tests.support.scripted_connection import FakeTime, refused, scripted_session


@pytest.fixture
def instance():
    """A Dagster instance of its own."""
    with dg.instance_for_test() as instance:
        yield instance


def toy_over(answer, time, **settings):
    """Build an asset that runs over a scripted account, and the job of it."""
    session, _ = scripted_session(answer)

    @dg.asset(name="toy")
    def toy(context: dg.AssetExecutionContext):
        request = LaunchRequest(
            image="elsewhere/image:1",
            stage=StagePath.parse("@D.S.ST"),
            settings=SpecSettings(stage="@d.s.st", mount_path="/m"),
            command=("python",),
            output_path="toy",
        )
        clock = Clock(time.now, time.sleep)
        chosen = InvocationSettings(compute_pool="POOL", clock=clock, **settings)
        return Invocation(context, session, request, chosen).run({}).get_results()

    return dg.Definitions(
        assets=[toy], executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()


def interrupted_run(instance, account, *, cancelled):
    """Launch in one run that is interrupted, and interrupt its retry before it has a plan."""
    time = FakeTime()

    def interrupt(_):
        raise DagsterExecutionInterruptedError

    time.on_sleep = interrupt
    first = toy_over(account.answer, time).execute_in_process(
        instance=instance, raise_on_error=False
    )
    assert len(account.submissions) == 1
    assert not account.cancelled

    def answer(text):
        if text.startswith("DESCRIBE COMPUTE POOL"):
            if cancelled:
                (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
                instance.report_run_canceling(run)
            raise DagsterExecutionInterruptedError
        return account.answer(text)

    time.on_sleep = lambda _: None
    job = toy_over(answer, time)
    run = instance.create_run_for_job(
        job,
        parent_run_id=first.run_id,
        root_run_id=first.run_id,
        tags={"dagster/is_resume_retry": "true"},
    )
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run

    with contextlib.suppress(DagsterExecutionInterruptedError):
        execute_run(InMemoryJob(job), run, instance, raise_on_error=False)
    return [str(entry.user_message) for entry in instance.all_logs(run.run_id)]


def test_a_retry_that_is_cancelled_before_its_plan_ends_what_runs(instance):
    """A user who cancels the retry at once does not leave the first launch running."""
    account = ScriptedAccount(["RUNNING"])
    said = interrupted_run(instance, account, cancelled=True)
    assert account.cancelled
    assert any("ended as CANCELLED" in text for text in said)


def test_a_retry_that_is_evicted_before_its_plan_leaves_what_runs(instance):
    """It says what goes on, and how to end it by hand."""
    account = ScriptedAccount(["RUNNING"])
    said = interrupted_run(instance, account, cancelled=False)
    assert not account.cancelled
    assert any("Detached" in text and "SPCS_CANCEL_JOB" in text for text in said)


def test_a_refused_cancellation_does_not_hide_why_it_was_asked_for(instance):
    """The failure keeps its class and metadata, and the log says how to cancel by hand."""
    account = ScriptedAccount(["RUNNING"])

    def answer(text):
        return refused(3001) if text.startswith("CALL") else account.answer(text)

    limits = WaitLimits(max_runtime_seconds=30)
    job = toy_over(answer, FakeTime(), limits=limits)
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data.metadata["spcs/failure_class"].value == "timed_out"
    said = [str(entry.user_message) for entry in instance.all_logs(result.run_id)]
    assert any("was not cancelled" in text and "Cancel it by hand" in text for text in said)


def test_the_end_after_a_cancellation_is_asked_for_again():
    """A look that is refused once does not make an accepted cancellation a failed one."""
    answers = [refused(603), refused(603), "CANCELLED"]
    time, said = FakeTime(), []

    def answer(text):
        if not text.startswith("DESCRIBE"):
            return [{"status": "ok"}]
        found = answers.pop(0)
        row = {"database_name": "D", "schema_name": "S", "name": "J"}
        return found if isinstance(found, Exception) else [row | {"status": found}]

    session, _ = scripted_session(answer)
    clock = Clock(time.now, time.sleep)
    name = QualifiedName("D", "S", "J")
    assert cancel_and_wait(JobServices(session), name, clock=clock, log=said.append) == "CANCELLED"
    assert answers == []
    assert "ended as CANCELLED" in said[-1]
