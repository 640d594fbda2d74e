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


NOTHING = Need(0, 0, 0)


def need_of(spec: ServiceSpec) -> Need:
    """Return what one instance of a specification requests."""
    total = NOTHING
    for container in spec.containers:
        total += Need(container.request_cpu, container.request_memory, container.gpus)
    return total


class Nodes:
    """What is taken of each node of a pool.

    Args:
        occupied: (node, need) of every instance that holds a node.
        family: The shape of each node.
    """

    def __init__(self, occupied: Iterable[tuple[int | None, Need]], family: InstanceFamily) -> None:
        self._family = family
        self._taken: dict[int, Need] = {}
        for node, need in occupied:
            if node is not None:
                self._taken[node] = self._taken.get(node, NOTHING) + need

    @property
    def held(self) -> int:
        """How many nodes there must be for every instance to keep its own."""
        return max(self._taken, default=-1) + 1

    def place(self, need: Need, num_nodes: int) -> int | None:
        """Take room on the first of so many nodes that has it; return the node, or None."""
        for node in range(num_nodes):
            total = self._taken.get(node, NOTHING) + need
            if total.fits(self._family):
                self._taken[node] = total
                return node
        return None

    def wanted(self, waiting: Iterable[Need], max_nodes: int) -> tuple[int, int]:
        """Return how many nodes hold the waiting instances too, and how many find no room.

        Takes the room; only nodes below *max_nodes* are considered.
        """
        without = sum(self.place(need, max_nodes) is None for need in waiting)
        return self.held, without
