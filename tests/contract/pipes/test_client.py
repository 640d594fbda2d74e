"""The client against a local account: real job services over the real connector."""

import dagster as dg
import pytest

from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.spcs import sql_lineage
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobOptions
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import IMAGE, LAYOUT, launched_by, toy_asset


def materialize(asset, client, instance, **arguments):
    """Materialize one asset in this process."""
    return dg.materialize(
        [asset], resources={"client": client}, instance=instance, raise_on_error=False, **arguments
    )


def only_materialization(result):
    """Return the one materialization of a run."""
    (event,) = result.get_asset_materialization_events()
    return event.materialization


def failure_of(result):
    """Return the step failure of a run."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data


def test_a_job_service_brings_back_version_metadata_log_and_lineage(
    client, instance, session, capfd
):
    """One materialization carries what the container reported and what the launch side knows."""
    result = materialize(toy_asset(), client, instance)
    assert result.success
    materialization = only_materialization(result)
    metadata = {key: value.value for key, value in materialization.metadata.items()}
    assert metadata["metrics/loss"] == 0.25
    assert metadata["spcs/status"] == "DONE"
    assert metadata["spcs/exit_code"] == 0
    assert metadata["spcs/attempt"] == 1
    assert metadata["spcs/reattached"] is False
    assert metadata["spcs/image_digest"] == metadata["spcs/image_digest_observed"]
    assert metadata["spcs/query_id"]
    assert metadata["spcs/credits_estimated"] >= 0
    stage = StageClient(session)
    output = StagePath.parse(metadata["spcs/output_path"])
    manifest = stage.read_json(output / "lineage.json")
    assert manifest["inputs"]["stage_contents"] == "v1"
    version = materialization.tags["dagster/data_version"]
    assert manifest["data_version"] == version
    # Beside the output, so that neither the manifest nor the data version knows of it.
    assert metadata["spcs/log_path"] == f"{output}.log"
    assert [entry["path"] for entry in manifest["files"]] == ["weights.bin"]
    assert {file.path.file_name for file in stage.list(output)} == {"weights.bin", "lineage.json"}
    log = stage.read_text(StagePath.parse(metadata["spcs/log_path"]))
    assert [line for line in log.splitlines() if line.startswith("step")] == [
        f"step {step} of instance 0" for step in (1, 2, 3)
    ]
    assert metadata["spcs/log_complete"] is True
    assert capfd.readouterr().out.count("step 2") == 1
    rows = session.execute(
        sql_lineage.select_lineage(LAYOUT.qualified("LINEAGE"), output_version=version)
    ).rows
    assert {(row["input_kind"], row["input_name"]) for row in rows} == {
        ("asset", "stage_contents"),
        ("image", "/monad_db/data_schema/image_repository/toy:1"),
    }
    observations = [e for e in result.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    assert observations


def test_a_failing_job_service_fails_once_with_exit_code_and_last_words(client, instance):
    """User code is not tried again; the error has class, exit code and log tail."""
    result = materialize(toy_asset("--behavior", "exit"), client, instance)
    assert not result.success
    data = failure_of(result).user_failure_data
    metadata = {key: value.value for key, value in data.metadata.items()}
    assert metadata["spcs/failure_class"] == "user_code"
    assert metadata["spcs/exit_code"] == 3
    assert "the last words" in metadata["spcs/log_tail"]
    assert "exit code 3" in data.description
    run = instance.get_run_by_id(result.run_id)
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"


def test_an_exception_of_the_script_reaches_the_run(client, instance):
    """The exception that the script raised stands in the log tail."""
    result = materialize(toy_asset("--behavior", "raise"), client, instance)
    metadata = failure_of(result).user_failure_data.metadata
    assert "column t_dat not found" in metadata["spcs/log_tail"].value


@pytest.mark.parametrize(
    ("behavior", "message"),
    [("silent", "never said that it was through"), ("forget", "no materialization came for toy")],
)
def test_a_job_service_without_results_is_a_failure(make_client, instance, behavior, message):
    """DONE alone is not success: without `closed` or without a result the asset fails."""
    quick = make_client(drain_timeout_seconds=1.0)
    result = materialize(toy_asset("--behavior", behavior), quick, instance)
    assert not result.success
    assert message in failure_of(result).user_failure_data.description


def test_a_missing_image_fails_before_anything_is_submitted(make_client, instance, services):
    """The error names the image and the asset to materialize."""
    wrong = make_client(image=IMAGE.replace(":1", ":none"))
    before = len(services.list("MONAD_DB", "DATA_SCHEMA"))
    result = materialize(toy_asset(), wrong, instance)
    error = failure_of(result).error
    assert "Materialize the image asset first" in (error.cause or error).message
    assert len(services.list("MONAD_DB", "DATA_SCHEMA")) == before


def test_job_services_name_the_run_they_belong_to(client, instance, services):
    """The comment holds run, attempt and specification hash."""
    result = materialize(toy_asset(), client, instance)
    metadata = only_materialization(result).metadata
    name = QualifiedName.parse(metadata["spcs/job_name"].value)
    labels = services.describe(name).labels
    assert labels["run_id"] == result.run_id
    assert labels["spec_sha256"] == metadata["spcs/spec_sha256"].value
    assert labels["attempt"] == 1
    assert labels["asset"] == "toy"
    assert labels["log_path"] == metadata["spcs/log_path"].value


def test_a_lost_node_is_followed_by_an_attempt_that_resumes(client, instance, services, session):
    """A kill from outside is the platform's: the next attempt continues in the same directory."""
    result = materialize(toy_asset("--behavior", "lose-node"), client, instance)
    assert result.success
    metadata = {k: v.value for k, v in only_materialization(result).metadata.items()}
    assert metadata["spcs/attempt"] == 2
    assert metadata["spcs/resumed"] is True
    assert metadata["resumed"] is True
    assert metadata["spcs/resumed_from"].endswith("/checkpoints/step1/lineage.json")
    names = [
        item.name.name
        for item in services.list("MONAD_DB", "DATA_SCHEMA")
        if item.labels.get("run_id") == result.run_id
    ]
    assert len(names) == 2
    first = next(name for name in names if name.endswith("_1"))
    assert metadata["spcs/output_path"].endswith(f"/toy/{first.lower()}")
    # Both wrote into one directory, and each has a log of its own beside it.
    output, stage = StagePath.parse(metadata["spcs/output_path"]), StageClient(session)
    second = StagePath.parse(metadata["spcs/log_path"])
    assert second == output.parent / f"{first.lower()[:-1]}2.log"
    assert "step 1" not in stage.read_text(output.parent / f"{first.lower()}.log")
    assert "step 1" in stage.read_text(second)


def test_a_lost_node_without_a_complete_checkpoint_starts_over(client, instance):
    """Files without a manifest are no checkpoint: the next attempt has a directory of its own."""
    result = materialize(toy_asset("--behavior", "lose-node-early"), client, instance)
    assert result.success
    metadata = {k: v.value for k, v in only_materialization(result).metadata.items()}
    assert metadata["spcs/attempt"] == 2
    assert metadata["spcs/resumed"] is False
    assert "spcs/resumed_from" not in metadata
    assert metadata["resumed"] is False
    assert metadata["spcs/output_path"].endswith("_2")


def test_failures_of_the_platform_are_retried_within_a_bound(make_client, instance, services):
    """With no further attempt allowed, a lost node fails the step after one job service."""
    once = make_client(max_infrastructure_retries=0)
    result = materialize(toy_asset("--behavior", "lose-node"), once, instance)
    assert not result.success
    data = failure_of(result).user_failure_data
    metadata = {key: value.value for key, value in data.metadata.items()}
    assert metadata["spcs/failure_class"] == "node_lost"
    assert metadata["spcs/retry"] is True
    assert "resumes from the last complete checkpoint" in metadata["spcs/advice"]
    assert len(launched_by(services, result.run_id)) == 1
    # The platform may be asked again by Dagster's run retries; only user code may not.
    tags = instance.get_run_by_id(result.run_id).tags
    assert "dagster/retry_on_asset_or_op_failure" not in tags


def test_a_specification_of_ones_own_runs_too(account, make_client, instance):
    """A complete specification is sent as it is, with the launch variables added."""
    client = make_client()
    spec = {
        "spec": {
            "containers": [
                {
                    "name": "mine",
                    "image": IMAGE,
                    "command": ["python"],
                    "args": ["/stage/scripts/toy_job.py", "--output", "{output_path}"],
                    "volumeMounts": [{"name": "s", "mountPath": "/stage"}],
                }
            ],
            "volumes": [
                {
                    "name": "s",
                    "source": "stage",
                    "stageConfig": {"name": "@monad_db.data_schema.monad_stage"},
                }
            ],
        }
    }

    @dg.asset(name="own")
    def own(context: dg.AssetExecutionContext):
        return client.run(context=context, spec=spec, output_path="own").get_results(
            implicit_materializations=False
        )

    result = dg.materialize([own], instance=instance, raise_on_error=False)
    assert result.success
    assert only_materialization(result).metadata["spcs/exit_code"].value == 0


def test_a_full_pool_ends_the_wait_and_cancels(client, instance, services):
    """With max_queue_seconds a job service that gets no node is cancelled and the asset fails."""
    blocker = QualifiedName("MONAD_DB", "DATA_SCHEMA", "BLOCKER")
    spec = build_spec(
        image=IMAGE,
        command=("python", "-c", "import time; time.sleep(60)"),
        settings=SpecSettings(gpus=1),
    )
    services.submit(blocker, spec, JobOptions(compute_pool=LAYOUT.compute_pool))
    try:
        options = LaunchOptions(max_queue_seconds=1.0)
        result = materialize(toy_asset(options=options), client, instance)
        assert not result.success
        data = failure_of(result).user_failure_data
        assert "max_queue_seconds" in data.description
        assert data.metadata["spcs/status"].value == "CANCELLED"
    finally:
        services.cancel(blocker)
        services.drop(blocker)
