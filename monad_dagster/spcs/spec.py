"""The service specification as typed, immutable values, and the builder for our job services.

A specification is built from settings, checked against the node it will run on (see
`spec_checks`) and written as a mapping, as YAML, or as a hash that identifies it. Only what a job
service can use is modelled; the rest of the documented keys pass through unchanged.
Follows Snowflake's page "Service specification reference".
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from monad_dagster.spcs.instance_families import InstanceFamily

GPU_RESOURCE = "nvidia.com/gpu"
MAIN_CONTAINER = "main"
STAGE_VOLUME = "monad-stage"
SHARED_MEMORY_VOLUME = "dev-shm"
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - the path the specification has to name
# snowflake-ml sizes /dev/shm so; PyTorch's data loader workers exchange batches through it.
SHARED_MEMORY_FRACTION = 0.3
# Allocatable memory is a little below the documented figure of the node.
ALLOCATABLE_FRACTION = 0.9
# Variables that differ from launch to launch and say nothing about what runs.
BOOTSTRAP_VARIABLES = frozenset(
    {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES", "MONAD_RUN_DIRECTORY"}
)

# Names whose values are neither shown nor hashed.
SECRET_NAME = re.compile(
    r"PASSWORD|SECRET|TOKEN|CREDENTIAL|(PRIVATE|API|ACCESS)_?KEY", re.IGNORECASE
)
REDACTED = "***"


@dataclass(frozen=True)
class Resources:
    """What a container asks for; GPUs are the same in requests and limits, as they must be.

    Attributes:
        gpus: Whole GPUs.
        memory: Requested memory with a unit, such as 24Gi.
        cpu: Requested CPUs, fractions allowed.
        memory_limit: Memory limit; None is what the node has.
        cpu_limit: CPU limit; None is what the node has.
    """

    gpus: int = 0
    memory: str | None = None
    cpu: float | None = None
    memory_limit: str | None = None
    cpu_limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Write requests and limits, leaving out what is not asked for."""
        requests = _present(cpu=self.cpu, memory=self.memory)
        limits = _present(cpu=self.cpu_limit, memory=self.memory_limit)
        if self.gpus:
            requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = self.gpus
        return _present(requests=requests or None, limits=limits or None)


@dataclass(frozen=True)
class VolumeMount:
    """Where a volume appears in a container."""

    name: str
    mount_path: str

    def to_dict(self) -> dict[str, Any]:
        """Write the mount."""
        return {"name": self.name, "mountPath": self.mount_path}


@dataclass(frozen=True)
class StageVolume:
    """A stage mounted as a directory (version 2: streamed, sequential writes only).

    Attributes:
        name: The volume's name.
        stage: `@db.schema.stage`, with a path if only a part is mounted.
        uid: Owner of the files in the container.
        gid: Group of the files in the container.
        resources: Memory and CPU of the mount's sidecar; None keeps Snowflake's 1 Gi limit.
    """

    name: str
    stage: str
    uid: int | None = None
    gid: int | None = None
    resources: Resources | None = None

    def to_dict(self) -> dict[str, Any]:
        """Write the volume."""
        config = _present(
            name=self.stage, resources=self.resources.to_dict() if self.resources else None
        )
        base = {"name": self.name, "source": "stage", "stageConfig": config}
        return base | _present(uid=self.uid, gid=self.gid)


@dataclass(frozen=True)
class MemoryVolume:
    """A volume in the node's memory."""

    name: str
    size: str

    def to_dict(self) -> dict[str, Any]:
        """Write the volume."""
        return {"name": self.name, "source": "memory", "size": self.size}


@dataclass(frozen=True)
class LocalVolume:
    """Scratch space on the node's disk."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """Write the volume."""
        return {"name": self.name, "source": "local"}


@dataclass(frozen=True)
class OtherVolume:
    """A volume kind that passes through unchanged, such as block storage."""

    name: str
    fields: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Write the volume."""
        return {"name": self.name, **self.fields}


Volume = StageVolume | MemoryVolume | LocalVolume | OtherVolume


@dataclass(frozen=True)
class Container:
    """One container of a job service.

    Attributes:
        name: The container's name.
        image: Image path with a tag.
        command: Replaces the image's entry point.
        args: Replaces the image's command.
        env: Environment variables, values as text.
        resources: What the container asks for.
        mounts: Volumes it sees.
        extra: Documented keys that pass through, such as secrets.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    mounts: tuple[VolumeMount, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Write the container."""
        return _present(
            name=self.name,
            image=self.image,
            command=list(self.command) or None,
            args=list(self.args) or None,
            env=dict(self.env) or None,
            resources=self.resources.to_dict() or None,
            volumeMounts=[mount.to_dict() for mount in self.mounts] or None,
            **self.extra,
        )


@dataclass(frozen=True)
class JobSpec:
    """A whole specification.

    Attributes:
        containers: The containers; the first is the one whose exit code counts.
        volumes: The volumes they mount.
        extra: Further keys below `spec`, such as `logExporters`.
        siblings: Keys beside `spec`, such as `capabilities`.
    """

    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    siblings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Container:
        """The container that does the work."""
        return self.containers[0]

    def with_env(self, variables: Mapping[str, str]) -> "JobSpec":
        """Return the specification with *variables* added to every container."""
        containers = tuple(replace(c, env={**c.env, **variables}) for c in self.containers)
        return replace(self, containers=containers)

    def with_args(self, args: tuple[str, ...]) -> "JobSpec":
        """Return the specification with the main container's arguments replaced."""
        main = replace(self.main, args=args)
        return replace(self, containers=(main, *self.containers[1:]))

    def to_dict(self) -> dict[str, Any]:
        """Write the specification as Snowflake reads it."""
        body = _present(
            containers=[container.to_dict() for container in self.containers],
            volumes=[volume.to_dict() for volume in self.volumes] or None,
            **self.extra,
        )
        return {"spec": body, **self.siblings}

    def to_yaml(self, *, redacted: bool = False) -> str:
        """Write the specification as YAML, keys in the documented order.

        Args:
            redacted: Leave out launch variables and secret values, for showing.
        """
        document = self.redacted() if redacted else self.to_dict()
        return yaml.safe_dump(document, sort_keys=False, width=100)

    def redacted(self) -> dict[str, Any]:
        """Write the specification without launch variables and without secret values."""
        document = self.to_dict()
        for container in document["spec"]["containers"]:
            env = container.get("env", {})
            kept = {
                key: REDACTED if SECRET_NAME.search(key) else value
                for key, value in env.items()
                if key not in BOOTSTRAP_VARIABLES
            }
            container.pop("env", None)
            if kept:
                container["env"] = kept
        return document

    @property
    def sha256(self) -> str:
        """Identify what the specification runs, whatever the order of its keys."""
        text = json.dumps(self.redacted(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class SpecSettings:
    """What all our job services share; the rest comes with each launch.

    Attributes:
        stage: The stage to mount, as `@db.schema.stage`.
        mount_path: Where it appears.
        gpus: GPUs of the main container; None takes all of the family.
        memory: Memory of the main container; None derives it from the family.
        cpu: CPUs of the main container; None leaves the default.
        shared_memory: Size of /dev/shm; None derives it from the container's memory.
        stage_memory: Memory limit of the stage mount; None keeps Snowflake's default.
        uid: Owner of the mounted files.
        gid: Group of the mounted files.
    """

    stage: str = "@monad_db.data_schema.monad_stage"
    mount_path: str = "/app/monad_stage"
    gpus: int | None = None
    memory: str | None = None
    cpu: float | None = None
    shared_memory: str | None = None
    stage_memory: str | None = "2Gi"
    uid: int | None = 1000
    gid: int | None = 1000


# The settings of the documented page: no memory request, a fixed /dev/shm, the default sidecar.
DOCUMENTED_SETTINGS = SpecSettings(gpus=1, shared_memory="48Gi", stage_memory=None)
DOCUMENTED_ENV: Mapping[str, str] = {
    "SNOWFLAKE_WAREHOUSE": "monad_warehouse",
    "SNOWFLAKE_DATABASE": "HM_KAGGLE",
    "SNOWFLAKE_SCHEMA": "PUBLIC",
}


def container_memory_gib(family: InstanceFamily, settings: SpecSettings) -> int:
    """Derive the main container's memory: what the node can allocate, less the stage mount."""
    allocatable = math.floor(family.memory_gib * ALLOCATABLE_FRACTION)
    sidecar = math.ceil(parse_gib(settings.stage_memory or "1Gi"))
    return max(1, allocatable - sidecar)


def parse_gib(quantity: str) -> float:
    """Read a memory quantity with its unit as GiB."""
    units = {"Mi": 2**20, "Gi": 2**30, "M": 10**6, "G": 10**9}
    for unit, factor in units.items():
        number = quantity.removesuffix(unit)
        if number != quantity:
            return float(number) * factor / 2**30
    raise ValueError(f"{quantity!r} has no unit of M, Mi, G or Gi")


def build_spec(
    *,
    image: str,
    command: tuple[str, ...] = (),
    args: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    settings: SpecSettings | None = None,
    family: InstanceFamily | None = None,
) -> JobSpec:
    """Build the specification of one job service.

    Args:
        image: Image path with its tag, as the specification names it.
        command: Entry point of the main container.
        args: Arguments of the main container.
        env: Environment of the main container.
        settings: What all job services share.
        family: The node it will run on; needed for sizes that are derived.
    """
    settings = settings or SpecSettings()
    memory = settings.memory
    if memory is None and family is not None:
        memory = f"{container_memory_gib(family, settings)}Gi"
    gpus = settings.gpus
    if gpus is None:
        gpus = family.gpu_count if family else 0
    mounts = [VolumeMount(STAGE_VOLUME, settings.mount_path)]
    volumes: list[Volume] = [_stage_volume(settings)]
    shared_memory = settings.shared_memory or _derived_shared_memory(memory)
    if shared_memory is not None:
        mounts.append(VolumeMount(SHARED_MEMORY_VOLUME, SHARED_MEMORY_PATH))
        volumes.append(MemoryVolume(SHARED_MEMORY_VOLUME, shared_memory))
    main = Container(
        name=MAIN_CONTAINER,
        image=image,
        command=command,
        args=args,
        env=dict(env or {}),
        resources=Resources(gpus, memory, settings.cpu, memory, settings.cpu),
        mounts=tuple(mounts),
    )
    return JobSpec(containers=(main,), volumes=tuple(volumes))


def _stage_volume(settings: SpecSettings) -> StageVolume:
    resources = None
    if settings.stage_memory is not None:
        resources = Resources(
            memory="0.5Gi", memory_limit=settings.stage_memory, cpu=0.5, cpu_limit=1
        )
    return StageVolume(STAGE_VOLUME, settings.stage, settings.uid, settings.gid, resources)


def _derived_shared_memory(memory: str | None) -> str | None:
    if memory is None:
        return None
    return f"{max(1, math.floor(parse_gib(memory) * SHARED_MEMORY_FRACTION))}Gi"


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
