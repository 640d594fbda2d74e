"""A local account with the set-up applied, a tiny source table, and a toy container folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from monad_dagster.assets import build_graph
from monad_dagster.definitions import spcs_resource
from monad_dagster.local import LocalAccount
from monad_dagster.settings import Settings
from tests.support.toy_account import prepare_toy_account

TOY_CONTAINER = Path(__file__).parent / "toy_container"
SUPPORT = Path(__file__).parents[2] / "container" / "scripts" / "job_support.py"


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The home folder of one local account, shared by the session's tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def local_account(home) -> Iterator[LocalAccount]:
    """A running account with the set-up applied and one source table."""
    account = LocalAccount(home / "local")
    account.start()
    prepare_toy_account(account, Settings(home=home))
    yield account
    account.stop()


@pytest.fixture
def toy_settings(tmp_path, home, local_account) -> Settings:
    """Settings over a private copy of the toy container folder."""
    container = tmp_path / "container"
    shutil.copytree(TOY_CONTAINER, container)
    shutil.copy(SUPPORT, container / "scripts")
    return Settings(home=home, container_dir=container, poll_interval_seconds=0.5)


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with storage on disk."""
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as instance:
        yield instance


def _select(names: str) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(dg.AssetKey(name.split("/")) for name in names.split()))


@pytest.fixture
def materialize(toy_settings, instance):
    """Materialize a selection of the toy graph in this process."""

    def run(selection: str = "*", partition: str | None = "churn", *, check: bool = True, **kwargs):
        graph = build_graph(toy_settings)
        client = spcs_resource(toy_settings).model_copy(
            update={"max_infrastructure_retries": 0, "poll_interval_seconds": 0.2}
        )
        return dg.materialize(
            graph["assets"],
            selection=None if selection == "*" else _select(selection),
            partition_key=partition,
            resources={"spcs": client},
            instance=instance,
            raise_on_error=check,
            **kwargs,
        )

    return run
