"""Ctrl-C at a terminal: the run in the foreground of a pseudo-terminal, under Dagster's command."""

import json
import os
import pty
import select
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from monad_dagster.spcs.job_service_state import JobServiceStatus
from tests.contract.pipes.conftest import launched_by
from tests.contract.pipes.toy_run import (
    CONNECTION_VARIABLE,
    EXECUTOR_VARIABLE,
    RETRIES_VARIABLE,
    SECONDS_VARIABLE,
    instance_in,
)

ROOT = Path(__file__).parents[3]
CTRL_C = b"\x03"


class Terminal:
    """A command in the foreground of a terminal of its own."""

    def __init__(self, command, environment):
        self.output = b""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(command[0], command, environment)

    def type(self, keys):
        """Press keys; the terminal turns Ctrl-C into SIGINT for the whole foreground group."""
        os.write(self._master, keys)

    def read(self, seconds):
        """Take what was printed meanwhile."""
        readable, _, _ = select.select([self._master], [], [], seconds)
        if readable:
            try:
                self.output += os.read(self._master, 65536)
            except OSError:  # the last process of the terminal is gone
                return False
        return True

    def wait(self, seconds=90):
        """Read until the command has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            alive = self.read(0.2)
            if os.waitpid(self.pid, os.WNOHANG)[0] or not alive:
                return
        raise AssertionError(self.output.decode(errors="replace")[-2000:])


@pytest.mark.parametrize(("executor", "retries"), [("in_process", 2), ("multiprocess", 0)])
def test_ctrl_c_at_a_terminal_is_a_users_cancel(tmp_path, account, services, executor, retries):
    """One Ctrl-C cancels the job service, the run ends CANCELED, and no retry policy starts more."""
    connection = tmp_path / "connection.json"
    connection.write_text(json.dumps(account.connection()))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with instance_in(str(home)) as instance:  # before two processes would make its tables at once
        assert instance.get_runs() == []
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        CONNECTION_VARIABLE: str(connection),
        EXECUTOR_VARIABLE: executor,
        SECONDS_VARIABLE: "120",
        RETRIES_VARIABLE: str(retries),
    }
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "asset", "materialize"]
    module = ["-m", "tests.contract.pipes.toy_definitions"]
    terminal = Terminal([*command, "--select", "toy", *module], environment)
    run, (found,) = wait_for_launch(terminal, home, services)
    try:
        terminal.type(CTRL_C)
        terminal.wait()
        status = services.describe(found.name).status
    finally:
        services.cancel(found.name)
    assert status is JobServiceStatus.CANCELLED
    with instance_in(str(home)) as instance:
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.CANCELED
    assert len(launched_by(services, run.run_id)) == 1


def wait_for_launch(terminal, home, services):
    """Wait until the run's job service is running."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        terminal.read(0.3)
        with instance_in(str(home)) as instance:
            runs = instance.get_runs()
        found = launched_by(services, runs[0].run_id) if runs else []
        if found and found[0].status is JobServiceStatus.RUNNING:
            return runs[0], found
    raise AssertionError(terminal.output.decode(errors="replace")[-2000:])
