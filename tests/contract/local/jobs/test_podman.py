"""The same runner on podman's service: another engine behind the same API.

podman gives a network its gateway only while a container uses it, so instances share the host's
network; its API knows log times by the second and does not say when memory ran out.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import snowflake.connector

from tests.contract.local.jobs.conftest import make_account
from tests.support.container_engine import (
    BASE_IMAGE,
    EngineUnavailableError,
    PrivateEngine,
    base_archive,
    docker_host,
)

pytestmark = pytest.mark.docker
CONTAINERS_CONF = """
[containers]
default_ulimits=["nofile=4096:4096","nproc=10000:10000"]
[engine]
runtime="runc"
"""
REGISTRIES_CONF = """
[[registry]]
location="localhost"
insecure=true
"""


@pytest.fixture(scope="module")
def podman_engine():
    """A private podman service; skipped with the reason where there can be none."""
    for tool in ("podman", "runc", "docker"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("a private podman service with its own storage needs root")
    root = Path(tempfile.mkdtemp(prefix="podman-"))
    (root / "containers.conf").write_text(CONTAINERS_CONF)
    (root / "registries.conf").write_text(REGISTRIES_CONF)
    environment = {
        **os.environ,
        "CONTAINERS_CONF": str(root / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(root / "registries.conf"),
    }
    places = ["--root", str(root / "root"), "--runroot", str(root / "run")]
    with (root / "podman.log").open("wb") as log:
        process = subprocess.Popen(
            ["podman", *places, "system", "service", "--time=0", f"unix://{root}/podman.sock"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (root / "podman.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    engine = PrivateEngine(f"unix://{root}/podman.sock", process, root)
    try:
        engine.docker("import", str(base_archive()), BASE_IMAGE)
        yield engine
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    finally:
        subprocess.run(["podman", *places, "rm", "-fa"], env=environment, capture_output=True)
        engine.stop()


@pytest.fixture(scope="module")
def podman_account(tmp_path_factory, podman_engine):
    """A set-up account whose containers run in podman."""
    with docker_host(podman_engine):
        account = make_account(tmp_path_factory.mktemp("podman"), "docker")
    try:
        account.digest = account.docker_push(podman_engine, BASE_IMAGE)
        yield account
    finally:
        account.local.reset()


def test_status_says_podman_and_its_network(podman_account):
    """The probe finds out what podman can do."""
    used = podman_account.local.status()["runner"]["in_use"]["docker"]
    assert used.startswith("Podman ")
    assert "own loopback address" in used


def test_container_of_podman_does_the_same_work(podman_account):
    """Stage, exit code, both streams, sub-second times."""
    code = (
        "import os, sys, time\n"
        "open('/app/monad_stage/from_podman', 'w').write('x')\n"
        "print('one', flush=True); time.sleep(0.3); print('two', file=sys.stderr); sys.exit(3)\n"
    )
    name = podman_account.execute(code)
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        podman_account.wait(name)
    row = podman_account.rows(f"show service containers in service {name}")[0]
    assert (row["last_exit_code"], row["image_digest"]) == (3, podman_account.digest)
    rows = podman_account.rows(
        f"select timestamp, log from table({name}!spcs_get_logs()) order by timestamp"
    )
    assert [row["LOG"] for row in rows] == ["one", "two"]
    gap = (rows[1]["TIMESTAMP"] - rows[0]["TIMESTAMP"]).total_seconds()
    assert 0.1 < gap < 3
    stage = podman_account.local.state_dir / "stages/MONAD_DB/DATA_SCHEMA/MONAD_STAGE"
    assert (stage / "from_podman").read_text() == "x"


def test_container_of_podman_is_found_again(podman_account, podman_engine):
    """It outlives the account; its log is complete and not repeated."""
    code = "import time\nfor i in range(40): print(i, flush=True); time.sleep(0.1)"
    name = podman_account.execute(code)
    podman_account.wait(name, "RUNNING")
    time.sleep(1)
    os.kill(podman_account.local.status()["pid"], signal.SIGKILL)
    with docker_host(podman_engine):
        podman_account.restarted()
    podman_account.wait(name)
    assert podman_account.logs(name).split() == [str(index) for index in range(40)]
