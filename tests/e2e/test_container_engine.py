"""The graph with a container engine: the image is built, pushed, pulled by digest and run."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
import snowflake.connector

from monad_dagster.assets import build_graph
from monad_dagster.definitions import spcs_resource
from monad_dagster.local import LocalAccount
from monad_dagster.settings import Settings
from tests.support.container_engine import docker_host
from tests.support.toy_account import prepare_toy_account

pytestmark = pytest.mark.docker
TOY_CONTAINER = Path(__file__).parent / "toy_container"
CONTAINER = Path(__file__).parents[2] / "container"


@pytest.fixture
def engine_settings(tmp_path, container_engine, base_image):
    """Settings of an account that is told to run containers in the private engine."""
    container = tmp_path / "container"
    shutil.copytree(TOY_CONTAINER, container)
    shutil.copy(CONTAINER / "scripts" / "job_support.py", container / "scripts")
    shutil.copy(CONTAINER / "Dockerfile", container)
    settings = Settings(
        home=tmp_path / "home",
        container_dir=container,
        base_image=base_image,  # stands for a licensed image, which brings its own Python
        runner="docker",
        poll_interval_seconds=0.5,
    )
    account = LocalAccount(settings.local_state_dir, runner=settings.runner)
    with docker_host(container_engine):
        account.start()
        prepare_toy_account(account, settings)
        yield settings
    account.reset()


def test_five_assets_run_the_image_that_was_built(
    engine_settings, container_engine, base_image, tmp_path
):
    """The digest in the lineage is the one pushed, registered, pulled and run; nothing stays."""
    (tmp_path / "dagster").mkdir()
    client = spcs_resource(engine_settings).model_copy(
        update={"max_infrastructure_retries": 0, "poll_interval_seconds": 0.2}
    )
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as instance:
        result = dg.materialize(
            build_graph(engine_settings)["assets"],
            partition_key="churn",
            resources={"spcs": client},
            instance=instance,
        )
        assert result.success
        image = instance.get_latest_materialization_event(
            dg.AssetKey("image")
        ).asset_materialization
        last = instance.get_latest_materialization_event(
            dg.AssetKey("predictions")
        ).asset_materialization
    digest = image.metadata["digest"].value
    assert image.metadata["builder"].value == "docker"
    assert last.metadata["spcs/image_digest_observed"].value == digest
    assert last.tags["dagster/input_data_version/image"] == digest
    account = LocalAccount(engine_settings.local_state_dir)
    with snowflake.connector.connect(**account.connection()) as connection:
        shown = connection.cursor().execute("SHOW IMAGES IN IMAGE REPOSITORY IMAGE_REPOSITORY")
        assert [row[3] for row in shown] == [digest]
    records = [
        json.loads(path.read_text())
        for path in (account.state_dir / "jobs").glob("*/0/*/docker.json")
    ]
    assert len(records) == 3
    assert {record["image"].partition("@")[2] for record in records} == {digest}
    own = f"localhost:{account.connection()['port']}/"
    account.reset()
    assert container_engine.docker("ps", "-aq").stdout.split() == []
    # What the image asset built stays the user's; what the account pulled is gone.
    left = container_engine.docker("images", "--format", "{{.Repository}}").stdout.split()
    assert not [name for name in left if name.startswith(own) and "runner-probe" in name]
    assert {"monad", base_image.partition(":")[0]} <= set(left)
