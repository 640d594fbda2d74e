"""Strict validation of a service specification, from its text to a model with defaults filled in.

Follows the page "Service specification reference" and judges as Snowflake does: unknown keys,
names, quantities, volume references and the node's capacity. It shares no code with the
builder in `monad_dagster.spcs`, which it judges. Deviation from Snowflake, by choice: a memory
volume larger than the node is accepted with a warning.
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from monad_dagster.local.specs import quantities
from monad_dagster.local.specs.spec_schema import ROOT, check_shape
from monad_dagster.local.specs.spec_text import InvalidSpecError, load_spec_text
from monad_dagster.spcs.instance_families import InstanceFamily

NAME = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
ROLE_NAME = re.compile(r"^[A-Za-z0-9_]+$")
ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
IMAGE = re.compile(r"^/?[A-Za-z0-9_.:/-]+$")
STAGE_NAME = re.compile(r'^@[A-Za-z0-9_$."]+(?:/[^\x00-\x1f]*)?$')
MAX_CONTAINERS = MAX_VOLUMES = 20
MAX_ENDPOINTS = 100
MAX_BLOCK_VOLUMES = 3
METRIC_GROUPS = ("system", "system_limits", "status", "network", "storage")
DEFAULT_CPU = 0.5
DEFAULT_MEMORY = 2**29
TOKEN_PATH = "/snowflake/session/token"  # noqa: S105 - a path
V1_STAGE_MOUNT = "stage mount v1 not supported, please use v2 instead"


@dataclass(frozen=True)
class VolumeMount:
    """Where a container sees a volume."""

    name: str
    mount_path: str


@dataclass(frozen=True)
class Volume:
    """A volume of a service instance; `stage` is the reference without its `@`."""

    name: str
    source: str
    size_bytes: int | None = None
    stage: str | None = None
    uid: int | None = None
    gid: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A container with its resources; None for an unset limit means what the node has."""

    name: str
    image: str
    command: tuple[str, ...] | None
    args: tuple[str, ...] | None
    env: dict[str, str]
    mounts: tuple[VolumeMount, ...]
    request_cpu: float
    request_memory: int
    limit_cpu: float | None
    limit_memory: int | None
    gpus: int
    token_path: str | None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceSpec:
    """A specification that Snowflake would accept.

    Attributes:
        containers: The containers of an instance.
        volumes: The volumes by name.
        log_level: What container logs reach the event table: INFO, ERROR or NONE.
        metric_groups: What platform metrics are collected.
        warnings: What is accepted here but deserves a warning event.
        data: The parsed specification.
    """

    containers: tuple[Container, ...]
    volumes: dict[str, Volume]
    log_level: str
    metric_groups: frozenset[str]
    warnings: tuple[str, ...]
    data: dict[str, Any]

    @property
    def gpus(self) -> int:
        """Return how many GPUs one instance asks for."""
        return sum(container.gpus for container in self.containers)

    @property
    def has_endpoints(self) -> bool:
        """Tell whether the service promises ports to others."""
        return bool(_one_of(self.data["spec"], "endpoints", "endpoint"))


def parse_spec(text: str, family: InstanceFamily | None = None) -> ServiceSpec:
    """Validate a specification, against the pool's instance family when one is given.

    Raises:
        InvalidSpecError: Snowflake would refuse it; number 395018, state 22023.
    """
    data = load_spec_text(text)
    check_shape(data, ROOT, "root")
    spec = data["spec"]
    containers_data = _one_of(spec, "containers", "container")
    if not containers_data:
        raise InvalidSpecError("missing option 'containers' for 'spec'.")
    _check_count("containers", len(containers_data), MAX_CONTAINERS)
    volumes_data = _one_of(spec, "volumes", "volume")
    _check_count("volumes", len(volumes_data), MAX_VOLUMES)
    volumes = [_volume(item, f"volumes[{index}]") for index, item in enumerate(volumes_data)]
    num_blocks = sum(volume.source == "block" for volume in volumes)
    _check_count("block volumes", num_blocks, MAX_BLOCK_VOLUMES)
    containers = [
        _container(item, f"containers[{index}]") for index, item in enumerate(containers_data)
    ]
    _check_unique("containers", [container.name for container in containers])
    _check_unique("volumes", [volume.name for volume in volumes])
    endpoints = _check_endpoints(spec)
    _check_service_roles(data, endpoints)
    _check_mounts(containers, {volume.name: volume for volume in volumes})
    warnings = _check_node(containers, volumes, family) if family is not None else []
    return ServiceSpec(
        tuple(containers),
        {volume.name: volume for volume in volumes},
        _log_level(spec),
        _metric_groups(spec),
        tuple(warnings),
        data,
    )


def _one_of(spec: dict[str, Any], plural: str, singular: str) -> list[dict[str, Any]]:
    if plural in spec and singular in spec:
        raise InvalidSpecError(f"only one of '{plural}' and '{singular}' may be given for 'spec'.")
    return spec.get(plural) or spec.get(singular) or []


def _container(data: dict[str, Any], path: str) -> Container:
    _check_name(data["name"], path)
    if not IMAGE.match(data["image"]):
        raise InvalidSpecError(f"invalid image '{data['image']}' for '{path}'.")
    resources = data.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    try:
        gpus = _gpus(requests, limits, path)
        limit_cpu = _optional(limits, "cpu", quantities.parse_cpu)
        limit_memory = _optional(limits, "memory", quantities.parse_memory)
        request_cpu = _optional(requests, "cpu", quantities.parse_cpu)
        request_memory = _optional(requests, "memory", quantities.parse_memory)
    except quantities.QuantityError as error:
        raise InvalidSpecError(f"{error} for '{path}.resources'.") from None
    if request_cpu is None:
        request_cpu = max(DEFAULT_CPU, limit_cpu or 0)
    if request_memory is None:
        request_memory = max(DEFAULT_MEMORY, limit_memory or 0)
    _check_request_within_limit(path, "cpu", request_cpu, limit_cpu, DEFAULT_CPU)
    _check_request_within_limit(path, "memory", request_memory, limit_memory, DEFAULT_MEMORY)
    return Container(
        name=data["name"],
        image=data["image"],
        command=_strings(data.get("command")),
        args=_strings(data.get("args")),
        env=_env(data.get("env") or {}, path),
        mounts=tuple(_mounts(data, path)),
        request_cpu=request_cpu,
        request_memory=request_memory,
        limit_cpu=limit_cpu,
        limit_memory=limit_memory,
        gpus=gpus,
        token_path=_token_path(data, path),
        raw=data,
    )


def _check_request_within_limit(
    path: str, what: str, request: float, limit: float | None, default: float
) -> None:
    # The default request may exceed a small limit; only what the user wrote is judged.
    if limit is not None and request > max(limit, default):
        raise InvalidSpecError(f"{what} request exceeds its limit for '{path}.resources'.")


def _gpus(requests: dict[str, Any], limits: dict[str, Any], path: str) -> int:
    key = "nvidia.com/gpu"
    asked, limit = (
        _optional(requests, key, quantities.parse_gpu),
        _optional(limits, key, quantities.parse_gpu),
    )
    if asked != limit:
        raise InvalidSpecError(
            f"'{key}' must have the same value in requests and limits for '{path}.resources'."
        )
    return asked or 0


def _optional(data: dict[str, Any], key: str, parse: Any) -> Any:
    return None if data.get(key) is None else parse(data[key])


def _strings(items: list[Any] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(scalar_text(item) for item in items)


def scalar_text(value: object) -> str:
    """Return a YAML scalar as the string a container sees."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _env(data: dict[str, Any], path: str) -> dict[str, str]:
    for key, value in data.items():
        if not ENV_NAME.match(key):
            raise InvalidSpecError(f"invalid environment variable name '{key}' for '{path}.env'.")
        if isinstance(value, (dict, list)):
            raise InvalidSpecError(f"'{path}.env.{key}' must be a string or a number.")
        if "\x00" in scalar_text(value):
            raise InvalidSpecError(f"'{path}.env.{key}' holds a NUL character.")
    return {key: scalar_text(value) for key, value in data.items()}


def _mounts(data: dict[str, Any], path: str) -> list[VolumeMount]:
    mounts = []
    for index, item in enumerate(data.get("volumeMounts") or []):
        place = f"{path}.volumeMounts[{index}]"
        mounts.append(VolumeMount(item["name"], _absolute(item["mountPath"], place)))
    _check_unique(f"{path}.volumeMounts", [mount.mount_path for mount in mounts])
    return mounts


def _token_path(data: dict[str, Any], path: str) -> str | None:
    if data.get("mountSessionToken") is False:
        return None
    config = data.get("sessionTokenConfig") or {}
    permission = config.get("permission")
    if permission is not None and not re.fullmatch(r"0[0-7]{3}", str(permission)):
        raise InvalidSpecError(f"invalid permission for '{path}.sessionTokenConfig'.")
    return _absolute(config.get("path") or TOKEN_PATH, f"{path}.sessionTokenConfig")


def _absolute(text: str, path: str) -> str:
    pure = PurePosixPath(text)
    if not text.startswith("/") or ".." in pure.parts or "\x00" in text or len(pure.parts) < 2:
        raise InvalidSpecError(f"'{text}' is not a valid absolute path for '{path}'.")
    return "/" + "/".join(pure.parts[1:])


def _volume(data: dict[str, Any], path: str) -> Volume:
    _check_name(data["name"], path)
    source = data["source"]
    if source.startswith("@"):
        raise InvalidSpecError(V1_STAGE_MOUNT)
    if source not in ("local", "stage", "memory", "block"):
        raise InvalidSpecError(f"invalid source '{source}' for '{path}'.")
    _check_volume_options(data, source, path)
    stage = None
    if source == "stage":
        stage = data["stageConfig"]["name"]
        if not STAGE_NAME.match(stage) or ".." in stage.partition("/")[2].split("/"):
            raise InvalidSpecError(f"invalid stage '{stage}' for '{path}.stageConfig'.")
        _check_metadata_cache(data["stageConfig"], path)
    for key in ("uid", "gid"):
        if data.get(key) is not None and not 0 <= data[key] < 2**32:
            raise InvalidSpecError(f"invalid {key} '{data[key]}' for '{path}'.")
    return Volume(
        name=data["name"],
        source=source,
        size_bytes=_volume_size(data, source, path),
        stage=stage.removeprefix("@") if stage else None,
        uid=data.get("uid"),
        gid=data.get("gid"),
        raw=data,
    )


def _check_volume_options(data: dict[str, Any], source: str, path: str) -> None:
    for key, owner in (("stageConfig", "stage"), ("blockConfig", "block")):
        if key in data and source != owner:
            raise InvalidSpecError(f"'{key}' needs source {owner} for '{path}'.")
    if source == "stage" and not data.get("stageConfig"):
        raise InvalidSpecError(f"missing option 'stageConfig' for '{path}'.")


def _check_metadata_cache(config: dict[str, Any], path: str) -> None:
    if config.get("metadataCache") is None:
        return
    try:
        quantities.parse_duration(config["metadataCache"])
    except quantities.QuantityError as error:
        raise InvalidSpecError(f"{error} for '{path}.stageConfig'.") from None


def _volume_size(data: dict[str, Any], source: str, path: str) -> int | None:
    if data.get("size") is None:
        if source in ("memory", "block"):
            raise InvalidSpecError(f"missing option 'size' for '{path}'.")
        return None
    if source == "block" and not re.fullmatch(r"[1-9]\d*Gi", str(data["size"])):
        raise InvalidSpecError(f"the size of a block volume is whole Gi for '{path}'.")
    try:
        return quantities.parse_memory(data["size"])
    except quantities.QuantityError as error:
        raise InvalidSpecError(f"{error} for '{path}'.") from None


def _check_endpoints(spec: dict[str, Any]) -> list[str]:
    endpoints = _one_of(spec, "endpoints", "endpoint")
    _check_count("endpoints", len(endpoints), MAX_ENDPOINTS)
    for index, item in enumerate(endpoints):
        path = f"endpoints[{index}]"
        _check_name(item["name"], path)
        if (item.get("port") is None) == (item.get("portRange") is None):
            raise InvalidSpecError(f"one of 'port' and 'portRange' is needed for '{path}'.")
        if item.get("port") is not None and not 1 <= item["port"] <= 65535:
            raise InvalidSpecError(f"invalid port {item['port']} for '{path}'.")
        if item.get("protocol", "HTTP").upper() not in ("TCP", "HTTP"):
            raise InvalidSpecError(f"invalid protocol '{item['protocol']}' for '{path}'.")
        if item.get("portRange") is not None and item.get("public"):
            raise InvalidSpecError(f"a port range cannot be public for '{path}'.")
    names = [item["name"] for item in endpoints]
    _check_unique("endpoints", names)
    return names


def _check_service_roles(data: dict[str, Any], endpoints: list[str]) -> None:
    for index, role in enumerate(data.get("serviceRoles") or []):
        if not ROLE_NAME.match(role["name"]):
            raise InvalidSpecError(f"invalid name '{role['name']}' for 'serviceRoles[{index}]'.")
        for endpoint in role.get("endpoints") or []:
            if endpoint not in endpoints:
                raise InvalidSpecError(
                    f"unknown endpoint '{endpoint}' for 'serviceRoles[{index}]'."
                )


def _check_mounts(containers: list[Container], volumes: dict[str, Volume]) -> None:
    for index, container in enumerate(containers):
        for mount in container.mounts:
            if mount.name not in volumes:
                raise InvalidSpecError(
                    f"volume '{mount.name}' is not defined for 'containers[{index}].volumeMounts'."
                )


def _check_node(
    containers: list[Container], volumes: list[Volume], family: InstanceFamily
) -> list[str]:
    gpus = sum(container.gpus for container in containers)
    if gpus > family.gpu_count:
        raise InvalidSpecError(
            f"Unschedulable due to insufficient resources: {gpus} GPUs asked for, "
            f"instance family {family.name} has {family.gpu_count}."
        )
    memory = sum(container.request_memory for container in containers)
    if memory > family.memory_bytes:
        raise InvalidSpecError(
            f"Unschedulable due to insufficient memory resources: "
            f"{quantities.format_memory(memory)} asked for, instance family {family.name} "
            f"has {family.memory_gib}Gi."
        )
    cpu = sum(container.request_cpu for container in containers)
    if cpu > family.vcpu:
        raise InvalidSpecError(
            f"Unschedulable due to insufficient cpu resources: {quantities.format_cpu(cpu)} "
            f"asked for, instance family {family.name} has {family.vcpu}."
        )
    return [
        f"Memory volume '{volume.name}' of {quantities.format_memory(volume.size_bytes or 0)} is larger "
        f"than the {family.memory_gib}Gi of instance family {family.name}."
        for volume in volumes
        if volume.source == "memory" and (volume.size_bytes or 0) > family.memory_bytes
    ]


def _log_level(spec: dict[str, Any]) -> str:
    level = ((spec.get("logExporters") or {}).get("eventTableConfig") or {}).get("logLevel", "INFO")
    if str(level).upper() not in ("INFO", "ERROR", "NONE"):
        raise InvalidSpecError(f"invalid logLevel '{level}' for 'logExporters.eventTableConfig'.")
    return str(level).upper()


def _metric_groups(spec: dict[str, Any]) -> frozenset[str]:
    config = (spec.get("platformMonitor") or {}).get("metricConfig") or {}
    groups = [str(group) for group in config.get("groups") or ()]
    for group in groups:
        if group not in METRIC_GROUPS:
            raise InvalidSpecError(f"invalid group '{group}' for 'platformMonitor.metricConfig'.")
    return frozenset(groups)


def _check_name(name: str, path: str) -> None:
    if not NAME.match(name):
        raise InvalidSpecError(f"invalid name '{name}' for '{path}'.")


def _check_unique(path: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidSpecError(f"duplicate '{name}' for '{path}'.")


def _check_count(path: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidSpecError(f"at most {limit} {path} are allowed, {count} given.")
