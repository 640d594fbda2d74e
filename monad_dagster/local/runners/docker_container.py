"""One container of a container engine, followed by a thread: its log, its end, its removal.

What must survive the account lies in the run directory: docker.json says which container it is,
`terminate` when the end was asked for, exit.json how it ended, written after the log is complete.
"""

import contextlib
import json
import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.runners.base import (
    GRACE_SECONDS,
    ContainerExit,
    ContainerUsage,
    NetworkUsage,
)
from monad_dagster.local.runners.docker_client import Engine
from monad_dagster.local.runners.docker_logs import LogFile
from monad_dagster.local.runners.supervise import write_json

if TYPE_CHECKING:
    from docker import APIClient

logger = logging.getLogger("monad_dagster.local")

RECORD = "docker.json"
LOST_SECONDS = 60.0  # an engine that does not answer for so long is a lost node
RETRY_SECONDS = 0.5
SETTLE_SECONDS = 2  # from the end of the log to the state that says so


class DockerContainer:
    """A container that was started, by this account process or an earlier one.

    Args:
        engine: The engine that runs it.
        run_dir: Its directory, with docker.json.
        lost_seconds: How long the engine may stay silent.
    """

    def __init__(
        self, engine: Engine, run_dir: Path, *, lost_seconds: float = LOST_SECONDS
    ) -> None:
        self.run_dir = run_dir
        self._engine = engine
        self._lost_seconds = lost_seconds
        self._record = read_record(run_dir) or {}
        self._end = _read_exit(run_dir)
        self._ended = threading.Event()
        self._terminating = threading.Lock()
        self._terminated = False
        if self._end is not None:
            self._ended.set()
            return
        self._watcher = threading.Thread(target=self._watch, name="container", daemon=True)
        self._watcher.start()
        if (run_dir / "terminate").exists():
            self.terminate()  # the account was killed during the grace time

    @property
    def id(self) -> str:
        """The engine's identifier."""
        return str(self._record.get("id", ""))

    @property
    def log_path(self) -> Path:
        """The log."""
        return self.run_dir / "log"

    @property
    def started_at(self) -> float | None:
        """When the engine started it."""
        return self._record.get("started_at")

    def poll(self) -> ContainerExit | None:
        """Return how it ended, or None while it runs."""
        return self._end

    def wait(self, timeout: float | None = None) -> ContainerExit | None:
        """Wait for the end."""
        self._ended.wait(timeout)
        return self._end

    def usage(self) -> ContainerUsage | None:
        """Measure now what the container uses; None when it does not run."""
        from docker.errors import DockerException
        from requests import RequestException

        if self._end is not None:
            return None
        try:
            with self._engine.client() as client:
                stats = client.stats(self.id, stream=False, one_shot=True)
        except (DockerException, RequestException, OSError):
            return None
        return measured(stats, time.time())

    def terminate(self) -> None:
        """Send SIGTERM now and SIGKILL after the grace time; returns at once."""
        with self._terminating:
            if self._terminated or self._end is not None:
                return
            self._terminated = True
        marker = self.run_dir / "terminate"
        if not marker.exists():
            marker.write_text(str(time.time()))
        threading.Thread(target=self._terminate, name="container-end", daemon=True).start()

    def kill(self) -> None:
        """End it as a node that goes away does: without grace, and reported as lost."""
        (self.run_dir / "lost").touch()
        threading.Thread(target=self._signal, args=("SIGKILL",), daemon=True).start()

    def _terminate(self) -> None:
        asked_at = float((self.run_dir / "terminate").read_text() or time.time())
        grace = float(self._record.get("grace_seconds", GRACE_SECONDS))
        self._signal("SIGTERM")
        if not self._ended.wait(max(0.0, asked_at + grace - time.time())):
            self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        from docker.errors import DockerException
        from requests import RequestException

        try:
            with self._engine.client() as client:
                client.kill(self.id, name)
        except (DockerException, RequestException, OSError) as error:
            logger.debug("container %s: %s not sent: %s", self.id[:12], name, error)

    # --- the watcher

    def _watch(self) -> None:
        log = LogFile(self.log_path, int(self._record.get("log_start", 0)))
        failing_since: float | None = None
        while self._end is None:
            end = None
            try:
                with self._engine.client() as client:
                    end = self._follow(client, log)
                failing_since = None
            except Exception as error:  # whatever broke, the engine is asked again
                logger.debug("container %s cannot be followed: %s", self.id[:12], error)
                now = time.monotonic()
                failing_since = failing_since or now
                if now - failing_since > self._lost_seconds:
                    end = ContainerExit(137, time.time(), lost=True)
            if end is None:
                time.sleep(RETRY_SECONDS)
            else:
                self._finish(end)

    def _follow(self, client: "APIClient", log: LogFile) -> ContainerExit | None:
        """Copy the log to its end; return how the container ended, None if it still runs."""
        from docker.errors import NotFound
        from requests import RequestException

        try:
            log.follow(_log_body(client, self.id, follow=True))
            with contextlib.suppress(RequestException):  # it runs on, only its log broke off
                client.wait(self.id, timeout=SETTLE_SECONDS)
            state = client.inspect_container(self.id)["State"]
        except NotFound:
            return ContainerExit(137, time.time(), lost=True)
        if state.get("Running") or state.get("Restarting") or state.get("Paused"):
            return None
        # Last lines were seen to be absent here and present in the stored log.
        log.follow(_log_body(client, self.id, follow=False))
        return ContainerExit(
            exit_code=int(state.get("ExitCode") or 0),
            finished_at=time.time(),
            oom=bool(state.get("OOMKilled")),
            start_error=str(state.get("Error") or ""),
            lost=(self.run_dir / "lost").exists(),
        )

    def _finish(self, end: ContainerExit) -> None:
        write_json(self.run_dir / "exit.json", asdict(end))
        remove_container(self._engine, self.id)
        self._end = end
        self._ended.set()


def measured(stats: dict[str, Any], now: float) -> ContainerUsage | None:
    """Return what the engine's statistics say; None when they are empty, as of an ended container.

    Memory leaves out the file cache that the kernel gives back when asked, as platform metrics do.
    """
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    if "total_usage" not in cpu or "usage" not in memory:
        return None
    parts = memory.get("stats") or {}
    cache = parts.get("total_inactive_file", parts.get("inactive_file", 0))
    return ContainerUsage(
        measured_at=now,
        cpu_seconds=cpu["total_usage"] / 1e9,
        memory_bytes=max(0, int(memory["usage"]) - int(cache)),
        network=_network(stats.get("networks")),
    )


def _network(interfaces: dict[str, dict[str, int]] | None) -> NetworkUsage | None:
    """Add up a container's interfaces; one on the host's network has none of its own."""
    if not interfaces:
        return None
    keys = ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets")
    return NetworkUsage(*(sum(int(i.get(key, 0)) for i in interfaces.values()) for key in keys))


def _log_body(client: "APIClient", container: str, *, follow: bool) -> Any:
    """Open the container's log, both streams, from the beginning, and as it grows if wanted."""
    from docker.errors import NotFound

    url = f"{client.base_url}/v{client.api_version}/containers/{container}/logs"
    wanted = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
    answer = client.get(url, params=wanted, stream=True, timeout=None)
    if answer.status_code == 404:
        raise NotFound(f"no container {container}")
    answer.raise_for_status()
    return answer.raw


def remove_container(engine: Engine, container: str) -> None:
    """Remove a container with its anonymous volumes; one that is gone already is fine."""
    from docker.errors import DockerException
    from requests import RequestException

    try:
        with engine.client() as client:
            client.remove_container(container, v=True, force=True)
    except (DockerException, RequestException, OSError) as error:
        logger.debug("container %s was not removed: %s", container[:12], error)


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """Return docker.json of a run directory."""
    try:
        return json.loads((run_dir / RECORD).read_text())
    except (OSError, ValueError):
        return None


def _read_exit(run_dir: Path) -> ContainerExit | None:
    try:
        return ContainerExit(**json.loads((run_dir / "exit.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
