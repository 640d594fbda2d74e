"""A stage volume's requests come from several threads, so their order is not the kernel's."""

import contextlib
import os
import signal
import struct
import subprocess
import threading

import pytest

from monad_dagster.local.runners import fuse_wire
from monad_dagster.local.runners.fuse_wire import Request
from monad_dagster.local.runners.stage_fs import StageFileSystem


class Noting(threading.Event):
    """An event that tells when somebody waits for it."""

    def __init__(self):
        super().__init__()
        self.awaited = threading.Event()

    def wait(self, timeout=None):
        self.awaited.set()
        return super().wait(timeout)


@pytest.fixture
def volume(tmp_path):
    """A volume over an empty stage."""
    for name in ("stage", "partials"):
        (tmp_path / name).mkdir()
    return StageFileSystem(tmp_path / "stage", tmp_path / "partials", uid=0, gid=0)


@pytest.fixture
def writer():
    """A process that is said to write; it does nothing."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def written(volume, pid):
    """Let a process create out.bin and write to it; returns the number of the open file."""

    def request(body):
        return Request(0, fuse_wire.ROOT_ID, pid, memoryview(body))

    flags = struct.pack("<IIII", os.O_WRONLY | os.O_CREAT, 0o644, 0, 0)
    made = bytes(volume.do_create(request(flags + b"out.bin\0")))
    (number,) = struct.unpack_from("<Q", made, len(made) - 16)
    head = struct.pack("<QQI", number, 0, 4).ljust(40, b"\0")
    volume.do_write(request(head + b"half"))
    return number, request(struct.pack("<Q", number).ljust(24, b"\0"))


@pytest.mark.parametrize("killed", [True, False])
def test_a_release_that_overtakes_its_flush_waits_for_it(volume, writer, killed):
    """Of a killed writer nothing appears, of one that closed its file all of it does."""
    number, last = written(volume, writer.pid)
    handle = volume._table.handle(number)
    handle.closed = Noting()
    if killed:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    overtaking = threading.Thread(target=volume.do_release, args=(last,))
    overtaking.start()
    assert handle.closed.awaited.wait(10)
    with contextlib.suppress(InterruptedError):  # what a killed writer would be told
        volume.do_flush(last)
    overtaking.join(10)
    found = [(p.name, p.read_bytes()) for p in volume.backing.iterdir()]
    assert found == ([] if killed else [("out.bin", b"half")])
    assert not list(volume.partials.iterdir())
