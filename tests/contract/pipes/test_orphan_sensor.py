"""The orphan sensor against a local account: real job services, no run."""

import time

import dagster as dg
import pytest

from monad_dagster.assets.sensors import build_housekeeping_sensor, build_orphan_sensor
from monad_dagster.pipes import compat
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobOptions
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import IMAGE, LAYOUT, toy_asset

GRACE = 60.0


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def start(services):
    """Start sleeping job services and remove them afterwards."""
    started = []

    def start(word, labels):
        name = QualifiedName("MONAD_DB", "DATA_SCHEMA", f"SLEEPER_{word}")
        spec = build_spec(
            image=IMAGE,
            command=("python", "-c", "import time; time.sleep(120)"),
            settings=SpecSettings(gpus=0),
        )
        services.submit(name, spec, JobOptions(LAYOUT.compute_pool, labels=labels))
        started.append(name)
        return name

    yield start
    for name in started:
        services.cancel(name)
        services.drop(name, force=True)


def evaluate(sensor, client, instance, cursor):
    """Evaluate the sensor once."""
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"spcs": client}, sensor_name=sensor.name
    ) as context:
        return sensor.evaluate_tick(context)


def wait_until_terminal(services, name, seconds=30.0):
    """Return the status a job service ends with."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = services.describe(name)
        if found.status.is_terminal:
            return found.raw_status
        time.sleep(0.2)
    raise AssertionError(f"{name} is still {found.raw_status}")


def test_a_job_service_without_a_run_is_cancelled_after_its_grace_period(
    client, instance, services, start
):
    """The first look waits, the second cancels; what is not ours goes on."""
    ours = start("OURS", {"run_id": "deleted", "deployment": compat.deployment_id(instance)})
    others = [start("FOREIGN", {"run_id": "deleted", "deployment": "other"}), start("PLAIN", {})]
    clock = FakeClock()
    sensor = build_orphan_sensor(grace_seconds=GRACE, now=clock)

    first = evaluate(sensor, client, instance, None)
    assert "in its grace period" in first.skip_message
    assert not services.describe(ours).status.is_terminal

    clock.seconds += GRACE
    second = evaluate(sensor, client, instance, first.cursor)
    assert f"cancelled: {ours}" in second.skip_message
    assert "2 belong to others" in second.skip_message
    assert wait_until_terminal(services, ours) == "CANCELLED"
    for name in others:
        assert not services.describe(name).status.is_terminal

    third = evaluate(sensor, client, instance, second.cursor)
    assert str(ours) not in third.skip_message
    assert third.cursor == '{"first_seen": {}}'


def test_a_failed_run_is_told_that_its_job_service_was_cancelled(client, instance, services, start):
    """The event log of the run that left the job service behind says who ended it."""

    @dg.asset
    def failing():
        raise ValueError("gone")

    run_id = dg.materialize([failing], instance=instance, raise_on_error=False).run_id
    name = start("LEFT", {"run_id": run_id})
    sensor = build_orphan_sensor(grace_seconds=0.0, now=FakeClock())
    result = evaluate(sensor, client, instance, "not a cursor")
    assert f"run {run_id} is FAILURE" in result.skip_message
    assert wait_until_terminal(services, name) == "CANCELLED"
    messages = [str(entry.message) for entry in instance.all_logs(run_id)]
    assert any("has cancelled it" in message for message in messages)


def test_launches_carry_the_identity_of_the_dagster_instance(client, instance, services):
    """What the client launches can be told from the launches of another deployment."""
    result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    name = QualifiedName.parse(event.materialization.metadata["spcs/job_name"].value)
    assert services.describe(name).labels["deployment"] == compat.deployment_id(instance)


def test_old_messages_go_and_the_log_stays(client, instance, session):
    """Weeks after its end a job service keeps its log on the stage, without its messages."""
    result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    log = StagePath.parse(event.materialization.metadata["spcs/log_path"].value)
    run = StagePath.parse(event.materialization.metadata["spcs/run_directory"].value)
    stage = StageClient(session)
    young = evaluate(build_housekeeping_sensor(keep_days=14), client, instance, None)
    assert "Removed 0 message files of 0" in young.skip_message
    assert stage.list(run / "messages")
    later = build_housekeeping_sensor(keep_days=14, now=lambda: time.time() + 15 * 86400)
    assert "of 1 job services" in evaluate(later, client, instance, None).skip_message
    assert stage.list(run / "messages") == []
    assert stage.exists(log)


def test_finished_job_services_are_dropped_after_their_log_is_archived(
    client, instance, session, services, account
):
    """First the messages, then the job service; one whose log was lost is archived before."""
    names, logs = [], []
    for _ in range(2):
        result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
        (event,) = result.get_asset_materialization_events()
        names.append(QualifiedName.parse(event.materialization.metadata["spcs/job_name"].value))
        logs.append(StagePath.parse(event.materialization.metadata["spcs/log_path"].value))
    stage, lost = StageClient(session), logs[0]
    stage.remove_file(lost)
    kept_for_days = build_housekeeping_sensor(keep_days=1, drop_after_days=9)
    assert "Dropped 0" in evaluate(kept_for_days, client, instance, None).skip_message
    later = build_housekeeping_sensor(
        keep_days=1, drop_after_days=9, now=lambda: time.time() + 10 * 86400
    )
    assert "Dropped 2 finished" in evaluate(later, client, instance, None).skip_message
    assert [services.describe(name) for name in names] == [None, None]
    assert "step 1 of instance 0" in stage.read_text(lost)
    # Asking again finds nothing, and what was dropped is still in the history.
    assert "Dropped 0" in evaluate(later, client, instance, None).skip_message
    assert services.find_in_history(name=names[0])["status"] == "DONE"
