"""The wait loop on a clock that only moves when it sleeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monad_dagster.errors import ConnectionFailedError, JobServiceTimeoutError, SnowflakeError
from monad_dagster.pipes.pacing import Clock
from monad_dagster.pipes.wait import JobServiceWaiter, WaitLimits, Watch
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import JobServiceStatus
from tests.support.scripted_connection import FakeTime, lost_answer, refused, scripted_session

NAME = QualifiedName("D", "S", "J")
DOCUMENTED = [str(status) for status in JobServiceStatus]
TERMINAL = {"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"}


def build(statuses, *, limits=None, watches=(), history=()):
    """Build a waiter that sees one status after another."""
    remaining = list(statuses)
    time = FakeTime()
    logged, warned = [], []

    def answer(text):
        if text.startswith("DESCRIBE"):
            status = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if isinstance(status, Exception):
                return status
            row = {"name": "J", "database_name": "D", "schema_name": "S", "status": status}
            return [row]
        return list(history) if "GET_JOB_HISTORY" in text else []

    session, connection = scripted_session(answer)
    waiter = JobServiceWaiter(
        JobServices(session),
        NAME,
        limits=limits or WaitLimits(),
        clock=Clock(time.now, time.sleep),
        log=logged.append,
        warn=warned.append,
        watches=watches,
    )
    return waiter, time, logged, warned, connection


def test_transitions_are_logged_once_and_queue_time_is_apart():
    """Repeated statuses are silent; queue and run seconds are measured separately."""
    waiter, _, logged, _, _ = build(["PENDING", "PENDING", "RUNNING", "RUNNING", "DONE"])
    progress = waiter.wait()
    assert [line.split(": ")[1].split(" after")[0] for line in logged] == [
        "submitted -> PENDING",
        "PENDING -> RUNNING",
        "RUNNING -> DONE",
    ]
    assert progress.queue_seconds > 0
    assert progress.run_seconds > 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([*DOCUMENTED, "RESCHEDULING", "", "NEW_ONE"]), max_size=12))
def test_any_sequence_of_statuses_ends_at_the_first_terminal_one(statuses):
    """No sequence crashes the loop or is waited past its end."""
    waiter, _, _, _, _ = build([*statuses, "DONE"])
    progress = waiter.wait()
    expected = next(status for status in [*statuses, "DONE"] if status in TERMINAL)
    assert progress.raw_status == expected


def test_an_undocumented_status_is_warned_of_once():
    """The warning names the status and waiting goes on."""
    waiter, _, _, warned, _ = build(["MOVING", "MOVING", "DONE"])
    waiter.wait()
    assert len(warned) == 1
    assert "MOVING" in warned[0]


def test_an_account_that_does_not_answer_is_waited_for():
    """A silence shorter than the limit only warns."""
    waiter, _, _, warned, _ = build(["RUNNING", *[lost_answer()] * 8, "DONE"])
    assert waiter.wait().status is JobServiceStatus.DONE
    assert len(warned) == 2  # a look is four requests
    assert all("still waiting for D.S.J" in text for text in warned)


def test_a_refused_look_is_asked_again():
    """A statement that fails once, for whatever reason, costs neither the wait nor the result."""
    waiter, _, _, warned, _ = build(["RUNNING", refused(603, "internal error"), "DONE"])
    assert waiter.wait().status is JobServiceStatus.DONE
    assert "internal error" in warned[0]


def test_an_account_that_keeps_refusing_ends_the_wait():
    """A role that has lost its privilege is an error in the end, with Snowflake's number."""
    limits = WaitLimits(max_unreachable_seconds=60)
    waiter, time, _, _, _ = build(["RUNNING", refused(3001)], limits=limits)
    start = time.now()
    with pytest.raises(SnowflakeError) as error:
        waiter.wait()
    assert error.value.errno == 3001
    assert 60 < time.now() - start < 120


def test_an_account_that_stays_silent_ends_the_wait():
    """After the limit the error is raised; the job service is left alone."""
    limits = WaitLimits(max_unreachable_seconds=60)
    waiter, time, _, _, connection = build([lost_answer()], limits=limits)
    start = time.now()
    with pytest.raises(ConnectionFailedError):
        waiter.wait()
    assert 60 < time.now() - start < 120
    assert not any("CANCEL" in text for text in connection.statements)


def test_a_full_queue_ends_the_wait_when_a_limit_is_set():
    """The error carries status and seconds and names the setting."""
    waiter, _, _, _, _ = build(["PENDING"], limits=WaitLimits(max_queue_seconds=30))
    with pytest.raises(JobServiceTimeoutError, match="max_queue_seconds") as error:
        waiter.wait()
    assert error.value.status == "PENDING"
    assert error.value.elapsed_seconds > 30


def test_a_dropped_job_service_is_found_in_the_history():
    """Exit code and status of a dropped job service come from the history."""
    row = {
        "name": "J",
        "database_name": "D",
        "schema_name": "S",
        "status": "FAILED",
        "instance_statuses": '{"instances": [{"instanceId": 0, "containers": '
        '[{"containerName": "main", "lastExitCode": 3}]}]}',
    }
    waiter, _, _, _, _ = build(["RUNNING", refused(2003)], history=[row])
    progress = waiter.wait()
    assert progress.status is JobServiceStatus.FAILED
    assert progress.containers[0].last_exit_code == 3


def test_a_job_service_nobody_knows_counts_as_deleted():
    """Neither listed nor in the history, three times in a row."""
    waiter, _, _, _, _ = build([refused(2003)])
    assert waiter.wait().status is JobServiceStatus.DELETED


def test_watches_run_only_while_the_job_service_runs():
    """Messages and logs are not asked for while it is queued."""
    seen = {"queued": [], "running": []}

    def watch(key):
        return lambda: seen[key].append(waiter.progress.raw_status) or 0

    waiter, _, _, _, _ = build(
        ["PENDING", "PENDING", "RUNNING", "RUNNING", "DONE"],
        watches=(
            Watch(watch("running")),
            Watch(watch("queued"), while_pending=True, while_running=False),
        ),
    )
    waiter.wait()
    assert set(seen["running"]) == {"RUNNING"}
    assert set(seen["queued"]) == {"PENDING"}
