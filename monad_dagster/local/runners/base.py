"""The interface between job services and whatever runs their containers.

A runner starts one container of one service instance in a run directory, and finds it again
after the account restarted. Nothing here knows SQL, specifications or statuses.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from monad_dagster.local.images.image_rootfs import Image

GRACE_SECONDS = 30.0  # SIGTERM to SIGKILL, as Snowflake documents it


class RunnerError(Exception):
    """A container cannot be started; the message is for the container's status."""


class ImagePullError(RunnerError):
    """The image cannot be had from the registry."""


@dataclass(frozen=True)
class Mount:
    """One volume in a container.

    Attributes:
        target: Absolute path in the container.
        source: Host directory; None for memory.
        read_only: Whether writes are refused.
        size_bytes: Size of a memory volume.
        uid: Owner of the files, as the specification asks.
        gid: Group of the files.
        stage: The source is a stage's directory: mount it with `stage_mount.py`.
    """

    target: str
    source: Path | None = None
    read_only: bool = False
    size_bytes: int | None = None
    uid: int | None = None
    gid: int | None = None
    stage: bool = False


@dataclass(frozen=True)
class ImagePull:
    """How a container engine gets an image.

    Attributes:
        repository: Path in the account's registry, `db/schema/repository/image`.
        login: Opens a registry login with the job service's owner role: user and password.
    """

    repository: str
    login: Callable[[], AbstractContextManager[tuple[str, str]]]


@dataclass(frozen=True)
class InstanceNetwork:
    """How an instance is reached, the same for all its containers.

    Attributes:
        instance_dir: The instance's directory; names it.
        address: Its address among the instances.
        hosts: The file that its containers see as /etc/hosts; it changes as instances come and go.
        num_containers: How many containers share the address.
        is_open: Whether an external access integration opens the way out.
    """

    instance_dir: Path
    address: str
    hosts: Path
    num_containers: int = 1
    is_open: bool = False


@dataclass(frozen=True)
class RunRequest:
    """Everything a container needs; `env` is complete except for what the image brings.

    `pull` and `network` are None only where a runner is tried by itself.
    """

    run_dir: Path
    name: str
    image: Image
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    injected_env: Mapping[str, str] = field(default_factory=dict)
    spec_env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    hostname: str = "container"
    gpus: int = 0
    gpu_offset: int = 0
    cpu_request: float | None = None
    cpu_limit: float | None = None
    memory_limit_bytes: int | None = None
    pull: ImagePull | None = None
    network: InstanceNetwork | None = None
    grace_seconds: float = GRACE_SECONDS

    @property
    def argv(self) -> tuple[str, ...]:
        """Return the command line: `command` replaces ENTRYPOINT, `args` replaces CMD."""
        if self.command:
            return (*self.command, *(self.args or ()))
        config = self.image.config
        return (*config.entrypoint, *(self.args if self.args is not None else config.cmd))


@dataclass(frozen=True)
class ContainerExit:
    """How a container ended.

    Attributes:
        exit_code: 128 + signal number when a signal ended it.
        oom: It used more memory than its limit.
        start_error: Why it never started, or empty.
        lost: It vanished with its supervisor: the node is gone.
        finished_at: Seconds since the epoch.
    """

    exit_code: int
    finished_at: float
    oom: bool = False
    start_error: str = ""
    lost: bool = False


@dataclass(frozen=True)
class NetworkUsage:
    """What an instance received and sent since it started, over all of its own interfaces."""

    received_bytes: int
    received_packets: int
    transmitted_bytes: int
    transmitted_packets: int


@dataclass(frozen=True)
class ContainerUsage:
    """What a container has used.

    Attributes:
        measured_at: Seconds since the epoch.
        cpu_seconds: Processor time since the container started.
        memory_bytes: Memory in use now.
        gpu_utilization: Share of its GPUs in use, 0 to 1; None without a measurement.
        gpu_memory_bytes: Memory of its GPUs in use; None without a measurement.
        network: What its instance received and sent; None where it shares the host's network.
    """

    measured_at: float
    cpu_seconds: float
    memory_bytes: int
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None
    network: NetworkUsage | None = None


@runtime_checkable
class Measured(Protocol):
    """A running container that can say what it uses; for platform metrics."""

    def usage(self) -> ContainerUsage | None:
        """Measure now; None when it does not run."""
        ...


class RunningContainer(Protocol):
    """A container that was started, by this process or an earlier one."""

    @property
    def log_path(self) -> Path:
        """The log: lines of RFC 3339 time, stream and text."""
        ...

    @property
    def started_at(self) -> float | None:
        """When it started, in seconds since the epoch."""
        ...

    def poll(self) -> ContainerExit | None:
        """Return how it ended, or None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> ContainerExit | None:
        """Wait for the end; None when the time ran out."""
        ...

    def terminate(self) -> None:
        """Ask it to end: SIGTERM, then SIGKILL after the grace time. Returns at once."""
        ...

    def kill(self) -> None:
        """End it without grace."""
        ...


class Runner(Protocol):
    """Starts containers."""

    @property
    def needs_unpacked_image(self) -> bool:
        """Whether `RunRequest.image.root` must be there; an engine pulls the image itself."""
        ...

    def describe(self) -> str:
        """Say in one sentence how containers run here, and why."""
        ...

    def account_host(self, host: str) -> str:
        """Return the account's host as containers must name it."""
        ...

    def new_address(self, taken: Collection[str]) -> str:
        """Return an address for one more instance."""
        ...

    def start(self, request: RunRequest) -> RunningContainer:
        """Start a container.

        Raises:
            ImagePullError: The image cannot be had.
            RunnerError: It cannot be started at all.
        """
        ...

    def attach(self, run_dir: Path) -> RunningContainer | None:
        """Return the container of a run directory, running or ended; None if none was started."""
        ...

    def end_instance(self, instance_dir: Path) -> None:
        """Give back what an instance held beside its containers."""
        ...


class Runners(Protocol):
    """The runners of an account: one, or one for each kind of image."""

    def describe(self) -> str:
        """Say which runner is in use, and why no other."""
        ...

    def facts(self) -> dict[str, object]:
        """Return the same as data: `setting`, `in_use` and `refused`."""
        ...

    def choose(self, images: Iterable[Image]) -> Runner:
        """Return the runner for an instance whose containers have these images."""
        ...

    def attach(self, run_dir: Path) -> RunningContainer | None:
        """Return the container of a run directory, whichever runner started it."""
        ...

    def end_instance(self, instance_dir: Path) -> None:
        """Give back what an instance held, whichever runner started it."""
        ...
