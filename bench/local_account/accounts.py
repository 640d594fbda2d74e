"""Servers to measure: a local account, fakesnow's own server, and what a process uses."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import snowflake.connector

from monad_dagster.local import LocalAccount


@contextlib.contextmanager
def local_account() -> Iterator[LocalAccount]:
    """Start a local account in a directory of its own and delete it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-account-"))
    account = LocalAccount(folder / "local")
    try:
        account.start()
        with snowflake.connector.connect(
            **account.connection("ADMIN") | {"database": None, "schema": None, "warehouse": None}
        ) as connection:
            for statement in ("database bench", "schema bench.s", "warehouse w"):
                connection.cursor().execute(f"create {statement}")
        yield account
    finally:
        account.reset()
        shutil.rmtree(folder, ignore_errors=True)


def admin(account: LocalAccount) -> dict:
    """Return connection arguments of the administrator in the database of the bench."""
    return account.connection("ADMIN") | {"database": "BENCH", "schema": "S", "warehouse": "W"}


@contextlib.contextmanager
def fakesnow_server() -> Iterator[tuple[dict, int]]:
    """Start fakesnow's own server; yield connection arguments and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="bench-fakesnow-")  # it never removes what it puts there
    server = subprocess.Popen(
        [sys.executable, "-m", "fakesnow", "-s", "-p", str(port)],
        env=os.environ | {"TMPDIR": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    arguments = {
        "user": "u", "password": "p", "account": "a", "host": "127.0.0.1", "port": port,
        "protocol": "http", "database": "BENCH", "schema": "S",
    }  # fmt: skip
    try:
        _wait_for(port, server)
        yield arguments, server.pid
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def peak_memory_gib(pid: int) -> float:
    """Return the most memory a process had resident since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024**2
    raise RuntimeError(f"process {pid} has no VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak of a process start again from what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
