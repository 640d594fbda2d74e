"""What is known to be wrong with a specification before it is sent.

Errors are what Snowflake refuses or what can never be scheduled; warnings are what it accepts and
what will hurt. Also reads a specification written by hand, strictly: a key that is not documented
is an error that names it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monad_dagster.errors import SpecError, problem
from monad_dagster.spcs.instance_families import InstanceFamily
from monad_dagster.spcs.spec import (
    GPU_RESOURCE,
    Container,
    JobSpec,
    LocalVolume,
    MemoryVolume,
    OtherVolume,
    Resources,
    StageVolume,
    Volume,
    VolumeMount,
    parse_gib,
)

NAME = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
MEMORY = re.compile(r"^\d+(\.\d+)?(M|Mi|G|Gi)$")
MAX_CONTAINERS = 20
MAX_VOLUMES = 20
CONTAINER_EXTRAS = frozenset(
    {
        "readinessProbe",
        "livenessProbe",
        "mountSessionToken",
        "sessionTokenConfig",
        "secrets",
    }
)
SPEC_EXTRAS = frozenset({"endpoints", "logExporters", "platformMonitor", "resourceManagement"})
SIBLINGS = frozenset({"capabilities", "serviceRoles"})


@dataclass
class Findings:
    """What a check found.

    Attributes:
        errors: Reasons not to send the specification.
        warnings: Reasons to look at it again.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_spec(spec: JobSpec, family: InstanceFamily | None = None) -> Findings:
    """Check *spec* by itself and, where given, against the node it will run on."""
    findings = Findings()
    _check_names(spec, findings)
    _check_mounts(spec, findings)
    for container in spec.containers:
        _check_quantities(container, findings)
    if family is not None:
        _check_against_node(spec, family, findings)
    return findings


def require_valid(spec: JobSpec, family: InstanceFamily | None = None) -> list[str]:
    """Return the warnings of *spec*.

    Raises:
        SpecError: The specification has errors.
    """
    findings = check_spec(spec, family)
    if findings.errors:
        raise SpecError(
            problem(
                "The specification is not valid",
                "; ".join(findings.errors),
                "Change the settings of the resource or of the asset; nothing was sent",
            )
        )
    return findings.warnings


def _check_names(spec: JobSpec, findings: Findings) -> None:
    if not 1 <= len(spec.containers) <= MAX_CONTAINERS:
        findings.errors.append(f"spec.containers holds {len(spec.containers)}, allowed are 1 to 20")
    if len(spec.volumes) > MAX_VOLUMES:
        findings.errors.append(f"spec.volumes holds {len(spec.volumes)}, allowed are at most 20")
    for place, names in (
        ("container", [c.name for c in spec.containers]),
        ("volume", [v.name for v in spec.volumes]),
    ):
        findings.errors += [f"{place} name {n!r} is not valid" for n in names if not NAME.match(n)]
        repeated = sorted({n for n in names if names.count(n) > 1})
        findings.errors += [f"{place} name {n!r} is used twice" for n in repeated]
    findings.errors += [
        f"container {c.name!r} has no image" for c in spec.containers if not c.image
    ]


def _check_mounts(spec: JobSpec, findings: Findings) -> None:
    known = {volume.name for volume in spec.volumes}
    mounted = set()
    for container in spec.containers:
        paths = [mount.mount_path for mount in container.mounts]
        for mount in container.mounts:
            mounted.add(mount.name)
            if mount.name not in known:
                findings.errors.append(f"volumeMount {mount.name!r} names no volume")
            if not mount.mount_path.startswith("/"):
                findings.errors.append(f"mountPath {mount.mount_path!r} is not absolute")
        repeated = sorted({p for p in paths if paths.count(p) > 1})
        findings.errors += [f"mountPath {path!r} is used twice" for path in repeated]
    for volume in spec.volumes:
        # Reported: the sidecar of a stage volume that nothing mounts crashes.
        if isinstance(volume, StageVolume):
            if volume.name not in mounted:
                findings.errors.append(f"stage volume {volume.name!r} is not mounted")
            if not volume.stage.startswith("@"):
                findings.errors.append(f"stage {volume.stage!r} does not start with @")


def _check_quantities(container: Container, findings: Findings) -> None:
    resources = container.resources
    for memory in (resources.memory, resources.memory_limit):
        if memory is not None and not MEMORY.match(memory):
            findings.errors.append(f"memory {memory!r} needs a unit of M, Mi, G or Gi")
    if resources.gpus < 0:
        findings.errors.append(f"{GPU_RESOURCE} is {resources.gpus}")


def _check_against_node(spec: JobSpec, family: InstanceFamily, findings: Findings) -> None:
    gpus = sum(container.resources.gpus for container in spec.containers)
    if gpus > family.gpu_count:
        findings.errors.append(
            f"{GPU_RESOURCE} is {gpus}, {family.name} has {family.gpu_count} on a node"
        )
    elif 0 < gpus < family.gpu_count:
        findings.warnings.append(
            f"{gpus} of the {family.gpu_count} GPUs of {family.name} are used; all are paid for"
        )
    elif family.gpu_count and not gpus:
        findings.warnings.append(f"no GPU is asked for on {family.name}, which is billed with GPUs")
    cpu = sum(container.resources.cpu or 0 for container in spec.containers)
    if cpu > family.vcpu:
        findings.errors.append(f"cpu is {cpu}, {family.name} has {family.vcpu} on a node")
    memory = sum(_gib(container.resources.memory) for container in spec.containers)
    if memory > family.memory_gib:
        findings.errors.append(
            f"memory requests are {memory:g} GiB, {family.name} has {family.memory_gib} on a node"
        )
    for volume in spec.volumes:
        if isinstance(volume, MemoryVolume) and _gib(volume.size) > family.memory_gib:
            findings.warnings.append(
                f"memory volume {volume.name!r} of {volume.size} is larger than a node of "
                f"{family.name} ({family.memory_gib} GiB); filling it ends the container"
            )


def instances_per_node(spec: JobSpec, family: InstanceFamily | None) -> int:
    """Return how many instances of *spec* one node can hold by what they request; at least one."""
    if family is None:
        return 1
    gpus = sum(container.resources.gpus for container in spec.containers)
    cpu = sum(container.resources.cpu or 0 for container in spec.containers)
    memory = sum(_gib(container.resources.memory) for container in spec.containers)
    ratios = [
        available / asked
        for available, asked in (
            (family.gpu_count, gpus),
            (family.vcpu, cpu),
            (family.memory_gib, memory),
        )
        if asked
    ]
    return max(1, int(min(ratios, default=1)))


def _gib(quantity: str | None) -> float:
    return parse_gib(quantity) if quantity and MEMORY.match(quantity) else 0.0


# --- reading ----------------------------------------------------------------------------------


def spec_from_mapping(document: Mapping[str, Any]) -> JobSpec:
    """Read a specification written as YAML or JSON.

    Raises:
        SpecError: A key is unknown or has the wrong shape.
    """
    _only(document, {"spec", *SIBLINGS}, "the document")
    body = _mapping(document.get("spec"), "spec")
    _only(body, {"containers", "container", "volumes", *SPEC_EXTRAS}, "spec")
    containers = _list(body.get("containers", body.get("container")), "spec.containers")
    volumes = _list(body.get("volumes", []), "spec.volumes")
    return JobSpec(
        containers=tuple(_container(item, f"containers[{i}]") for i, item in enumerate(containers)),
        volumes=tuple(_volume(item, f"volumes[{i}]") for i, item in enumerate(volumes)),
        extra={key: body[key] for key in SPEC_EXTRAS if key in body},
        siblings={key: document[key] for key in SIBLINGS if key in document},
    )


def _container(item: object, place: str) -> Container:
    body = _mapping(item, place)
    known = {"name", "image", "command", "args", "env", "resources", "volumeMounts"}
    _only(body, known | CONTAINER_EXTRAS, place)
    mounts = _list(body.get("volumeMounts", []), f"{place}.volumeMounts")
    return Container(
        name=str(body.get("name", "")),
        image=str(body.get("image", "")),
        command=tuple(str(part) for part in body.get("command", ())),
        args=tuple(str(part) for part in body.get("args", ())),
        env={str(key): str(value) for key, value in (body.get("env") or {}).items()},
        resources=_resources(body.get("resources") or {}, f"{place}.resources"),
        mounts=tuple(_mount(mount, place) for mount in mounts),
        extra={key: body[key] for key in CONTAINER_EXTRAS if key in body},
    )


def _mount(item: object, place: str) -> VolumeMount:
    body = _mapping(item, f"{place}.volumeMounts")
    _only(body, {"name", "mountPath"}, f"{place}.volumeMounts")
    return VolumeMount(str(body.get("name", "")), str(body.get("mountPath", "")))


def _resources(item: object, place: str) -> Resources:
    body = _mapping(item, place)
    _only(body, {"requests", "limits"}, place)
    requests, limits = body.get("requests") or {}, body.get("limits") or {}
    for half, name in ((requests, "requests"), (limits, "limits")):
        _only(half, {"cpu", "memory", GPU_RESOURCE}, f"{place}.{name}")
    if requests.get(GPU_RESOURCE, 0) != limits.get(GPU_RESOURCE, 0):
        raise _invalid(f"{GPU_RESOURCE} differs between requests and limits of {place}")
    return Resources(
        gpus=int(requests.get(GPU_RESOURCE, 0)),
        memory=requests.get("memory"),
        cpu=_cpu(requests.get("cpu")),
        memory_limit=limits.get("memory"),
        cpu_limit=_cpu(limits.get("cpu")),
    )


def _cpu(value: object) -> float | None:
    if value is None:
        return None
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _volume(item: object, place: str) -> Volume:
    body = _mapping(item, place)
    known = {"name", "source", "size", "uid", "gid", "stageConfig", "blockConfig"}
    _only(body, known, place)
    name, source = str(body.get("name", "")), str(body.get("source", ""))
    if source.startswith("@"):
        raise _invalid(f"{place}.source is a stage (version 1); write source: stage, stageConfig")
    if source == "memory":
        return MemoryVolume(name, str(body.get("size", "")))
    if source == "local":
        return LocalVolume(name)
    if source == "stage":
        config = _mapping(body.get("stageConfig"), f"{place}.stageConfig")
        if set(config) <= {"name", "resources"}:
            given = config.get("resources")
            resources = _resources(given, f"{place}.stageConfig") if given else None
            stage = str(config.get("name", ""))
            return StageVolume(name, stage, body.get("uid"), body.get("gid"), resources)
    return OtherVolume(name, {key: value for key, value in body.items() if key != "name"})


def _only(body: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise _invalid(f"unknown option {unknown[0]!r} for {place!r}")


def _mapping(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid(f"{place} is missing or not a mapping")
    return value


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _invalid(f"{place} is missing or not a list")
    return value


def _invalid(observed: str) -> SpecError:
    return SpecError(
        problem("The specification cannot be read", observed, "Correct the file; nothing was sent")
    )
