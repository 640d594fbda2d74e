"""Processes that are killed, interrupted and cancelled, and what becomes of their job service."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import dagster as dg
import pytest

from monad_dagster.spcs.job_service_state import JobServiceStatus
from tests.contract.pipes.conftest import launched_by
from tests.contract.pipes.toy_run import (
    CONNECTION_VARIABLE,
    EXECUTOR_VARIABLE,
    SECONDS_VARIABLE,
    instance_in,
    toy_job,
)

ROOT = Path(__file__).parents[3]
# One duration for every test that re-executes: Dagster keeps a reconstructed job for the process,
# and another duration would be another specification.
RETRIED_SECONDS = 8


class Worker:
    """A run in a process of its own."""

    def __init__(self, directory):
        self.run_id = str(uuid.uuid4())
        command = [sys.executable, "-W", "ignore", "-m", "tests.contract.pipes.toy_run"]
        self.process = subprocess.Popen(
            [*command, str(directory), self.run_id],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            # Away from the terminal of whoever runs the tests, where a signal would be a cancel.
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self, number):
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)


@pytest.fixture
def home(tmp_path, account, monkeypatch):
    """A directory for a Dagster instance, and the connection for child processes."""
    connection = tmp_path / "connection.json"
    connection.write_text(json.dumps(account.connection()))
    monkeypatch.setenv(CONNECTION_VARIABLE, str(connection))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path / "home"


def wait_until(condition, seconds=90):
    """Wait until a condition holds and return what it found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the condition did not come to hold")


def start_and_wait_for_launch(home, services, monkeypatch, seconds):
    """Start a worker and wait until its launch is recorded in the event log."""
    monkeypatch.setenv(SECONDS_VARIABLE, str(seconds))
    worker = Worker(home)
    (job_service,) = wait_until(lambda: launched_by(services, worker.run_id))
    with instance_in(str(home)) as instance:
        wait_until(
            lambda: any(
                "Launched external run" in (entry.message or "")
                for entry in instance.all_logs(worker.run_id)
            )
        )
    return worker, job_service


def reexecute(home, run_id, *, tagged):
    """Re-execute a run from failure, as the user interface (tagged) or Python does."""
    with instance_in(str(home)) as instance:
        run = instance.get_run_by_id(run_id)
        if not run.is_finished:
            instance.report_run_failed(run)
        options = dg.ReexecutionOptions.from_failure(run_id, instance)
        tags = {"dagster/is_resume_retry": "true"} if tagged else {}
        result = dg.execute_job(
            dg.reconstructable(toy_job),
            instance=instance,
            reexecution_options=options,
            tags=tags,
            raise_on_error=False,
        )
        with result:
            events = [e for e in result.all_events if e.is_step_materialization]
            metadata = [e.step_materialization_data.materialization.metadata for e in events]
            return result.success, result.run_id, metadata


@pytest.mark.parametrize("tagged", [True, False])
def test_a_killed_worker_is_followed_by_a_reattachment(home, services, monkeypatch, tagged):
    """After SIGKILL a retry finds the job service, replays its messages and launches nothing."""
    worker, job_service = start_and_wait_for_launch(
        home, services, monkeypatch, seconds=RETRIED_SECONDS
    )
    worker.end(signal.SIGKILL)
    success, run_id, metadata = reexecute(home, worker.run_id, tagged=tagged)
    assert success
    (entry,) = metadata
    assert entry["spcs/reattached"].value is True
    assert entry["spcs/job_name"].value == str(job_service.name)
    assert entry["metrics/loss"].value == 0.25
    assert launched_by(services, run_id) == []
    assert len(launched_by(services, worker.run_id)) == 1


def test_sigterm_without_a_cancel_detaches(home, services, monkeypatch):
    """An eviction leaves the job service running, and a retry takes its result."""
    worker, job_service = start_and_wait_for_launch(
        home, services, monkeypatch, seconds=RETRIED_SECONDS
    )
    worker.end(signal.SIGTERM)
    status = services.describe(job_service.name).status
    # On a loaded machine it may not have begun; what counts is that nobody ends it.
    assert status in (JobServiceStatus.PENDING, JobServiceStatus.RUNNING, JobServiceStatus.DONE)
    with instance_in(str(home)) as instance:
        messages = [entry.message for entry in instance.all_logs(worker.run_id)]
    assert any("keeps running" in message and "!SPCS_CANCEL_JOB" in message for message in messages)
    success, _, _ = reexecute(home, worker.run_id, tagged=True)
    assert success


@pytest.mark.parametrize("executor", ["in_process", "multiprocess"])
def test_a_users_cancel_cancels_the_job_service(home, services, monkeypatch, executor):
    """With the run CANCELING, the signal ends the job service and its record stays."""
    monkeypatch.setenv(EXECUTOR_VARIABLE, executor)
    worker, job_service = start_and_wait_for_launch(home, services, monkeypatch, seconds=60)
    with instance_in(str(home)) as instance:
        instance.report_run_canceling(instance.get_run_by_id(worker.run_id))
    worker.end(signal.SIGTERM)
    assert services.describe(job_service.name).status is JobServiceStatus.CANCELLED
    with instance_in(str(home)) as instance:
        assert instance.get_run_by_id(worker.run_id).status is dg.DagsterRunStatus.CANCELED
