"""Stage volumes of job services: a stage's own rules, under every kill, through the connector."""

import json
import os
import signal
import time

import pytest

WRITE_SLOWLY = (
    "import sys, time\n"
    "with open(sys.argv[1] + '/slow.bin', 'wb', buffering=0) as file:\n"
    "    file.write(b'x' * 100_000)\n"
    "    print('half', flush=True)\n"
    "    while not __import__('os').path.exists(sys.argv[1] + '/go'): time.sleep(0.05)\n"
    "    file.write(b'y' * 100_000)\n"
    "print('whole', flush=True)\n"
)


@pytest.fixture(autouse=True)
def strict(account):
    """These tests are about strict mounts; the account says why it has none."""
    text = account.local.status()["stage_mounts"]
    if not text.startswith("strict"):
        pytest.skip(text)


def listed(account, prefix):
    """Return the sizes that LIST shows below a prefix, by name."""
    rows = account.rows(f"list @monad_stage/{prefix}/")
    return {row["name"].rpartition("/")[2]: row["size"] for row in rows}


def wait_for_log(account, name, text):
    """Wait until a job service has printed something."""
    for _ in range(200):
        if account.status(name) == "RUNNING" and text in account.logs(name):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not print {text!r}: {account.logs(name)}")


def start_writer(account, prefix):
    """Start a job service that is in the middle of a file."""
    path = f"/app/monad_stage/{prefix}"
    code = f"import os; os.makedirs({path!r}, exist_ok=True)\n{WRITE_SLOWLY}"
    name = account.execute(code, path)
    wait_for_log(account, name, "half")
    assert listed(account, prefix) == {}
    return name


def put(account, tmp_path, prefix, name):
    """Put a small file."""
    (tmp_path / name).write_text("x")
    account.rows(f"put file://{tmp_path / name} @monad_stage/{prefix} auto_compress=false")


def test_what_breaks_on_a_real_stage_volume_breaks_here(account):
    """Each operation that v2 refuses fails in the container with an errno of its own."""
    code = (
        "import os, fcntl, json, sys\n"
        "root = sys.argv[1]; os.makedirs(root, exist_ok=True); old = root + '/old'\n"
        "open(old, 'w').write('old')\n"
        "def seek():\n"
        "    with open(root + '/seek', 'wb') as f: f.write(b'ab'); f.seek(0); f.write(b'c')\n"
        "tries = dict(append=lambda: open(old, 'a'), seek=seek,\n"
        "  rename=lambda: os.rename(old, root + '/b'), link=lambda: os.link(old, root + '/b'),\n"
        "  lock=lambda: fcntl.flock(open(old), fcntl.LOCK_EX))\n"
        "found = {}\n"
        "for name, act in tries.items():\n"
        "    try: act(); found[name] = 0\n"
        "    except OSError as error: found[name] = error.errno\n"
        "print(json.dumps(found))\n"
    )
    name = account.execute(code, "/app/monad_stage/refused")
    account.wait(name)
    assert json.loads(account.logs(name)) == {
        "append": 95, "seek": 22, "rename": 95, "link": 1, "lock": 37,
    }  # fmt: skip
    assert listed(account, "refused") == {"old": 3}


def test_a_file_is_listed_after_close_and_not_before(account, tmp_path):
    """LIST shows a file of a running job service once its writer has closed it."""
    name = start_writer(account, "close")
    put(account, tmp_path, "close", "go")
    account.wait(name)
    assert listed(account, "close") == {"go": 1, "slow.bin": 200_000}


def test_cancelling_in_the_middle_of_a_file_leaves_none(account):
    """What a killed container was writing never appears on the stage."""
    name = start_writer(account, "cancelled")
    account.rows(f"call {name}!spcs_cancel_job()")
    account.wait(name, "CANCELLED")
    assert listed(account, "cancelled") == {}


def mounts(account):
    """Return the folders of the volumes that are mounted; another test's may still go."""
    return set((account.local.state_dir / "mounts").iterdir())


def gone(account, before):
    """Wait until no volume is mounted that was not before the test."""
    for _ in range(400):
        if not mounts(account) - before:
            break
        time.sleep(0.05)
    assert mounts(account) - before == set()


def test_a_killed_account_does_not_disturb_the_volume(account, tmp_path):
    """A container goes on writing while the account is dead; the whole file is there afterwards."""
    before = mounts(account)
    name = start_writer(account, "survivor")
    os.kill(account.local.status()["pid"], signal.SIGKILL)
    account.restarted()
    put(account, tmp_path, "survivor", "go")
    account.wait(name)
    assert listed(account, "survivor") == {"go": 1, "slow.bin": 200_000}
    gone(account, before)


def test_a_killed_mount_fails_the_job_service_only(account):
    """When what serves the volume dies, the container gets an error; the account goes on."""
    before = mounts(account)
    name = start_writer(account, "killed_mount")
    [home] = mounts(account) - before
    os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGKILL)
    started = time.monotonic()
    assert account.value("select 1") == 1
    assert listed(account, "killed_mount") == {}
    assert time.monotonic() - started < 5
    account.rows(f"call {name}!spcs_cancel_job()")
    for _ in range(400):
        if account.status(name) in ("FAILED", "CANCELLED"):
            break
        time.sleep(0.05)
    assert account.status(name) in ("FAILED", "CANCELLED")
    gone(account, before)
