"""A job service that takes its time to end after a cancel, and the attempt that follows it."""

import time
import uuid

import dagster as dg
import pytest

from monad_dagster.pipes.naming import job_service_name
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobOptions
from monad_dagster.spcs.job_service_state import JobServiceStatus
from monad_dagster.spcs.spec import SpecSettings, build_spec
from tests.contract.pipes.conftest import IMAGE, LAYOUT, launched_by, toy_asset

# Uses the grace that a cancelled container has, as a script that saves its checkpoint does.
LINGER = """
import signal, time
def save(*_):
    time.sleep(4)
    raise SystemExit(143)
signal.signal(signal.SIGTERM, save)
print("waiting", flush=True)
time.sleep(120)
"""


@pytest.fixture
def run_id():
    """The id of the run to come."""
    return str(uuid.uuid4())


@pytest.fixture
def cancelled(run_id, services):
    """The first attempt of that run, cancelled and not ended yet."""
    name = job_service_name(asset="toy", partition=None, run_family=run_id, attempt=1)
    name = QualifiedName("MONAD_DB", "DATA_SCHEMA", name)
    spec = build_spec(image=IMAGE, command=("python", "-c", LINGER), settings=SpecSettings(gpus=0))
    services.submit(name, spec, JobOptions(LAYOUT.compute_pool))
    deadline = time.monotonic() + 60
    while "waiting" not in log_of(services, name):
        assert time.monotonic() < deadline, "the first attempt did not start"
        time.sleep(0.2)
    services.cancel(name)
    assert services.describe(name).status is JobServiceStatus.CANCELLING
    return name


def log_of(services, name):
    """Return what the container has written so far."""
    from monad_dagster.errors import SnowflakeError

    try:
        return services.fetch_logs(name)
    except SnowflakeError:
        return ""


def test_a_retry_starts_when_the_cancelled_attempt_has_ended(
    client, instance, services, run_id, cancelled
):
    """The two job services are never there at one time, and the run says what it waits for."""
    definitions = dg.Definitions(assets=[toy_asset()], resources={"client": client})
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, run_id=run_id)
    assert result.success
    (second,) = launched_by(services, run_id)
    assert second.name.name == f"{cancelled.name[:-1]}2"
    first = services.find_in_history(name=cancelled)
    assert first["status"] == "CANCELLED"
    assert second.created_on >= first["completed_time"]
    messages = [entry.user_message for entry in instance.all_logs(run_id)]
    assert any("the next attempt starts when it has ended" in text for text in messages)
