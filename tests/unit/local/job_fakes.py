"""A runner whose containers end when a test says so, and a clock that a test moves."""

import datetime as dt
import json
from collections.abc import Collection, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path

from monad_dagster.local.images.image_rootfs import Image
from monad_dagster.local.runners.addresses import loopback_address
from monad_dagster.local.runners.base import (
    ContainerExit,
    Runner,
    Runners,
    RunningContainer,
    RunRequest,
)


class FakeClock:
    """The account's clock."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, **step: float) -> None:
        """Let time pass."""
        self.now += dt.timedelta(**step)


class FakeContainer(RunningContainer):
    """A container that a test ends."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.terminated = False

    @property
    def log_path(self) -> Path:
        return self.run_dir / "log"

    @property
    def started_at(self) -> float | None:
        return 1.0

    def say(self, text: str, stream: str = "stdout") -> None:
        """Write a log line."""
        with self.log_path.open("a") as log:
            log.write(f"2026-11-01T12:00:00.000000001Z {stream} {text}\n")

    def end(self, exit_code: int = 0, **facts: object) -> None:
        """Let the container end."""
        outcome = {"exit_code": exit_code, "finished_at": 2.0, **facts}
        (self.run_dir / "exit.json").write_text(json.dumps(outcome))

    def poll(self) -> ContainerExit | None:
        path = self.run_dir / "exit.json"
        return ContainerExit(**json.loads(path.read_text())) if path.exists() else None

    def wait(self, timeout: float | None = None) -> ContainerExit | None:
        return self.poll()

    def terminate(self) -> None:
        self.terminated = True

    def kill(self) -> None:
        self.end(137, lost=True)


class FakeRunner(Runner, Runners):
    """Starts nothing; remembers what was asked for."""

    needs_unpacked_image = True

    def __init__(self) -> None:
        self.requests: list[RunRequest] = []
        self.containers: list[FakeContainer] = []

    def describe(self) -> str:
        return "a fake"

    def facts(self) -> dict[str, object]:
        return {"setting": "fake"}

    def choose(self, images: Iterable[Image]) -> "FakeRunner":
        return self

    def account_host(self, host: str) -> str:
        return host

    def new_address(self, taken: Collection[str]) -> str:
        return loopback_address("fake", taken)

    def end_instance(self, instance_dir: Path) -> None:
        (instance_dir / "given-back").touch()

    def start(self, request: RunRequest) -> FakeContainer:
        self.requests.append(request)
        (request.run_dir / "plan.json").write_text("{}")
        self.containers.append(FakeContainer(request.run_dir))
        return self.containers[-1]

    def attach(self, run_dir: Path) -> FakeContainer | None:
        return FakeContainer(run_dir) if (run_dir / "plan.json").exists() else None


class InlineExecutor(Executor):
    """Runs what it is given at once."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future
