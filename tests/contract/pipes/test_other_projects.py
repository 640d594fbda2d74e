"""The documented example of another project, run as it is on a local account."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from monad_dagster.pipes import LaunchOptions, PipesSPCSClient
from monad_dagster.spcs.account_setup import AccountLayout, apply_setup
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.oci_image import ImageConfig, build_layout
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import open_session, resource_for

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "word_count.py"
LAYOUT = AccountLayout(
    role="WORK_ROLE",
    database="WORK_DB",
    schema="WORK",
    stage="FILES",
    image_repository="IMAGES",
    compute_pool="WORK_POOL",
    instance_family="CPU_X64_S",
    data_schemas=(),
)


@pytest.fixture(scope="module")
def place(account, tmp_path_factory):
    """Objects of another project's names, and an image that holds nothing but its interpreter."""
    with open_session(account.connection("ADMIN")) as session:
        apply_setup(session, LAYOUT)
    arguments = account.connection() | {"role": "WORK_ROLE", "database": "WORK_DB"}
    arguments["schema"] = "WORK"
    with open_session(arguments) as session:
        layout = tmp_path_factory.mktemp("image")
        # Without site-packages: whatever the host has installed, the image lacks dagster_pipes.
        build_layout(layout, {}, ImageConfig(env={"PYTHONUNBUFFERED": "1"}))
        repository = ImageRepository(session, LAYOUT.qualified("IMAGES"))
        repository.push_layout(layout, image="python", tag="3.11")
    return arguments


def client_of(example, arguments):
    """Take the example's own resource and give it the local account's connection."""
    declared = example["spcs"]
    fields = ("stage", "compute_pool", "image")
    return PipesSPCSClient(
        snowflake=resource_for(arguments),
        poll_interval_seconds=0.3,
        max_poll_interval_seconds=1.0,
        **{name: getattr(declared, name) for name in fields},
    )


def write_connection(folder, name, arguments):
    """Describe the local account in a connections.toml, as a user describes an account."""
    keys = ("account", "user", "password", "role", "warehouse", "host", "port", "protocol")
    lines = [f"[{name}]", *(f'{key} = "{arguments[key]}"' for key in keys)]
    file = folder / "connections.toml"
    file.write_text("\n".join(lines))
    file.chmod(0o600)


def test_the_documented_example_runs_unchanged(place, tmp_path):
    """`dagster asset materialize` on the file as it is, with nothing but a connections.toml."""
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").touch()
    write_connection(tmp_path, "work", place)
    command = ("dagster", "asset", "materialize", "--select", "word_count", "-f", str(EXAMPLE))
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"SNOWFLAKE_HOME": str(tmp_path), "DAGSTER_HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("word_count"))
    metadata = event.asset_materialization.metadata
    assert metadata["dagster/row_count"].value == 4
    assert metadata["spcs/instance_family"].value == "CPU_X64_S"
    assert metadata["spcs/job_name"].value.startswith("WORK_DB.WORK.")
    assert event.asset_materialization.tags["dagster/data_version"]
    with open_session(place) as session:
        output = StagePath.parse(metadata["spcs/output_path"].value)
        text = StageClient(session).read_text(output / "counts.tsv")
    assert text == "be\t2\nnot\t1\nor\t1\nto\t2\n"


def lines_of_code(path):
    """Count the lines of a file without its docstring, comments and blank lines."""
    code = path.read_text().split('"""\n', 1)[1].splitlines()
    return len([line for line in code if line.strip() and not line.strip().startswith("#")])


def test_the_example_is_as_short_as_it_is_said_to_be():
    """Imports, asset, resource and definitions take at most twenty lines."""
    assert 10 < lines_of_code(EXAMPLE) <= 20


def test_a_script_without_site_packages_takes_the_staged_helpers(place, instance):
    """An interpreter that finds no installed package reports through the staged dagster_pipes."""
    example = runpy.run_path(str(EXAMPLE))
    client = client_of(example, place)

    @dg.asset(name="bare")
    def bare(context: dg.AssetExecutionContext):
        scripts = client.upload_scripts(EXAMPLE.parent / "scripts", to="bare/code")
        invocation = client.run(
            context=context,
            command=["python", "-S", "-E", f"{scripts}/count.py"],
            args=["{output_path}", "a a b"],
            output_path="bare",
        )
        return invocation.get_results(implicit_materializations=False)

    result = dg.materialize([bare], instance=instance)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["dagster/row_count"].value == 2


def test_an_image_that_knows_nothing_of_dagster_is_materialized_too(place, instance):
    """With speaks_pipes off, DONE is success, and the launch side's metadata is recorded."""
    example = runpy.run_path(str(EXAMPLE))
    client = client_of(example, place)

    @dg.asset(name="silent")
    def silent(context: dg.AssetExecutionContext):
        return client.run(
            context=context,
            command=["python", "-c", "print('done by hand')"],
            options=LaunchOptions(speaks_pipes=False),
        ).get_results()

    result = dg.materialize([silent], instance=instance)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["spcs/status"].value == "DONE"
    with open_session(place) as session:
        log = StageClient(session).read_text(StagePath.parse(metadata["spcs/log_path"].value))
    assert "done by hand" in log
