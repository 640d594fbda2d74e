"""A local account with an image and a toy job on its stage, and the client over it."""

from pathlib import Path

import dagster as dg
import pytest
from dagster_snowflake import SnowflakeResource

from monad_dagster.local import LocalAccount
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.spcs.account_setup import AccountLayout, apply_setup
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.oci_image import ImageConfig, build_layout, files_below
from monad_dagster.spcs.stage import StageClient
from tests.support.faults import faults  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "container" / "scripts"
LAYOUT = AccountLayout(create_data_schemas=True)
IMAGE = "/monad_db/data_schema/image_repository/toy:1"


def open_session(arguments) -> Session:
    """Open a session of the local account."""
    import snowflake.connector

    return Session(lambda: snowflake.connector.connect(**arguments))


def resource_for(arguments) -> SnowflakeResource:
    """Build the connection resource of a local account."""
    names = ("host", "port", "protocol")
    direct = ("account", "user", "password", "role", "warehouse", "database", "schema")
    return SnowflakeResource(
        **{name: arguments[name] for name in direct},
        network_timeout=5,  # an answer that a fault withholds is given up soon
        additional_snowflake_connection_args={name: arguments[name] for name in names},
    )


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """Start a local account with the pipeline's objects, an image and the toy job."""
    account = LocalAccount(tmp_path_factory.mktemp("home") / "local")
    account.start()
    try:
        with open_session(account.connection("ADMIN")) as session:
            apply_setup(session, LAYOUT)
        with open_session(account.connection()) as session:
            layout = tmp_path_factory.mktemp("image")
            files = files_below(SCRIPTS, "/opt/monad/scripts")
            build_layout(layout, files, ImageConfig(env={"PYTHONUNBUFFERED": "1"}))
            repository = ImageRepository(session, LAYOUT.qualified(LAYOUT.image_repository))
            repository.push_layout(layout, image="toy", tag="1")
            stage = StageClient(session)
            root = PipesSPCSClient(snowflake=resource_for(account.connection())).stage_root
            stage.put_file(SCRIPTS / "job_support.py", root / "scripts/job_support.py")
            stage.put_file(Path(__file__).with_name("toy_job.py"), root / "scripts/toy_job.py")
        yield account
    finally:
        account.stop()


@pytest.fixture
def session(account):
    """A session with the pipeline's role."""
    with open_session(account.connection()) as session:
        yield session


@pytest.fixture
def services(session):
    """The account's job services."""
    return JobServices(session)


def launched_by(services, run_id):
    """Return the job services that a run submitted."""
    found = services.list("MONAD_DB", "DATA_SCHEMA")
    return [item for item in found if item.labels.get("run_id") == run_id]


def build_client(arguments, **changes) -> PipesSPCSClient:
    """Build the client with short intervals."""
    settings = {
        "image": IMAGE,
        "lineage_table": "LINEAGE",
        "poll_interval_seconds": 0.3,
        "max_poll_interval_seconds": 1.0,
        "drain_timeout_seconds": 8.0,
        "log_wait_seconds": 6.0,
        "observation_interval_seconds": 0.0,
        "retry_delay_seconds": 0.0,
    }
    return PipesSPCSClient(snowflake=resource_for(arguments), **(settings | changes))


@pytest.fixture
def make_client(account):
    """Build clients over the local account."""
    return lambda **changes: build_client(account.connection(), **changes)


@pytest.fixture
def client(make_client):
    """The client over the local account."""
    return make_client()


@pytest.fixture
def instance():
    """A Dagster instance of its own."""
    with dg.instance_for_test() as instance:
        yield instance


def toy_asset(*arguments, options=None, **attributes):
    """Build an asset that runs the toy job with *arguments*."""

    @dg.asset(name="toy", **attributes)
    def toy(context: dg.AssetExecutionContext, client: PipesSPCSClient):
        return client.run(
            context=context,
            command=["python"],
            args=[
                "/app/monad_stage/scripts/toy_job.py",
                "--output",
                "{output_path}",
                "--attempt",
                "{attempt}",
                *arguments,
            ],
            output_path="toy",
            inputs={"stage_contents": "v1"},
            options=options,
        ).get_results(implicit_materializations=False)

    return toy
