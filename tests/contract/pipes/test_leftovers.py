"""What a run leaves on the disk of the process that ran it."""

import os
import signal
import subprocess
import sys
import tempfile

import dagster as dg
import pytest

from tests.contract.pipes.conftest import toy_asset

FOLLOW = """
import sys, time
from monad_dagster.pipes.logs import LogFollower
from monad_dagster.spcs.identifiers import QualifiedName
follower = LogFollower(None, QualifiedName("D", "S", "J"), containers=["main"])
follower._take((0, "main"), ["a line"])
print("following", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("behavior", ["succeed", "exit"])
def test_neither_success_nor_failure_leaves_a_file(
    client, instance, tmp_path, monkeypatch, behavior
):
    """Log, messages and uploads are gone when the run has ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = dg.materialize(
        [toy_asset("--behavior", behavior)],
        resources={"client": client},
        instance=instance,
        raise_on_error=False,
    )
    assert result.success is (behavior == "succeed")
    assert [path.name for path in tmp_path.iterdir() if "monad" in path.name] == []


def test_a_killed_process_leaves_no_log(tmp_path):
    """The local copy of the log has no name that could outlive its process."""
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOW],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_the_local_account_leaves_nothing(tmp_path):
    """Starting and stopping an account leaves its state directory and nothing beside it."""
    code = (
        "import sys, pathlib; from monad_dagster.local import LocalAccount\n"
        "account = LocalAccount(pathlib.Path(sys.argv[1])); account.start(); account.stop()"
    )
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "state")],
        env=os.environ | {"TMPDIR": str(scratch)},
        check=True,
    )
    assert list(scratch.iterdir()) == []
