"""The instance families of compute pools, read from `instance_families.yaml`.

Pure data: node shapes as Snowflake documents them. Credit rates are not here, because
Snowflake publishes them only in its consumption table; they are configuration.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("instance_families.yaml")


@dataclass(frozen=True)
class InstanceFamily:
    """One machine type of a compute pool.

    Attributes:
        name: The family's name, such as GPU_NV_S.
        vcpu: Virtual CPUs of a node.
        memory_gib: Nominal memory of a node.
        storage_gib: Local disk of a node, None where it is not documented.
        gpu: GPU model, None for a CPU family.
        gpu_count: GPUs of a node.
        gpu_memory_gib: Memory of one GPU.
        clouds: The clouds that offer this shape.
        default_node_limit: Nodes of the family an account gets without asking.
    """

    name: str
    vcpu: int
    memory_gib: int
    storage_gib: int | None = None
    gpu: str | None = None
    gpu_count: int = 0
    gpu_memory_gib: int = 0
    clouds: tuple[str, ...] = ()
    default_node_limit: int | None = None

    @property
    def memory_bytes(self) -> int:
        """Return the node's nominal memory in bytes."""
        return self.memory_gib * 2**30


def load_instance_families(cloud: str | None = None) -> dict[str, InstanceFamily]:
    """Return the families by name, all of them or those of one cloud.

    Without a cloud the first shape listed for a name wins.

    Args:
        cloud: `aws`, `azure` or `gcp`.
    """
    families: dict[str, InstanceFamily] = {}
    for family in _read_table():
        if cloud is None or cloud in family.clouds:
            families.setdefault(family.name, family)
    return families


@cache
def _read_table() -> tuple[InstanceFamily, ...]:
    rows: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["families"]
    return tuple(InstanceFamily(**{**row, "clouds": tuple(row["clouds"])}) for row in rows)
