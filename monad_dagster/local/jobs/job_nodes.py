"""Places service instances on a compute pool's nodes by what their containers request."""

from collections.abc import Iterable
from dataclasses import dataclass

from monad_dagster.local.specs.spec import ServiceSpec
from monad_dagster.spcs.instance_families import InstanceFamily


@dataclass(frozen=True)
class Need:
    """What an instance takes from a node."""

    cpu: float
    memory: int
    gpus: int

    def __add__(self, other: "Need") -> "Need":
        return Need(self.cpu + other.cpu, self.memory + other.memory, self.gpus + other.gpus)

    def fits(self, family: InstanceFamily) -> bool:
        """Tell whether one node has so much."""
        return (
            self.cpu <= family.vcpu
            and self.memory <= family.memory_bytes
            and self.gpus <= family.gpu_count
        )


def need_of(spec: ServiceSpec) -> Need:
    """Return what one instance of a specification requests."""
    total = Need(0, 0, 0)
    for container in spec.containers:
        total += Need(container.request_cpu, container.request_memory, container.gpus)
    return total


def free_node(
    spec: ServiceSpec,
    occupied: Iterable[tuple[int | None, ServiceSpec]],
    family: InstanceFamily,
    max_nodes: int,
) -> int | None:
    """Return the first node with room for one more instance, or None.

    Args:
        spec: The specification of the instance to place.
        occupied: (node, specification) of every instance that holds a node.
        family: The shape of each node.
        max_nodes: How many nodes the pool may have.
    """
    taken: dict[int, Need] = {}
    for node, other in occupied:
        if node is not None:
            taken[node] = taken.get(node, Need(0, 0, 0)) + need_of(other)
    need = need_of(spec)
    return next(
        (n for n in range(max_nodes) if (taken.get(n, Need(0, 0, 0)) + need).fits(family)), None
    )
