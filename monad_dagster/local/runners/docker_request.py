"""What is asked of the engine for one container: a pure function from the account's request.

Follows the Docker Engine API's HostConfig; resources, volumes and users are the specification's.
"""

import os
from collections.abc import Mapping
from typing import Any

from monad_dagster.local.runners.base import Mount, RunRequest
from monad_dagster.local.runners.docker_client import Engine

CPU_SHARES = 1024  # of one CPU
LOG_SIZE = "1000g"  # no rotation, whatever the engine's own default is
MIN_MEMORY_BYTES = 6 * 2**20  # the engine's own lower bound


def host_config(
    request: RunRequest, engine: Engine, *, network_mode: str, gpu_ids: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the keyword arguments of `create_host_config`.

    Args:
        request: The container.
        engine: Where it will run.
        network_mode: `host`, a network's name, or `container:<id>`.
        gpu_ids: The host's GPUs that it gets.
    """
    from docker.types import DeviceRequest, LogConfig

    wanted: dict[str, Any] = {
        "network_mode": network_mode,
        "mounts": [_mount(mount) for mount in request.mounts if not _is_shm(mount)],
        # Read back from the start after a restart of the account, so nothing may be rotated away.
        "log_config": LogConfig(
            type="json-file", config={} if engine.is_podman else {"max-size": LOG_SIZE}
        ),
        "dns_opt": ["timeout:1", "attempts:1"],
    }
    if request.network is not None:
        wanted["mounts"].append(_bind("/etc/hosts", str(request.network.hosts), read_only=True))
    shm = [mount.size_bytes for mount in request.mounts if _is_shm(mount)]
    if shm and shm[0]:
        wanted["shm_size"] = shm[0]
    if request.cpu_limit is not None:
        # The engine refuses more than it has; a node of the family would have them.
        wanted["nano_cpus"] = int(min(request.cpu_limit, engine.num_cpus) * 1e9)
    if request.cpu_request is not None:
        wanted["cpu_shares"] = max(2, int(request.cpu_request * CPU_SHARES))
    if request.memory_limit_bytes is not None:
        limit = max(request.memory_limit_bytes, MIN_MEMORY_BYTES)
        wanted |= {"mem_limit": limit, "memswap_limit": limit}
    if gpu_ids and engine.is_podman:
        wanted["devices"] = [f"nvidia.com/gpu={gpu}" for gpu in gpu_ids]
    elif gpu_ids:
        wanted["device_requests"] = [
            DeviceRequest(device_ids=list(gpu_ids), capabilities=[["gpu"]])
        ]
    return wanted


def create_arguments(
    request: RunRequest, engine: Engine, env: Mapping[str, str], labels: dict[str, str]
) -> dict[str, Any]:
    """Return the keyword arguments of `create_container`, less name, image and host config."""
    wanted: dict[str, Any] = {
        "environment": dict(env),
        "hostname": request.hostname,
        "labels": labels,
        "stdin_open": False,
        "tty": False,
    }
    if request.command:
        wanted["entrypoint"] = list(request.command)
        # An explicit command without args must not inherit the image's CMD.
        wanted["command"] = list(request.args or ())
    elif request.args is not None:
        wanted["command"] = list(request.args)
    user = container_user(engine)
    if user and any(mount.source is not None and not mount.read_only for mount in request.mounts):
        wanted["user"] = user
    return wanted


def container_user(engine: Engine) -> str:
    """Return the user a container must run as so that the account may touch what it writes.

    An account that is root can take over any file, so the image's own user stays. Otherwise
    files on stages must be the account's: below a rootless engine that is the container's
    root, below another one the same number.
    """
    if os.geteuid() == 0:
        return ""
    return "0:0" if engine.is_rootless else f"{os.geteuid()}:{os.getegid()}"


def gpu_ids(wanted: int, offset: int, available: int) -> tuple[str, ...]:
    """Return which of the host's GPUs a container gets; instances share when there are too few."""
    count = min(wanted, available)
    return tuple(str((offset + index) % available) for index in range(count))


def _is_shm(mount: Mount) -> bool:
    return mount.source is None and mount.target == "/dev/shm"  # noqa: S108


def _mount(mount: Mount) -> Any:
    from docker.types import Mount as EngineMount

    if mount.source is None:
        return EngineMount(
            mount.target, None, type="tmpfs", tmpfs_size=mount.size_bytes, tmpfs_mode=0o1777
        )
    return _bind(mount.target, str(mount.source), read_only=mount.read_only)


def _bind(target: str, source: str, *, read_only: bool) -> Any:
    from docker.types import Mount as EngineMount

    return EngineMount(target, source, type="bind", read_only=read_only)
