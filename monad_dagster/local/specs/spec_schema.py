"""The shape of a service specification: which keys exist, and of what type.

Follows the page "Service specification reference". Unknown keys are refused with
Snowflake's text; the other texts are approximate, because they are not documented.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from monad_dagster.local.specs.spec_text import InvalidSpecError


@dataclass(frozen=True)
class Shape:
    """One value of the specification.

    Attributes:
        kind: `map`, `list`, `text`, `scalar`, `int`, `bool`, `free` (any mapping) or `any`.
        keys: The known keys of a map.
        required: Keys of a map that must be present.
        item: The shape of a list's items.
        item_or_text: The value may also be a plain string.
    """

    kind: str
    keys: dict[str, "Shape"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    item: "Shape | None" = None
    item_or_text: bool = False


TEXT, SCALAR, INT, BOOL = Shape("text"), Shape("scalar"), Shape("int"), Shape("bool")
FREE = Shape("free")


def _map(required: tuple[str, ...] = (), /, **keys: Shape) -> Shape:
    return Shape("map", keys, required)


def _list(item: Shape) -> Shape:
    return Shape("list", item=item)


_QUANTITIES = Shape("map", {"cpu": SCALAR, "memory": SCALAR, "nvidia.com/gpu": SCALAR})
_RESOURCES = _map(requests=_QUANTITIES, limits=_QUANTITIES)
_PROBE = _map(("port",), port=INT, path=TEXT, periodSeconds=INT, failureThreshold=INT)
_SECRET = _map(
    ("snowflakeSecret",),
    snowflakeSecret=Shape("map", {"objectName": TEXT, "objectReference": TEXT}, item_or_text=True),
    secretKeyRef=TEXT,
    envVarName=TEXT,
    directoryPath=TEXT,
)
_CONTAINER = _map(
    ("name", "image"),
    name=TEXT,
    image=TEXT,
    command=_list(SCALAR),
    args=_list(SCALAR),
    env=FREE,
    readinessProbe=_PROBE,
    livenessProbe=_PROBE,
    volumeMounts=_list(_map(("name", "mountPath"), name=TEXT, mountPath=TEXT)),
    resources=_RESOURCES,
    mountSessionToken=BOOL,
    sessionTokenConfig=_map(path=TEXT, permission=SCALAR, mountConnectionConfig=BOOL),
    secrets=_list(_SECRET),
)
_ENDPOINT = _map(
    ("name",), name=TEXT, port=INT, portRange=TEXT, protocol=TEXT, public=BOOL, corsSettings=FREE
)
_VOLUME = _map(
    ("name", "source"),
    name=TEXT,
    source=TEXT,
    size=SCALAR,
    uid=INT,
    gid=INT,
    stageConfig=_map(
        ("name",), name=TEXT, metadataCache=TEXT, resources=_RESOURCES, enableSymlink=BOOL
    ),
    blockConfig=_map(
        initialContents=FREE,
        iops=INT,
        throughput=INT,
        encryption=TEXT,
        snapshotOnDelete=BOOL,
        snapshotDeleteAfter=TEXT,
    ),
)
_CONTAINERS, _ENDPOINTS = _list(_CONTAINER), _list(_ENDPOINT)
SPEC = _map(
    containers=_CONTAINERS,
    container=_CONTAINERS,
    endpoints=_ENDPOINTS,
    endpoint=_ENDPOINTS,
    volumes=_list(_VOLUME),
    volume=_list(_VOLUME),
    logExporters=_map(eventTableConfig=_map(logLevel=TEXT)),
    platformMonitor=_map(metricConfig=_map(groups=_list(TEXT))),
    resourceManagement=_map(autoScalingPolicies=FREE),
)
ROOT = _map(
    ("spec",),
    spec=SPEC,
    capabilities=_map(securityContext=_map(executeAsCaller=BOOL, enableCustomCredentials=BOOL)),
    serviceRoles=_list(_map(("name",), name=TEXT, endpoints=_list(TEXT))),
)


def check_shape(value: object, shape: Shape, path: str) -> None:
    """Refuse a value that does not have the documented keys and types.

    Args:
        value: The parsed value.
        shape: What it must look like.
        path: Its place, as Snowflake names it (`spec`, `endpoints[0]`).
    """
    if shape.item_or_text and isinstance(value, str):
        return
    if not _TYPE_CHECKS[shape.kind](value):
        raise InvalidSpecError(f"'{path}' must be {_TYPE_NAMES[shape.kind]}.")
    if shape.kind == "map" and isinstance(value, dict):
        _check_map(value, shape, path)
    elif shape.kind == "list" and isinstance(value, list) and shape.item is not None:
        for index, item in enumerate(value):
            check_shape(item, shape.item, f"{path}[{index}]")


def _check_map(value: dict[str, Any], shape: Shape, path: str) -> None:
    for key in value:
        if key not in shape.keys:
            raise InvalidSpecError(f"unknown option '{key}' for '{path}'.")
    for key in shape.required:
        if value.get(key) is None:
            raise InvalidSpecError(f"missing option '{key}' for '{path}'.")
    for key, item in value.items():
        check_shape(item, shape.keys[key], _child(path, key))


def _child(path: str, key: str) -> str:
    return key if path in ("spec", "root") else f"{path}.{key}"


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float, bool))


def _is_free(value: object) -> bool:
    return isinstance(value, dict)


_TYPE_CHECKS: dict[str, Callable[[object], bool]] = {
    "map": _is_free,
    "free": _is_free,
    "list": lambda value: isinstance(value, list),
    "text": lambda value: isinstance(value, str),
    "scalar": _is_scalar,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
}
_TYPE_NAMES = {
    "map": "a mapping",
    "free": "a mapping",
    "list": "a list",
    "text": "a string",
    "scalar": "a string or a number",
    "int": "a whole number",
    "bool": "true or false",
}
