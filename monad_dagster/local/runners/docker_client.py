"""Finds a container engine: any socket that speaks the Docker API, Docker Engine's or podman's."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.runners.base import RunnerError

if TYPE_CHECKING:
    from docker import APIClient

CONNECT_SECONDS = 10
REQUEST_SECONDS = 120


@dataclass(frozen=True)
class Engine:
    """A container engine that answers.

    Attributes:
        url: Its socket, to find it again.
        name: `Docker Engine` or `Podman`, with its version.
        api_version: The version of its API.
        num_cpus: What it may give to a container.
        is_podman: It is podman's service.
        is_rootless: Its root is the user who runs it.
    """

    url: str
    name: str
    api_version: str
    num_cpus: int
    is_podman: bool
    is_rootless: bool

    def client(self) -> "APIClient":
        """Return a client of its own; clients are not shared between threads that stream."""
        return _client(self.url, REQUEST_SECONDS, self.api_version)


def find_engine(url: str | None = None) -> Engine:
    """Return the first engine that answers: *url*, else what the Docker CLI would use, else known sockets.

    Raises:
        RunnerError: None answers; the text says what was tried.
    """
    tried = []
    for candidate in [url] if url else _candidates():
        try:
            return _describe(candidate)
        except RunnerError as error:
            tried.append(str(error))
    raise RunnerError("; ".join(tried) or "there is no socket of a container engine")


def _candidates() -> Iterator[str]:
    configured = _configured()
    if configured:
        yield configured
        return  # as the Docker CLI: what is configured is not replaced by something else
    home, user = Path.home(), os.getuid()
    sockets = (
        Path("/var/run/docker.sock"), home / ".docker/run/docker.sock",
        Path(f"/run/user/{user}/docker.sock"), Path("/run/podman/podman.sock"),
        Path(f"/run/user/{user}/podman/podman.sock"),
    )  # fmt: skip
    yield from (f"unix://{path}" for path in sockets if path.exists())


def _configured() -> str:
    """Return the endpoint of DOCKER_HOST or of the Docker CLI's current context, or nothing."""
    from docker import ContextAPI
    from docker.utils import kwargs_from_env

    host = kwargs_from_env().get("base_url")
    if host:
        return host
    try:
        context = ContextAPI.get_current_context()
    except Exception:  # a broken CLI configuration must not stop the account
        return ""
    if context is None or context.Name == "default":
        return ""
    return str(context.Host or "")


def _client(url: str, timeout: int, version: str = "auto") -> "APIClient":
    import docker
    from docker.utils import kwargs_from_env

    tls = kwargs_from_env().get("tls")
    return docker.APIClient(base_url=url, version=version, timeout=timeout, tls=tls or False)


def _describe(url: str) -> Engine:
    from docker.errors import DockerException
    from requests import RequestException

    try:
        client = _client(url, CONNECT_SECONDS)
        version, info = client.version(), client.info()
        client.close()
    except (DockerException, RequestException, OSError) as error:
        raise RunnerError(f"{url} does not answer ({_short(error)})") from error
    components = {part.get("Name") for part in version.get("Components") or []}
    is_podman = "Podman Engine" in components
    if info.get("OSType", "linux") != "linux":
        raise RunnerError(f"{url} runs {info.get('OSType')} containers only")
    security: list[Any] = info.get("SecurityOptions") or []
    return Engine(
        url=url,
        name=f"{'Podman' if is_podman else 'Docker Engine'} {version.get('Version', '')}".strip(),
        api_version=str(version["ApiVersion"]),
        num_cpus=int(info.get("NCPU") or 1),
        is_podman=is_podman,
        is_rootless=any("rootless" in str(option) for option in security),
    )


def _short(error: Exception) -> str:
    text = str(error)
    for known in ("Permission denied", "Connection refused", "No such file or directory"):
        if known in text:
            return known
    return text[:200]
