"""The normalised specification that DESCRIBE SERVICE shows, and its digest.

Begins with `---`, quotes every string, names the image's digest beside the image and fills in
the default resources. Compare parsed content or the digest, never this text with what was sent.
"""

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from monad_dagster.local.specs import quantities
from monad_dagster.local.specs.spec import Container, ServiceSpec, scalar_text
from monad_dagster.spcs.instance_families import InstanceFamily


def render_spec(spec: ServiceSpec, digests: dict[str, str], family: InstanceFamily | None) -> str:
    """Return the specification as normalised YAML.

    Args:
        spec: The validated specification.
        digests: Manifest digest by image name as written.
        family: The family whose node gives the unset limits.
    """
    data = copy.deepcopy(spec.data)
    body = data["spec"]
    for plural, singular in (
        ("containers", "container"),
        ("endpoints", "endpoint"),
        ("volumes", "volume"),
    ):
        if singular in body:
            body[plural] = body.pop(singular)
    body["containers"] = [_container(container, digests, family) for container in spec.containers]
    ordered = {"spec": {"containers": body.pop("containers"), **body}}
    ordered.update({key: value for key, value in data.items() if key != "spec"})
    return "---\n" + "".join(f"{line}\n" for line in _emit(ordered, 0))


def spec_digest(text: str) -> str:
    """Return the digest of a normalised specification, as SHOW SERVICES prints it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _container(
    container: Container, digests: dict[str, str], family: InstanceFamily | None
) -> dict[str, Any]:
    raw = container.raw
    result: dict[str, Any] = {"name": raw["name"], "image": raw["image"]}
    if container.image in digests:
        result["sha256"] = f"@{digests[container.image]}"
    known = ("name", "image", "resources")
    result.update({key: value for key, value in raw.items() if key not in known})
    if container.env:
        result["env"] = {key: str(value) for key, value in container.env.items()}
    for key, items in (("command", container.command), ("args", container.args)):
        if items is not None:
            result[key] = list(items)
    result["resources"] = _resources(container, family)
    return result


def _resources(container: Container, family: InstanceFamily | None) -> dict[str, Any]:
    memory = container.limit_memory or (family.memory_bytes if family else None)
    cpu = container.limit_cpu or (float(family.vcpu) if family else None)
    limits: dict[str, str] = {}
    if memory is not None:
        limits["memory"] = quantities.format_memory(memory)
    if cpu is not None:
        limits["cpu"] = quantities.format_cpu(cpu)
    requests = {
        "memory": quantities.format_memory(container.request_memory),
        "cpu": quantities.format_cpu(container.request_cpu),
    }
    if container.gpus:
        limits["nvidia.com/gpu"] = requests["nvidia.com/gpu"] = str(container.gpus)
    return {"limits": limits, "requests": requests}


def _emit(value: Any, indent: int) -> Iterator[str]:
    pad = "  " * indent
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _emit_pair(pad, key, item, indent)
    else:
        for item in value:
            if isinstance(item, (dict, list)) and item:
                lines = list(_emit(item, indent + 1))
                yield f"{pad}- {lines[0].lstrip()}"
                yield from lines[1:]
            else:
                yield f"{pad}- {_scalar(item)}"


def _emit_pair(pad: str, key: str, item: Any, indent: int) -> Iterator[str]:
    name = key if key.replace("_", "a").replace("-", "a").isalnum() else json.dumps(key)
    if isinstance(item, dict) and item:
        yield f"{pad}{name}:"
        yield from _emit(item, indent + 1)
    elif isinstance(item, list) and item:
        yield f"{pad}{name}:"
        yield from _emit(item, indent)
    else:
        yield f"{pad}{name}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else scalar_text(value)
    if isinstance(value, (int, float)):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
