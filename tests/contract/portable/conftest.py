"""Tests that say what Snowflake does; they run on the local account and on a real one.

The account is known by its environment only (tests/support/target.py). Without one a local account
is started and named by that same environment.
"""

import os

os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

import pytest

from monad_dagster.local import LocalAccount
from tests.support import images
from tests.support import target as targets
from tests.support.fidelity import Recorder

RECORDER = Recorder()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Note what the account answered to the rows a test is about."""
    outcome = yield
    RECORDER.note(item, outcome.get_result())


def pytest_sessionfinish():
    """Write what was noted, when `make fidelity` asked for it."""
    RECORDER.write()


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    """The account under test."""
    found = targets.given()
    local = None
    if found is None:
        local = LocalAccount(tmp_path_factory.mktemp("portable") / "account")
        local.start()
        os.environ.update(targets.local_environment(local))
        found = targets.given()
    RECORDER.target = found
    try:
        yield found
    finally:
        found.close()
        if local is not None:
            assert targets.leftovers(local, found.prefix) == []
            for key in [key for key in os.environ if key.startswith(targets.PREFIX)]:
                del os.environ[key]
            local.reset()


@pytest.fixture(scope="session")
def world(target):
    """Names of a database with a schema, a stage, a repository, a warehouse and a role."""
    database = target.create("DATABASE", "DB")
    names = {
        "database": database,
        "schema": f"{database}.S",
        "warehouse": target.create(
            "WAREHOUSE", "WH", "WAREHOUSE_SIZE = XSMALL AUTO_SUSPEND = 60"
            " INITIALLY_SUSPENDED = TRUE",
        ),
        "role": target.create("ROLE", "ROLE"),
        "user": target.user,
    }  # fmt: skip
    target.script(
        f"""
        CREATE SCHEMA {database}.S;
        CREATE STAGE {database}.S.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')
          DIRECTORY = (ENABLE = TRUE);
        CREATE IMAGE REPOSITORY {database}.S.REPO;
        CREATE TABLE {database}.S.T (A INT);
        CREATE VIEW {database}.S.V AS SELECT A FROM {database}.S.T;
        GRANT ROLE {names["role"]} TO USER {target.user};
        ALTER SCHEMA {database}.S SET LOG_LEVEL = INFO;
        USE WAREHOUSE {names["warehouse"]}
        """
    )
    for key in ("stage ST", "repository REPO", "table T", "view V"):
        word, name = key.split()
        names[word] = f"{database}.S.{name}"
    return names


@pytest.fixture(scope="session")
def pool(target):
    """The name of a CPU pool that job services may run on."""
    if target.compute_pool:
        return target.compute_pool
    if not target.may_create_pool:
        pytest.skip("no MONAD_CONTRACT_COMPUTE_POOL, and MONAD_CONTRACT_CREATE_POOL is not 1")
    return target.create(
        "COMPUTE POOL", "CPU",
        "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS AUTO_SUSPEND_SECS = 60"
        " INITIALLY_SUSPENDED = TRUE",
    )  # fmt: skip


@pytest.fixture(scope="session")
def image(target, world):
    """The path of a pushed image with a shell."""
    files = images.busybox()
    if files is None:
        pytest.skip("no static busybox on this machine to make an image of")
    url = target.rows(f"SHOW IMAGE REPOSITORIES IN SCHEMA {world['schema']}")[0]["repository_url"]
    digest = images.push(target, url, "shell", "1", files)
    path = "/" + "/".join(world["repository"].lower().split(".")) + "/shell:1"
    return images.PushedImage(path, digest)


@pytest.fixture(scope="session")
def run_job(target, world, pool, image):
    """Return a function that executes a job service and returns its full name."""
    from tests.support.job_runs import JobRuns

    runs = JobRuns(target, world, pool, image)
    yield runs
    runs.close()
