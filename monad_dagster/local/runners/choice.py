"""Chooses the runners of an account by trying them, and says plainly which are in use and why.

`auto` runs images in a container engine where one works, and images that hold files only with the
process runner. Any other setting forces one and fails when that one is not available.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.images.image_rootfs import Image
from monad_dagster.local.runners import docker_attach, docker_runner
from monad_dagster.local.runners.base import ImagePull, Runner, RunnerError, RunningContainer
from monad_dagster.local.runners.docker_client import Engine, find_engine
from monad_dagster.local.runners.docker_container import read_record
from monad_dagster.local.runners.process import LEVELS, ProcessRunner, attach_process

if TYPE_CHECKING:
    from monad_dagster.local.runners.docker_runner import DockerRunner

DOCKER_SETTINGS = ("docker", "docker-bridge", "docker-host")
SETTINGS = ("auto", *DOCKER_SETTINGS, "process", *LEVELS)


@dataclass
class ChosenRunners:
    """The runners of one account.

    Attributes:
        setting: What was asked for.
        process: The process runner, unless an engine was forced.
        docker: The container engine's runner, where there is one.
        refused: Why a runner that was tried is not in use.
    """

    setting: str
    process: ProcessRunner | None = None
    docker: "DockerRunner | None" = None
    refused: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Say which runner is in use, and why no other."""
        used = "; ".join(f"{kind}: {text}" for kind, text in self._in_use().items())
        unused = "; ".join(f"{kind} is not used: {text}" for kind, text in self.refused.items())
        return f"{used}. {unused}" if unused else used

    def facts(self) -> dict[str, object]:
        """Return the same as data."""
        return {"setting": self.setting, "in_use": self._in_use(), "refused": self.refused}

    def choose(self, images: Iterable[Image]) -> Runner:
        """Return the engine's runner, unless an image needs the host's Python.

        Raises:
            RunnerError: There is no runner for such images.
        """
        needs_host = any(image.needs_host_python for image in images)
        if self.docker is not None and not (needs_host and self.process is not None):
            return self.docker
        if self.process is None:
            raise RunnerError("no runner is in use")
        return self.process

    def attach(self, run_dir: Path) -> RunningContainer | None:
        """Return the container of a run directory, whichever runner started it."""
        record = read_record(run_dir)
        if record is None:
            return attach_process(run_dir)
        if self.docker is not None and self.docker.engine.url == record["url"]:
            return self.docker.attach(run_dir)
        return docker_attach.attach(_engine_at(record["url"]), run_dir)

    def end_instance(self, instance_dir: Path) -> None:
        """Give back what an instance held, whichever runner started it."""
        place = instance_dir / docker_attach.PAUSE
        if place.exists():
            url = str(json.loads(place.read_text())["url"])
            docker_attach.end_instance(_engine_at(url), instance_dir)

    def close(self) -> None:
        """Give back what the runners hold in this process."""
        if self.docker is not None:
            self.docker.close()

    def _in_use(self) -> dict[str, str]:
        used = {}
        if self.docker is not None:
            used["docker"] = self.docker.describe()
        if self.process is not None:
            scope = "images that hold files only run with the " if self.docker else ""
            used["process"] = scope + self.process.describe()
        return used


def choose_runners(
    state_dir: Path, address: tuple[str, int], probe: tuple[str, ImagePull], setting: str = "auto"
) -> ChosenRunners:
    """Try the runners that a setting allows.

    Args:
        state_dir: The account's directory.
        address: Where the account listens, already answering.
        probe: Digest of the probe's image and how to pull it.
        setting: One of SETTINGS.

    Raises:
        RunnerError: The one that was asked for does not work, or none does.
    """
    if setting not in SETTINGS:
        raise RunnerError(f"runner '{setting}' is not known; it is one of {', '.join(SETTINGS)}")
    chosen = ChosenRunners(setting)
    try:
        if setting in ("auto", *DOCKER_SETTINGS):
            network = setting.partition("-")[2] or None
            chosen.docker = docker_runner.DockerRunner(state_dir, address, probe, network=network)
    except RunnerError as error:
        if setting != "auto":
            raise RunnerError(
                f"Runner {setting} was asked for and is not available: {error}. Start a container"
                " engine or point DOCKER_HOST at its socket, or set MONAD_RUNNER=auto"
            ) from error
        chosen.refused["docker"] = str(error)
    if setting not in DOCKER_SETTINGS:
        level = setting if setting in LEVELS else None
        try:
            chosen.process = ProcessRunner(state_dir, level)
        except RunnerError as error:
            raise RunnerError(
                f"Runner {setting} was asked for and is not available: {error}. Install what is"
                " missing, or set MONAD_RUNNER=auto"
            ) from error
    return chosen


def _engine_at(url: str) -> Engine:
    """Return the engine of a socket, answering or not: what ran there must be accounted for."""
    try:
        return find_engine(url)
    except RunnerError:
        return Engine(url, "container engine", "1.40", 1, is_podman=False, is_rootless=False)
