"""Containers that an account finds again in an engine, and what it leaves alone."""

import json
import time

import pytest

from monad_dagster.local.runners.docker_attach import attach
from monad_dagster.local.runners.docker_cleanup import LABEL, RUN_LABEL, remove_everything
from monad_dagster.local.runners.docker_client import Engine, find_engine
from monad_dagster.local.runners.docker_container import DockerContainer

NOWHERE = Engine("unix:///nonexistent.sock", "an engine", "1.41", 1, False, False)


@pytest.fixture
def engine(container_engine):
    """The private engine as the runner sees it."""
    return find_engine(container_engine.url)


@pytest.fixture
def start(container_engine, base_image, tmp_path):
    """Start a container as an account would have; returns its run directory."""
    made = []

    def run(*words, verb="run", record_id=True):
        run_dir = tmp_path / f"run{len(made)}"
        run_dir.mkdir()
        name = f"test-{tmp_path.name[-20:]}-{len(made)}".replace("[", "").replace("]", "")
        options = ["-d"] if verb == "run" else []
        labels = ["--label", f"{LABEL}={tmp_path}", "--label", f"{RUN_LABEL}={run_dir}"]
        identifier = container_engine.docker(
            verb, *options, "--network", "host", *labels, "--name", name, base_image, *words
        ).stdout.strip()
        made.append(identifier)
        record = {"url": container_engine.url, "name": name, "grace_seconds": 0.5}
        record |= {"id": identifier, "started_at": time.time()} if record_id else {}
        (run_dir / "docker.json").write_text(json.dumps(record))
        return run_dir

    yield run
    for identifier in made:
        container_engine.docker("rm", "-f", identifier, check=False)


def test_engine_that_stays_silent_is_a_lost_node(tmp_path):
    """A container whose engine does not answer is given up after a while, never forgotten."""
    (tmp_path / "docker.json").write_text(json.dumps({"id": "abc", "url": NOWHERE.url}))
    end = DockerContainer(NOWHERE, tmp_path, lost_seconds=0.1).wait(20)
    assert end is not None
    assert (end.exit_code, end.lost) == (137, True)
    assert json.loads((tmp_path / "exit.json").read_text())["lost"]


@pytest.mark.docker
def test_container_of_an_account_killed_while_starting_it_is_adopted(engine, start):
    """A running container is found by its name although its id was never written down."""
    run_dir = start("python", "-c", "print('adopted')", record_id=False)
    container = attach(engine, run_dir)
    assert container is not None
    end = container.wait(20)
    assert (end.exit_code, container.log_path.read_text().split(" ", 1)[1]) == (
        0, "stdout adopted\n"
    )  # fmt: skip


@pytest.mark.docker
def test_container_that_was_only_created_is_made_again(engine, start, container_engine):
    """Nothing was started, so there is nothing to attach to and nothing is left."""
    run_dir = start("true", verb="create", record_id=False)
    name = json.loads((run_dir / "docker.json").read_text())["name"]
    assert attach(engine, run_dir) is None
    assert container_engine.docker("inspect", name, check=False).returncode != 0


@pytest.mark.docker
def test_grace_time_goes_on_after_a_restart(engine, start):
    """A container that was told to end is killed at the end of the grace time all the same."""
    run_dir = start("sleep", "100")
    (run_dir / "terminate").write_text(str(time.time()))
    end = attach(engine, run_dir).wait(20)
    assert (end.exit_code, end.lost) == (137, False)


@pytest.mark.docker
def test_node_that_is_taken_away_is_lost(engine, start):
    """`kill` is what a node's loss does."""
    container = attach(engine, start("sleep", "100"))
    container.kill()
    end = container.wait(20)
    assert (end.exit_code, end.lost) == (137, True)


@pytest.mark.docker
def test_running_container_says_what_it_uses(engine, start):
    """Processor time and memory come from the engine."""
    code = "x = b'x' * (40 << 20)\nwhile True: sum(range(10000))"
    container = attach(engine, start("python", "-c", code))
    deadline = time.monotonic() + 20
    usage = container.usage()
    while usage is None or usage.cpu_seconds < 0.2 or usage.memory_bytes < 40 << 20:
        assert time.monotonic() < deadline
        usage = container.usage()
    container.kill()
    container.wait(20)
    assert container.usage() is None


@pytest.mark.docker
def test_cleaning_up_leaves_strangers_alone(engine, start, container_engine, base_image, tmp_path):
    """Only what carries the account's label goes."""
    own = json.loads((start("sleep", "100") / "docker.json").read_text())["id"]
    stranger = container_engine.docker(
        "run", "-d", "--network", "host", "--label", f"{LABEL}=/another", base_image, "sleep", "100"
    ).stdout.strip()
    try:
        assert remove_everything(engine.url, tmp_path) == 1
        left = container_engine.docker("ps", "-aq", "--no-trunc").stdout.split()
        assert stranger in left
        assert own not in left
        assert base_image.split(":")[0] in container_engine.docker("images").stdout
    finally:
        container_engine.docker("rm", "-f", stranger)
