"""Which runner an account uses: forced, refused, and said plainly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monad_dagster.errors import LocalAccountError
from monad_dagster.local import LocalAccount


@pytest.fixture
def no_engine(monkeypatch, tmp_path):
    """The environment of a machine whose configured engine does not answer."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    return f"unix://{tmp_path}/none.sock"


def test_forced_engine_that_is_missing_stops_the_start(tmp_path, no_engine):
    """The account does not start with something else; the error says what was tried."""
    local = LocalAccount(tmp_path / "account", runner="docker")
    with pytest.raises(LocalAccountError) as raised:
        local.start()
    text = str(raised.value)
    assert "Runner docker was asked for and is not available" in text
    assert f"{no_engine} does not answer" in text
    assert "server.log" in text
    assert not local.status()["running"]


def test_automatic_choice_keeps_the_reason(tmp_path, no_engine):
    """`status` says which runner is in use and why the engine is not."""
    local = LocalAccount(tmp_path / "account")
    local.start()
    try:
        runner = local.status()["runner"]
        assert runner["setting"] == "auto"
        assert "process runner" in runner["in_use"]["process"]
        assert f"{no_engine} does not answer" in runner["refused"]["docker"]
        log = (local.state_dir / "server.log").read_text()
        assert "Job services run with process: process runner" in log
        with pytest.raises(LocalAccountError, match="does not use runner docker"):
            LocalAccount(local.state_dir, runner="docker").start()
        assert LocalAccount(local.state_dir, runner="auto").start()["port"] > 0
    finally:
        local.reset()


def test_command_line_says_which_runner_is_in_use(tmp_path, no_engine):
    """`local status` and `doctor` print the runners, and a misspelt setting is refused."""
    environment = {**os.environ, "MONAD_HOME": str(tmp_path / "home"), "MONAD_RUNNER": "plain"}

    def command(*words, **changes):
        return subprocess.run(
            [str(Path(sys.executable).parent / "monad-dagster"), *words], text=True, check=False,
            env={**environment, **changes}, capture_output=True, timeout=120,
        )  # fmt: skip

    try:
        assert command("local", "start").returncode == 0
        status = command("local", "status").stdout
        assert "runner setting" in status
        assert "process runner without isolation" in status
        assert command("setup").returncode == 0
        assert "process runner without isolation" in command("doctor").stdout
        wrong = command("local", "status", MONAD_RUNNER="dokcer")
        assert wrong.returncode == 2
        assert "MONAD_RUNNER is not valid" in wrong.stderr
    finally:
        command("local", "reset", "--yes")
