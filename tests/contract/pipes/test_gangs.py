"""Several instances of one job service on a local account."""

import dagster as dg
import pytest

from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.spcs import sql_setup
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobOptions
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import IMAGE, launched_by, open_session, toy_asset

POOL = "TWO_NODES"


@pytest.fixture(scope="module")
def two_nodes(account):
    """A pool of two GPU nodes that the pipeline's role may use."""
    with open_session(account.connection("ADMIN")) as session:
        session.execute(
            sql_setup.create_compute_pool(
                POOL, instance_family="GPU_NV_S", min_nodes=1, max_nodes=2, auto_suspend_seconds=60
            )
        )
        for privilege in ("USAGE", "MONITOR", "OPERATE"):
            session.execute(sql_setup.grant_on_compute_pool(privilege, POOL, "MONAD_ROLE"))
    return POOL


def materialize(client, instance, *arguments, replicas=2):
    """Run the toy job on several instances."""
    options = LaunchOptions(compute_pool=POOL, replicas=replicas)
    return dg.materialize(
        [toy_asset(*arguments, options=options)],
        resources={"client": client},
        instance=instance,
        raise_on_error=False,
    )


def instance_rows(metadata):
    """Return the table of instances, by instance."""
    return {record.data["instance"]: record.data for record in metadata["spcs/instances"].records}


def test_every_instance_is_logged_and_only_the_first_reports(
    make_client, instance, session, two_nodes, capfd
):
    """Both logs are in the step's output and in the archive; one materialization comes."""
    result = materialize(make_client(), instance)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert [row["exit_code"] for row in instance_rows(metadata).values()] == ["0", "0"]
    log = StageClient(session).read_text(StagePath.parse(metadata["spcs/log_path"].value))
    for number in (0, 1):
        wanted = [f"[main/{number}] step {n} of instance {number}" for n in (1, 2, 3)]
        assert [line for line in log.splitlines() if f"of instance {number}" in line] == wanted
    printed = capfd.readouterr().out
    assert printed.count("step 2 of instance 1") == 1
    # Two nodes for as long as they ran.
    ran, credits = metadata["spcs/run_seconds"].value, metadata["spcs/credits_estimated"].value
    assert credits == pytest.approx(2 * ran * 0.57 / 3600, rel=0.05)


def test_one_instance_that_fails_fails_the_job_service(make_client, instance, services, two_nodes):
    """The failure is that of the instance which failed, with its exit code and its own log."""
    result = materialize(make_client(), instance, "--behavior", "one-fails")
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    metadata = event.step_failure_data.user_failure_data.metadata
    assert metadata["spcs/failure_class"].value == "user_code"
    assert metadata["spcs/exit_code"].value == 7
    assert "[main/1] instance 1 gives up" in metadata["spcs/log_tail"].value
    assert "[main/0]" not in metadata["spcs/log_tail"].value
    assert set(instance_rows(metadata)) == {0, 1}
    (found,) = launched_by(services, result.run_id)
    states = services.containers(QualifiedName.parse(str(found.name)))
    assert not [state for state in states if state.status in ("READY", "PENDING")]


def test_more_replicas_than_the_pool_can_hold_are_refused(
    make_client, instance, services, two_nodes
):
    """A gang that can never be complete is not launched."""
    result = materialize(make_client(), instance, replicas=3)
    (event,) = [e for e in result.all_events if e.is_step_failure]
    error = event.step_failure_data.error
    assert "can never hold 3 instances at once" in (error.cause or error).message
    assert launched_by(services, result.run_id) == []


def test_a_gang_that_stays_incomplete_is_cancelled(make_client, instance, services, two_nodes):
    """While another job service holds a node, the started instance does not wait without end."""
    name = QualifiedName("MONAD_DB", "DATA_SCHEMA", "NODE_HOLDER")
    spec = build_spec(
        image=IMAGE,
        command=("python", "-c", "import time; time.sleep(90)"),
        settings=SpecSettings(gpus=1),
    )
    services.submit(name, spec, JobOptions(compute_pool=POOL))
    try:
        client = make_client(gang_timeout_seconds=1.0, max_infrastructure_retries=0)
        result = materialize(client, instance, "--seconds", "60")
        (event,) = [e for e in result.all_events if e.is_step_failure]
        data = event.step_failure_data.user_failure_data
        assert data.metadata["spcs/failure_class"].value == "capacity"
        assert "did not start within" in data.description
        assert data.metadata["spcs/status"].value == "CANCELLED"
    finally:
        services.cancel(name)
        services.drop(name)
