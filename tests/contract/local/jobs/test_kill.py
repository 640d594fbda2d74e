"""The account is killed at any moment; what it acknowledged is there after the restart."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.support.kill_writers import Writer

# The connector's timer thread fails when it tells a dead account to abort a statement.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

ROUNDS = int(os.environ.get("MONAD_KILL_ROUNDS", "3"))
SEED = int(os.environ.get("MONAD_KILL_SEED", "20261125"))
LASTING = "import time; print('up', flush=True); time.sleep({})"


@pytest.fixture(scope="module")
def mortal(tmp_path_factory, new_account):
    """An account for killing."""
    account = new_account(tmp_path_factory.mktemp("mortal"))
    admin = account.connect("ADMIN")
    admin.cursor().execute("create warehouse writers")
    admin.close()
    yield account
    account.local.reset()


def kill(account):
    """End the server process without a chance to clean up."""
    pid = account.local.status()["pid"]
    os.kill(pid, signal.SIGKILL)
    while account.local._is_locked():
        time.sleep(0.005)


def restart(account):
    """Start the account again; a busy machine takes its time."""
    account.connections.clear()
    account.local.start(wait_seconds=120)


def wait_until_one_wrote(writers):
    """Wait for the first acknowledged statement, however long a busy machine takes for it."""
    deadline = time.monotonic() + 60
    while not any(writer.acknowledged for writer in writers):
        assert time.monotonic() < deadline, "no writer got an answer"
        time.sleep(0.01)


def die_at_start(account, seconds):
    """Start the server and kill it again while it still starts."""
    command = [sys.executable, "-m", "monad_dagster.local.serve",
               "--state-dir", str(account.local.state_dir)]  # fmt: skip
    with (account.local.state_dir / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    time.sleep(seconds)
    server.kill()
    server.wait()


def job_statement(account, seconds):
    """Return a function that gives the statement of a short job service."""

    def statement(name):
        spec = json.loads(account.spec(LASTING.format(seconds)))
        text = json.dumps(spec).replace("'", "\\'").replace("\\n", "\\\\n")
        return (
            f"execute job service in compute pool cpu_pool name = {name} async = true"
            f" from specification '{text}'"
        )

    return statement


@pytest.mark.parametrize("number", range(ROUNDS))
def test_acknowledged_writes_survive_a_kill(mortal, tmp_path, number):
    """Three writers work, the account is killed, and everything acknowledged is still there."""
    chance = random.Random(SEED + number)
    writers = [
        Writer(
            mortal.local, f"W{number}_{index}", f"{SEED}/{number}/{index}", tmp_path,
            job=job_statement(mortal, 0.2) if index == 0 else None,
        )
        for index in range(3)
    ]  # fmt: skip
    for writer in writers:
        writer.thread.start()
    wait_until_one_wrote(writers)
    time.sleep(chance.uniform(0.0, 2.3))
    kill(mortal)
    for writer in writers:
        writer.thread.join(60)
        assert not writer.thread.is_alive()
        assert writer.unexpected is None
    if number % 2:
        die_at_start(mortal, chance.uniform(0.2, 2.0))
    restart(mortal)
    assert sum(writer.acknowledged for writer in writers) > 0
    found = [(writer.database, writer.last, writer.differences()) for writer in writers]
    assert [item for item in found if item[-1] is not None] == []


def test_running_job_service_is_found_again_or_lost_with_its_node(mortal):
    """After a kill a running container is followed on; one that died meanwhile is a lost node."""
    kept = mortal.execute(LASTING.format(4), name="KEPT")
    lost = mortal.execute(LASTING.format(60), name="LOST")
    for name in (kept, lost):
        mortal.wait(name, "RUNNING")
    before = mortal.rows("select * from table(snowflake.spcs.get_job_history())")
    kill(mortal)
    for path in (mortal.local.state_dir / "jobs").glob("*/0/main/supervisor.json"):
        plan = (path.parent / "plan.json").read_text()
        if "time.sleep(60)" in plan:
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)
    restart(mortal)
    after = mortal.rows("select * from table(snowflake.spcs.get_job_history())")
    assert {row["NAME"] for row in before} <= {row["NAME"] for row in after}
    mortal.wait(kept)
    assert mortal.logs(kept) == "up"
    deadline = time.monotonic() + 30
    while mortal.status(lost) != "FAILED" and time.monotonic() < deadline:
        time.sleep(0.1)
    row = mortal.rows(f"show service containers in service {lost}")[0]
    assert (row["service_status"], row["last_exit_code"]) == ("FAILED", 137)
    assert row["message"] == "Encountered fatal error: the node was lost"
    history = mortal.rows("select * from table(snowflake.spcs.get_job_history())")
    assert next(r["STATUS"] for r in history if r["NAME"] == lost) == "FAILED"
