"""Run workers of the experiments: started by the zygote, signalled, waited for."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.location import HOME_VARIABLE

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
END_SECONDS = 120.0
CTRL_C = b"\x03"


@dataclass
class Worker:
    """One run in a process of its own.

    Attributes:
        run_id: The run it executes.
        pid: Its process; also its session and process group.
        terminal: The other end of its terminal, if it has one.
        status: Exit status, negative for a signal; None while it lives.
    """

    run_id: str
    pid: int = 0
    terminal: int | None = None
    status: int | None = None
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def send(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def press_ctrl_c(self) -> None:
        """Interrupt as somebody at the terminal does: every process of the foreground gets it."""
        assert self.terminal is not None
        os.write(self.terminal, CTRL_C)

    def kill_container(self) -> None:
        """Kill the process and its children at once, as the end of their container does."""
        for pid in processes_of_session(self.pid):
            with_suppressed_kill(pid)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end and return the exit status."""
        if not self.ended.wait(seconds):
            raise AssertionError(f"worker {self.pid} of run {self.run_id} did not end")
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None
        assert self.status is not None
        return self.status


def with_suppressed_kill(pid: int) -> None:
    """Kill a process that may be gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def processes_of_session(session: int) -> list[int]:
    """Return the processes of a session, its leader first so that it starts no more."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(entry.name))
    return sorted(found, key=lambda pid: (pid != session, pid))


class Zygote:
    """The process that forks workers."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._instance = str(home / "dagster")
        self._lock = threading.Lock()
        self._waiting: dict[str, Worker] = {}
        self._workers: dict[int, Worker] = {}
        self._ready = threading.Event()
        environment = {
            **os.environ,
            HOME_VARIABLE: str(home),
            "PYTHONPATH": str(ROOT),
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        }
        (home / "logs").mkdir(exist_ok=True)
        with (home / "logs" / "zygote.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.chaos.zygote"],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="zygote", daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS):
            raise AssertionError((home / "logs" / "zygote.log").read_text()[-2000:])

    def close(self) -> None:
        """End the zygote and whatever worker is left."""
        for worker in list(self._workers.values()):
            if not worker.ended.is_set():
                worker.kill_container()
                worker.ended.wait(10)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                self._ready.set()
                continue
            with self._lock:
                if "pid" in answer:
                    worker = self._waiting.pop(answer["id"])
                    worker.pid = answer["pid"]
                    self._workers[worker.pid] = worker
                    worker.started.set()
                else:
                    worker = self._workers[answer["ended"]]
                    worker.status = answer["status"]
                    worker.ended.set()

    def start(
        self, partition: str, executor: str = "in_process", *, terminal: bool = False, **more: Any
    ) -> Worker:
        """Start a worker.

        Args:
            partition: The partition to materialize.
            executor: `in_process` or `multiprocess`.
            terminal: Whether it runs in the foreground of a terminal.
            more: parent_run_id, root_run_id, tags, crash_at, crash_after.
        """
        worker = Worker(str(uuid.uuid4()))
        request = {
            "id": worker.run_id,
            "run_id": worker.run_id,
            "instance": self._instance,
            "executor": executor,
            "log": str(self._home / "logs" / f"{partition}.log"),
            **more,
            "tags": {"dagster/partition": partition, **more.get("tags", {})},
        }
        if terminal:
            worker.terminal, slave = os.openpty()
            request["tty"] = os.ttyname(slave)
        with self._lock:
            self._waiting[worker.run_id] = worker
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if not worker.started.wait(START_SECONDS):
            raise AssertionError("the zygote started no worker")
        if terminal:
            os.close(slave)
        return worker

    def retry(self, run: Any, partition: str, *, tagged: bool, **more: Any) -> Worker:
        """Re-execute a run from failure, as the user interface (tagged) or plain Python does."""
        tags = {
            "dagster/parent_run_id": run.run_id,
            "dagster/root_run_id": run.root_run_id or run.run_id,
            **({"dagster/is_resume_retry": "true"} if tagged else {}),
        }
        return self.start(
            partition,
            parent_run_id=run.run_id,
            root_run_id=run.root_run_id or run.run_id,
            tags=tags,
            **more,
        )


@contextmanager
def zygote(home: Path) -> Iterator[Zygote]:
    """Run a zygote for the length of a block."""
    process = Zygote(home)
    try:
        yield process
    finally:
        process.close()
