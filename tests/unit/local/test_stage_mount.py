"""Stage volumes on a real FUSE mount: what is refused, when files appear, and every kill."""

import errno
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from monad_dagster.local.runners import fuse_wire, stage_mount, stage_serve, supervise
from monad_dagster.local.runners.base import Mount, RunnerError, RunRequest
from monad_dagster.local.runners.stage_mount import StageMounts


@pytest.fixture
def state(tmp_path):
    """A state directory; whatever a test leaves mounted is taken away."""
    folder = tmp_path / "state"
    folder.mkdir()
    yield folder
    stage_mount.release_all(folder)


@pytest.fixture
def mounts(state):
    """Strict stage mounts; hosts without FUSE skip with the reason."""
    found = StageMounts(state)
    if found.mode != "strict":
        pytest.skip(found.reason)
    return found


@pytest.fixture
def stage(state):
    """A stage's directory with one file."""
    folder = state / "stages"
    folder.mkdir()
    (folder / "old.bin").write_bytes(b"old content")
    return folder


@pytest.fixture
def mounted(mounts, state, stage):
    """Mount the stage for a container whose run directory is returned by `run_dir`."""

    def start(name="run", **options):
        run_dir = state / "jobs" / name
        run_dir.mkdir(parents=True, exist_ok=True)
        options.setdefault("stage", True)
        request = RunRequest(run_dir, "main", None, mounts=(Mount("/st", stage, **options),))
        source = mounts.prepare(request).mounts[0].source
        assert source is not None
        return source

    return start


def server_of(mount):
    """Return the process id of a mount's server."""
    return json.loads((mount.parent / "server.json").read_text())["pid"]


def wait_until(condition, seconds=10):
    """Wait for something another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _random_write(path):
    with (path / "new.bin").open("wb") as file:
        file.write(b"0123456789")
        file.seek(2)
        file.write(b"x")


def _hole(path):
    with (path / "new.bin").open("wb") as file:
        file.seek(4096)
        file.write(b"x")


def _resize(path):
    with (path / "new.bin").open("wb") as file:
        file.truncate(100)


def _lock(path, how):
    with (path / "old.bin").open("rb") as file:
        how(file, fcntl.LOCK_SH)


def _reserve(path):
    with (path / "new.bin").open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 10)


REFUSED = {
    "append": (lambda p: (p / "old.bin").open("ab"), errno.EOPNOTSUPP),
    "edit in place": (lambda p: (p / "old.bin").open("r+b"), errno.EOPNOTSUPP),
    "random write": (_random_write, errno.EINVAL),
    "write after a hole": (_hole, errno.EINVAL),
    "resize while writing": (_resize, errno.EINVAL),
    "truncate": (lambda p: os.truncate(p / "old.bin", 3), errno.EOPNOTSUPP),
    "rename": (lambda p: (p / "old.bin").rename(p / "new.bin"), errno.EOPNOTSUPP),
    "rename over": (lambda p: (p / "old.bin").replace(p / "two.bin"), errno.EOPNOTSUPP),
    "rename of a directory": (lambda p: (p / "dir").rename(p / "dir2"), errno.EOPNOTSUPP),
    "hard link": (lambda p: os.link(p / "old.bin", p / "new.bin"), errno.EPERM),
    "symbolic link": (lambda p: (p / "new.bin").symlink_to("old.bin"), errno.EPERM),
    "special file": (lambda p: os.mkfifo(p / "new.bin"), errno.EPERM),
    "flock": (lambda p: _lock(p, fcntl.flock), errno.ENOLCK),
    "lockf": (lambda p: _lock(p, fcntl.lockf), errno.ENOLCK),
    "reserve space": (_reserve, errno.EINVAL),
    "the account's own names": (lambda p: (p / ".monad-x").write_text("x"), errno.ENOENT),
}


@pytest.fixture(scope="module")
def one_mount(tmp_path_factory):
    """One mount for all refused operations: none of them changes the stage."""
    state = tmp_path_factory.mktemp("state")
    mounts = StageMounts(state)
    if mounts.mode != "strict":
        pytest.skip(mounts.reason)
    stage, run_dir = state / "stages", state / "run"
    (stage / "dir").mkdir(parents=True)
    run_dir.mkdir()
    for name in ("old.bin", "two.bin"):
        (stage / name).write_bytes(name.encode())
    request = RunRequest(run_dir, "main", None, mounts=(Mount("/st", stage, stage=True),))
    yield mounts.prepare(request).mounts[0].source, stage
    stage_mount.release_all(state)


@pytest.mark.parametrize("operation", REFUSED)
def test_what_a_stage_volume_refuses(one_mount, operation):
    """Each operation fails with its errno and leaves the stage as it was."""
    mount, stage = one_mount
    act, number = REFUSED[operation]
    with pytest.raises(OSError) as caught:
        act(mount)
    assert caught.value.errno == number
    assert {p.name: p.is_file() and p.read_bytes() for p in stage.iterdir()} == {
        "old.bin": b"old.bin", "two.bin": b"two.bin", "dir": False,
    }  # fmt: skip


def test_a_file_cannot_be_written_through_a_map(mounted):
    """A shared writable memory map would be random writes."""
    with (mounted() / "new.bin").open("w+b") as file:
        file.write(b"0" * 4096)
        file.flush()
        with pytest.raises(OSError) as caught:
            mmap.mmap(file.fileno(), 4096)
    assert caught.value.errno == errno.ENODEV


def test_a_file_appears_at_close(mounted, stage):
    """While it is written a file has no name, neither in the stage nor on any mount of it."""
    mount, other = mounted("one"), mounted("two")
    with (mount / "new.bin").open("wb") as file:
        file.write(b"x" * 3_000_000)
        file.flush()
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == 3_000_000
        for folder in (stage, mount, other):
            assert not (folder / "new.bin").exists()
            assert [p.name for p in folder.iterdir()] == ["old.bin"]
    for folder in (stage, mount, other):
        assert (folder / "new.bin").read_bytes() == b"x" * 3_000_000


def test_overwriting_keeps_the_old_version_until_close(mounted, stage):
    """Readers see one whole version or the other; an open reader keeps the one it opened."""
    mount = mounted()
    (stage / "big.bin").write_bytes(b"a" * 2_000_000)
    with (mount / "big.bin").open("rb", buffering=0) as reader:
        assert reader.read(10) == b"a" * 10
        with (mount / "big.bin").open("wb") as writer:
            writer.write(b"b" * 1_000_000)
            assert (stage / "big.bin").read_bytes() == b"a" * 2_000_000
            assert (mount / "big.bin").stat().st_size == 2_000_000
            assert (mount / "big.bin").read_bytes() == b"a" * 2_000_000
        assert (mount / "big.bin").read_bytes() == b"b" * 1_000_000
        rest = b"".join(iter(lambda: reader.read(1 << 20), b""))
        assert rest == b"a" * 1_999_990
    assert (mount / "big.bin").stat().st_size == 1_000_000


def test_reads_see_the_latest_content(mounted, stage):
    """What changes in the stage by other means is read at the next open."""
    mount = mounted()
    assert (mount / "old.bin").read_bytes() == b"old content"
    (stage / "old.bin").write_bytes(b"OLD CONTENT")
    assert (mount / "old.bin").read_bytes() == b"OLD CONTENT"
    (stage / "old.bin").unlink()
    assert not (mount / "old.bin").exists()


def test_what_is_allowed(mounted, stage):
    """Directories, empty files, sequential appends to a new file, deletion and read maps work."""
    mount = mounted()
    (mount / "a/b").mkdir(parents=True)
    (mount / "a/b/_SUCCESS").touch()
    assert (stage / "a/b/_SUCCESS").exists()
    with (mount / "a/log").open("a") as log:
        for index in range(3):
            log.write(f"{index}\n")
            log.flush()
    assert (stage / "a/log").read_text() == "0\n1\n2\n"
    (mount / "a/log").chmod(0o600)
    os.utime(mount / "a/log")
    with (
        (mount / "a/log").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
    ):
        assert view[:] == b"0\n1\n2\n"
    (mount / "a/log").unlink()
    (mount / "a/b/_SUCCESS").unlink()
    (mount / "a/b").rmdir()
    assert [p.name for p in (stage / "a").iterdir()] == []


def test_shell_redirections_write_whole_files(mounted, stage):
    """A shell duplicates and closes descriptors; only the last close publishes."""
    script = (
        "exec 3>two.txt; echo a >&3; test ! -e two.txt; echo b >&3; exec 3>&-; echo x > one.txt"
    )
    done = subprocess.run(["sh", "-ec", script], cwd=mounted(), check=False)
    assert done.returncode == 0
    assert ((stage / "two.txt").read_text(), (stage / "one.txt").read_text()) == ("a\nb\n", "x\n")


def test_a_childs_close_does_not_publish(mounted, stage):
    """A process that inherited the descriptor ends without completing the file."""
    mount = mounted()
    with (mount / "new.bin").open("wb") as file:
        file.write(b"first")
        file.flush()
        subprocess.run(["true"], pass_fds=[file.fileno()], check=True)
        assert not (stage / "new.bin").exists()
        file.write(b" second")
    assert (stage / "new.bin").read_bytes() == b"first second"


def test_a_refused_write_gives_the_file_up(mounted, stage):
    """After a random write nothing more is accepted, close() says so and nothing appears."""
    mount = mounted()
    descriptor = os.open(mount / "new.bin", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"0123")
    for offset in (1, 4):
        with pytest.raises(OSError, match="Invalid argument"):
            os.pwrite(descriptor, b"x", offset)
    with pytest.raises(OSError, match="Invalid argument"):
        os.close(descriptor)
    assert not (stage / "new.bin").exists()


def test_the_last_close_wins(mounted, stage):
    """Writers of one name do not mix; the file is what the last of them wrote."""
    mount = mounted()
    turn = threading.Barrier(8)

    def write(number):
        with (mount / "new.bin").open("wb", buffering=0) as file:
            turn.wait()
            for _ in range(20):
                file.write(bytes([number]) * 50_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (stage / "new.bin").read_bytes()
    assert len(content) == 1_000_000
    assert len(set(content)) == 1


def test_a_read_only_volume(mounted):
    """A stage that the owner role may only read is mounted read-only."""
    with pytest.raises(OSError) as caught:
        (mounted(read_only=True) / "new.bin").write_text("x")
    assert caught.value.errno == errno.EROFS


WRITER = """
import os, sys, time, threading
for _ in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
file = open(sys.argv[1], "wb", buffering=0)
file.write(b"x" * 100_000)
print("written", flush=True)
sys.stdin.read(1)
os._exit(0)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_file_of_a_killed_writer_never_appears(mounted, stage, number):
    """A signal that ends the writer, threads and all, leaves no part of a file."""
    mount = mounted()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, mount / "new.bin"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with writer:
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(number)
    wait_until(lambda: not list((mount.parent / "partial").iterdir()))
    assert [p.name for p in stage.iterdir()] == ["old.bin"]


def test_a_writer_that_exits_without_closing_has_written(mounted, stage):
    """The kernel closes what an ending process forgot; only a signal throws it away."""
    mount = mounted()
    writer = subprocess.run(
        [sys.executable, "-c", WRITER, mount / "new.bin"], input=b"x", check=True,
        capture_output=True,
    )  # fmt: skip
    assert writer.returncode == 0
    assert (stage / "new.bin").stat().st_size == 100_000


def test_a_killed_mount_hangs_nobody(mounted, mounts, state, stage):
    """Who uses the mount gets an error at once; the stage is there, and clean-up takes it away."""
    mount = mounted()
    file = (mount / "new.bin").open("wb", buffering=0)
    file.write(b"x")
    os.kill(server_of(mount), signal.SIGKILL)
    with pytest.raises(OSError) as caught:
        wait_until(lambda: file.write(b"x") and False)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with pytest.raises(OSError):
        file.close()
    assert (stage / "old.bin").read_bytes() == b"old content"
    wait_until(lambda: stage_mount.clean(state) == 1)  # the server is a while on its way out
    assert fuse_wire.mounted_below(str(state)) == []
    assert list(mounts.folder.iterdir()) == []
    assert [p.name for p in stage.iterdir()] == ["old.bin"]


def test_a_stopped_mount_does_not_hold_up_release(mounted, state):
    """A server that does not react is killed after a bounded time."""
    mount = mounted()
    os.kill(server_of(mount), signal.SIGSTOP)
    started = time.monotonic()
    stage_mount.release(state / "jobs/run")
    assert time.monotonic() - started < 5
    assert not mount.parent.exists()


def test_clean_up_at_start_leaves_living_mounts(mounted, state, stage):
    """A restarted account takes away what is over, and nothing that a container uses."""
    living, over = mounted("living"), mounted("over")
    (state / "jobs/over/exit.json").write_text("{}")
    StageMounts(state)
    assert not over.exists()
    (living / "new.bin").write_text("still here")
    assert (stage / "new.bin").read_text() == "still here"


def test_the_server_ends_with_its_container(mounted, state):
    """Without an account, a mount goes when the container is recorded as ended or is lost."""
    ended, lost = mounted("ended"), mounted("lost")
    (state / "jobs/ended/exit.json").write_text("{}")
    gone = supervise.identity() | {"start_ticks": 1}
    (state / "jobs/lost/supervisor.json").write_text(json.dumps(gone))
    assert stage_serve.has_ended(state / "jobs/lost")
    wait_until(lambda: fuse_wire.mounted_below(str(state)) == [])
    assert not (ended.parent / "partial").exists()
    assert not (lost / "old.bin").exists()


def test_release_never_deletes_what_is_behind_a_mount(mounted, state, stage):
    """Releasing removes the mount's directory and not one file of the stage."""
    mount = mounted()
    stage_mount.release(state / "jobs/run")
    stage_mount.release(state / "jobs/run")
    assert not mount.parent.exists()
    assert (stage / "old.bin").read_bytes() == b"old content"


@pytest.fixture
def small_disk(state):
    """A stage on a disk of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = state / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk):
    """The write that finds no space fails, close() repeats it, no part of the file appears."""
    mounts = StageMounts(small_disk)
    if mounts.mode != "strict":
        pytest.skip(mounts.reason)
    stage, run_dir = small_disk / "stages", small_disk / "run"
    stage.mkdir()
    run_dir.mkdir()
    request = RunRequest(run_dir, "main", None, mounts=(Mount("/st", stage, stage=True),))
    mount = mounts.prepare(request).mounts[0].source
    try:
        with pytest.raises(OSError) as caught:
            (mount / "new.bin").write_bytes(b"x" * 2_000_000)
        assert caught.value.errno == errno.ENOSPC
        assert list(stage.iterdir()) == []
        (mount / "small.bin").write_bytes(b"fits")
        assert (stage / "small.bin").read_bytes() == b"fits"
    finally:
        stage_mount.release_all(small_disk)


def test_without_fuse_volumes_are_plain_and_say_so(state, stage, monkeypatch):
    """A host without the device gets plain directories with a plain message; strict refuses."""
    monkeypatch.setattr(fuse_wire, "DEVICE", "/dev/no-fuse-here")
    mounts = StageMounts(state)
    assert mounts.mode == "off"
    assert "/dev/no-fuse-here" in mounts.describe()
    request = RunRequest(state, "main", None, mounts=(Mount("/st", stage, stage=True),))
    assert mounts.prepare(request) is request
    with pytest.raises(RunnerError, match="cannot be strict"):
        StageMounts(state, "strict")
    with pytest.raises(RunnerError, match="strict or off"):
        StageMounts(state, "loose")


def test_a_mount_that_cannot_be_made_is_a_start_error(mounts, state, stage, monkeypatch):
    """The runner's error names what the kernel said, and nothing is left behind."""
    monkeypatch.setattr(stage_mount, "_SERVE", "print('mount: no such device')")
    request = RunRequest(state, "main", None, mounts=(Mount("/st", stage, stage=True),))
    with pytest.raises(RunnerError, match="no such device"):
        mounts.prepare(request)
    assert list(Path(mounts.folder).iterdir()) == []
