"""Every failure that the local account can inject: its class, its retries, and what is left of it."""

import dagster as dg
import pytest

from monad_dagster.pipes.failures import RULES, FailureClass
from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.spcs import sql_setup
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import launched_by, open_session, toy_asset

LONG = ("--seconds", "20")


def materialize(client, instance, *arguments, options=None):
    """Run the toy job once, whatever comes of it."""
    return dg.materialize(
        [toy_asset(*arguments, options=options)],
        resources={"client": client},
        instance=instance,
        raise_on_error=False,
    )


def failed_metadata(result):
    """Return the metadata of the step's failure, and its description."""
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    return {key: item.value for key, item in data.metadata.items()}, data.description


def observed_classes(instance):
    """Return the failure classes shown on the asset, one for each failed attempt."""
    records = instance.fetch_observations(dg.AssetKey("toy"), limit=100).records
    return [
        record.asset_observation.metadata["spcs/failure_class"].value
        for record in records
        if "spcs/failure_class" in record.asset_observation.metadata
    ]


@pytest.mark.parametrize(
    ("fault", "expected", "status"),
    [
        ("image-pull-failure", FailureClass.IMAGE, "CANCELLED"),
        ("out-of-memory", FailureClass.OUT_OF_MEMORY, "FAILED"),
    ],
)
def test_a_failure_that_would_repeat_is_not_paid_for_twice(
    client, instance, services, faults, fault, expected, status
):
    """One job service, a class, advice, and the platform's message."""
    faults.add(fault)
    result = materialize(client, instance, *LONG)
    metadata, description = failed_metadata(result)
    assert metadata["spcs/failure_class"] == expected
    assert metadata["spcs/status"] == status
    assert metadata["spcs/retry"] is False
    assert RULES[expected].advice in description
    assert metadata["spcs/platform_message"]
    assert len(launched_by(services, result.run_id)) == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("node-loss", FailureClass.NODE_LOST),
        ("node-maintenance", FailureClass.NODE_LOST),
        ("internal-error", FailureClass.INTERNAL_ERROR),
    ],
)
def test_a_failure_of_the_platform_is_followed_by_another_attempt(
    client, instance, services, faults, fault, expected
):
    """The fault hits once; the second job service brings the result."""
    faults.add(fault, count=1, delay_seconds=0.5)
    result = materialize(client, instance, "--seconds", "4")
    assert result.success
    assert observed_classes(instance) == [expected]
    assert len(launched_by(services, result.run_id)) == 2
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["spcs/attempt"].value == 2


def test_a_platform_that_keeps_failing_is_given_up(make_client, instance, services, faults):
    """The bound counts further attempts: with one allowed there are two job services."""
    faults.add("internal-error")
    result = materialize(make_client(max_infrastructure_retries=1), instance, *LONG)
    metadata, _ = failed_metadata(result)
    assert metadata["spcs/failure_class"] == FailureClass.INTERNAL_ERROR
    assert len(observed_classes(instance)) == 2
    assert len(launched_by(services, result.run_id)) == 2


@pytest.fixture
def cold_pool(account):
    """A pool that has no node yet."""
    name = "COLD_POOL"
    with open_session(account.connection("ADMIN")) as session:
        session.execute(
            sql_setup.create_compute_pool(
                name, instance_family="GPU_NV_S", min_nodes=1, max_nodes=1, auto_suspend_seconds=60
            )
        )
        for privilege in ("USAGE", "MONITOR", "OPERATE"):
            session.execute(sql_setup.grant_on_compute_pool(privilege, name, "MONAD_ROLE"))
    return name


def test_a_cloud_without_nodes_is_capacity(make_client, instance, services, faults, cold_pool):
    """The pool's error number says why nothing starts; the wait is bounded and tried again."""
    faults.add("capacity-error", pool=cold_pool)
    client = make_client(max_infrastructure_retries=1)
    options = LaunchOptions(compute_pool=cold_pool, max_queue_seconds=1.0)
    result = materialize(client, instance, options=options)
    metadata, description = failed_metadata(result)
    assert metadata["spcs/failure_class"] == FailureClass.CAPACITY
    assert "BACKUP_INSTANCE_FAMILIES" in description
    assert metadata["spcs/run_seconds"] == 0
    assert metadata["spcs/queue_seconds"] >= 1
    assert metadata["spcs/credits_estimated"] == 0
    assert len(launched_by(services, result.run_id)) == 2


def test_a_run_that_takes_too_long_is_ended(client, instance, services):
    """max_runtime_seconds cancels the job service and is not tried again."""
    options = LaunchOptions(max_runtime_seconds=1.0)
    result = materialize(client, instance, *LONG, options=options)
    metadata, description = failed_metadata(result)
    assert metadata["spcs/failure_class"] == FailureClass.TIMED_OUT
    assert metadata["spcs/status"] == "CANCELLED"
    assert "max_runtime_seconds" in description
    assert len(launched_by(services, result.run_id)) == 1


@pytest.mark.parametrize("kind", ["lost-answer", "http-after", "http-before"])
def test_an_ambiguous_submit_launches_once(client, instance, services, faults, kind):
    """Whether the statement was executed or not, one job service is there and its result comes."""
    faults.add(kind, statement="EXECUTE JOB SERVICE", count=1)
    result = materialize(client, instance)
    assert result.success
    assert len(launched_by(services, result.run_id)) == 1
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["spcs/query_id"].value
    assert event.materialization.metadata["spcs/reattached"].value is False


def archived_lines(result, session):
    """Return the archived log of the only materialization, without the account's own lines."""
    (event,) = result.get_asset_materialization_events()
    path = event.materialization.metadata["spcs/log_path"].value
    lines = StageClient(session).read_text(StagePath.parse(path)).splitlines()
    return event.materialization.metadata, [line for line in lines if "step" in line]


def test_lines_that_the_node_no_longer_had_are_in_the_archive(client, instance, session, faults):
    """The live output marks the gap, and the archive is filled from the event table."""
    faults.add("truncated-logs", max_bytes=2000)
    faults.add("delayed-events", delay_seconds=2)
    result = materialize(client, instance, "--behavior", "chatty", "--seconds", "2")
    assert result.success
    metadata, lines = archived_lines(result, session)
    wanted = []
    for step in (1, 2, 3):
        wanted.append(f"step {step} of instance 0")
        wanted += [f"detail {number} of step {step}" for number in range(400)]
    assert lines == wanted
    assert metadata["spcs/log_complete"].value is True


def test_the_log_of_a_lost_node_comes_from_the_event_table(
    make_client, instance, session, services, faults
):
    """What a node took with it is archived beside the failed attempt, and the tail is in the error."""
    faults.add("node-loss", delay_seconds=1.0)
    once = make_client(max_infrastructure_retries=0)
    metadata, _ = failed_metadata(materialize(once, instance, *LONG))
    assert metadata["spcs/failure_class"] == FailureClass.NODE_LOST
    log = StageClient(session).read_text(StagePath.parse(metadata["spcs/log_path"]))
    assert "step 1 of instance 0" in log
    assert "step 1 of instance 0" in metadata["spcs/log_tail"]
