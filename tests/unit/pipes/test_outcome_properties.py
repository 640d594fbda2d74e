"""Success means DONE and `closed` and a result, whatever statuses and messages come by."""

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monad_dagster.pipes.invocation import Invocation
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.pacing import Clock
from monad_dagster.pipes.wait import WaitLimits
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.job_service_state import TERMINAL, JobServiceStatus
from monad_dagster.spcs.spec import SpecSettings
from tests.support.scripted_account import (
    MISSING,
    UNREACHABLE,
    ScriptedAccount,
    chunks_of,
    closed,
    materialization,
    opened,
)
from tests.support.scripted_connection import FakeTime, scripted_session

# PENDING for ever is what the queue limit is for; every other status has to be waited through.
LIMITS = WaitLimits(max_queue_seconds=900, max_runtime_seconds=900)
UNDOCUMENTED = ["RESCHEDULING", "", "done ", "None", "\u00c4NDERUNG"]
STATUSES = [str(status) for status in JobServiceStatus]
MAX_STATEMENTS = 1_000


@pytest.fixture(scope="module")
def instance():
    """One Dagster instance for every example: they share nothing but its tables."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run_once(account, instance):
    """Materialize one asset over *account* on a clock that only moves when it sleeps."""
    time = FakeTime()
    session, connection = scripted_session(account.answer)

    @dg.asset(name="toy")
    def toy(context: dg.AssetExecutionContext):
        request = LaunchRequest(
            image="elsewhere/image:1",
            stage=StagePath.parse("@D.S.ST"),
            settings=SpecSettings(stage="@d.s.st", mount_path="/m"),
            command=("python",),
            output_path="toy",
        )
        chosen = InvocationSettings(
            compute_pool="POOL",
            limits=LIMITS,
            clock=Clock(time.now, time.sleep),
            max_infrastructure_retries=0,
        )
        invocation = Invocation(context, session, request, chosen)
        return invocation.run({}).get_results(implicit_materializations=False)

    result = dg.materialize([toy], instance=instance, raise_on_error=False)
    assert len(connection.statements) < MAX_STATEMENTS
    return result


def first_terminal(statuses):
    """Return the status that ends the wait: a job service that stays missing is DELETED."""
    missing = 0
    for status in [*statuses, *statuses[-1:] * 3]:
        missing = missing + 1 if status == MISSING else (0 if status != UNREACHABLE else missing)
        if missing == 3:
            return JobServiceStatus.DELETED
        if JobServiceStatus.parse(status) in TERMINAL:
            return JobServiceStatus.parse(status)
    return None


MESSAGES = {
    "complete": [[opened()], [materialization("toy", "v1"), closed()]],
    "without closed": [[opened()], [materialization("toy", "v1")]],
    "without result": [[opened(), closed()]],
    "raised": [[opened()], [materialization("toy", "v1"), closed("no column")]],
    "nothing": [],
    "not a message": [[opened(), {"method": "unheard of", "params": {}}], [closed()]],
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    statuses=st.lists(
        st.sampled_from([*STATUSES, *UNDOCUMENTED, MISSING, UNREACHABLE]), max_size=8
    ),
    last=st.sampled_from(
        [*[str(s) for s in TERMINAL], "PENDING", "RUNNING", "RESCHEDULING", MISSING]
    ),
    said=st.sampled_from(sorted(MESSAGES)),
    exit_code=st.sampled_from([0, 1, 137]),
)
def test_only_done_and_closed_with_a_result_is_a_success(instance, statuses, last, said, exit_code):
    """No sequence of statuses crashes the client, is waited for without end, or passes unearned."""
    account = ScriptedAccount([*statuses, last], chunks_of(*MESSAGES[said]))
    account.exit_code = exit_code
    result = run_once(account, instance)
    ended = first_terminal([*statuses, last])
    earned = ended is JobServiceStatus.DONE and said == "complete"
    assert result.success is earned
    assert bool(result.get_asset_materialization_events()) is earned
    assert len(account.submissions) == 1
    if not earned:
        (event,) = [e for e in result.all_events if e.is_step_failure]
        assert event.step_failure_data.user_failure_data is not None, event.step_failure_data.error
    # Given up on: never left running.
    assert account.cancelled is (ended is None)
