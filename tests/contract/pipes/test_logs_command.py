"""`monad-dagster logs` against a local account: while it runs, after its end, and once it is gone."""

import json
import time

import dagster as dg
import pytest
from click.testing import CliRunner

from monad_dagster.cli import main
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobOptions
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import IMAGE, LAYOUT, toy_asset


@pytest.fixture
def logs(account):
    """Run the command with the account's settings."""
    environment = {"MONAD_DEPLOYMENT": "local", "MONAD_HOME": str(account.state_dir.parent)}
    return lambda *arguments: CliRunner().invoke(main, ["logs", *arguments], env=environment)


@pytest.fixture
def status(account):
    """List job services with the command."""
    environment = {"MONAD_DEPLOYMENT": "local", "MONAD_HOME": str(account.state_dir.parent)}
    return lambda: json.loads(
        CliRunner().invoke(main, ["status", "--json"], env=environment).stdout
    )


def steps(text):
    """Return the lines of the toy job's steps."""
    return [line for line in text.splitlines() if line.startswith("step")]


def test_the_log_is_read_beside_the_output_and_outlives_the_job_service(
    logs, status, client, instance, session, services
):
    """The same lines come while the job service is listed, after a drop, and from the old place."""
    result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    name = QualifiedName.parse(metadata["spcs/job_name"].value)
    expected = [f"step {step} of instance 0" for step in (1, 2, 3)]
    assert steps(logs(name.name).stdout) == expected
    (row,) = [r for r in status() if r["name"] == name.name]
    assert (row["status"], row["asset"], row["attempt"]) == ("DONE", "toy", 1)
    assert row["run_id"] == result.run_id
    services.drop(name)
    assert steps(logs(name.name).stdout) == expected
    stage = StageClient(session)
    archived = StagePath.parse(metadata["spcs/log_path"].value)
    text = stage.read_text(archived)
    stage.remove_file(archived)
    formerly = StagePath.parse(metadata["spcs/run_directory"].value) / "log.txt"
    stage.put_text(f"{text}from the old place\n", formerly)
    assert logs(name.name, "--lines", "1").stdout == "from the old place\n"


def test_a_running_job_service_is_read_and_an_unknown_one_is_an_error(logs, services):
    """Lines come before the end; a name that never was ends the command with 1."""
    name = QualifiedName("MONAD_DB", "DATA_SCHEMA", "TALKER")
    talk = "import time; print('already there', flush=True); time.sleep(60)"
    spec = build_spec(image=IMAGE, command=("python", "-c", talk), settings=SpecSettings(gpus=0))
    services.submit(name, spec, JobOptions(LAYOUT.compute_pool))
    try:
        deadline = time.monotonic() + 30
        while "already there" not in (said := logs("TALKER").stdout):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
    finally:
        services.cancel(name)
        services.drop(name, force=True)
    unknown = logs("NEVER_WAS_1")
    assert unknown.exit_code == 1
    assert "does not exist" in unknown.stderr
