"""The full disk: a directory that really has no room, and refusals of stage writes by the server.

Connector 4.x writes into the stage's directory itself. A fault sends it to a file system of one
page that is full already, so that the operating system says `No space left on device`. It is
mounted in a namespace of a helper process and reached through that process's /proc entry.
"""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.faults.fault_store import Faults

# This file is also run by itself, with the standard library only.

_WAIT_SECONDS = 10.0


def is_full(
    faults: "Faults", key: str, stage: tuple[str, str, str], **more: str | tuple[str, ...]
) -> bool:
    """Tell whether a write to a stage, given as (database, schema, name), finds a full disk."""
    if not faults.armed:
        return False
    names = (".".join(stage), stage[-1])
    return faults.decide("full-disk", key, {"stage": names, **more}) is not None


def check_room(faults: "Faults", key: str, stage: tuple[str, str, str], statement: str) -> None:
    """Raise OSError as a write to a full disk does.

    Raises:
        OSError: ENOSPC.
    """
    if is_full(faults, key, stage, statement=" ".join(statement.split())):
        raise no_space(".".join(stage))


def no_space(path: str) -> OSError:
    """Return the error of writing to a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class FullDirectory:
    """A directory on a full file system; made on first use, gone with the account."""

    def __init__(self, account: "Account") -> None:
        self._folder = account.state_dir / "full-disk"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        account.on_close(self.close)

    def path(self) -> Path:
        """Return the directory.

        Raises:
            StatementError: This host lets nobody mount anything.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process is not None
            return Path(f"/proc/{self._process.pid}/root{self._folder}")

    def _start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        command = [sys.executable, "-I", "-S", __file__, str(self._folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        answer = process.stdout.readline().decode().strip()  # at once: it mounts or says why not
        if answer != "ready":
            from monad_dagster.local import errors

            process.kill()
            process.wait(_WAIT_SECONDS)
            raise errors.unsupported(f"full-disk fault on this host: {answer}")
        self._process = process

    def close(self) -> None:
        """End the helper; its mount goes with it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(_WAIT_SECONDS)


def _hold(folder: str) -> None:
    """Mount a file system of one page on *folder*, fill it, and keep it until stdin ends."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user = 0x20000, 0x10000000
    uid, gid = os.geteuid(), os.getegid()
    try:
        if libc.unshare(new_mounts | new_user) == 0:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        elif libc.unshare(new_mounts) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        private = 16384 | 1 << 18
        libc.mount(b"none", b"/", None, ctypes.c_ulong(private), None)
        if libc.mount(b"full", folder.encode(), b"tmpfs", ctypes.c_ulong(0), b"size=4096") != 0:
            raise OSError(ctypes.get_errno(), "mount")
        Path(folder, ".filler").write_bytes(b"\0" * 4096)
    except OSError as error:
        print(error, flush=True)  # noqa: T201 - the account reads it
        return
    print("ready", flush=True)  # noqa: T201 - the account reads it
    sys.stdin.read()


if __name__ == "__main__":
    _hold(sys.argv[1])
