"""The values of platform metrics: pure functions from what is known of a container.

Names, units and attributes follow the table "Available platform metrics". A state is measured while
it holds, never with the value 0. `container.state.last.finished.*` describe the run before a
restart; a job service's containers are never restarted, so they do not occur.
"""

from dataclasses import dataclass, field
from typing import Any

from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.job_model import ContainerState
from monad_dagster.local.runners.base import ContainerUsage, NetworkUsage
from monad_dagster.local.specs.spec import ServiceSpec, Volume
from monad_dagster.spcs.instance_families import InstanceFamily

_PENDING_REASONS = {
    job_states.PULL_FAILED: "FailedToPullImage",
    job_states.START_FAILED: "FailingToStartContainer",
    job_states.PROVISIONING: "Initializing",
    job_states.UNSCHEDULABLE: "Initializing",
}


@dataclass(frozen=True)
class Metric:
    """One measurement; `of_instance` ones carry no container name."""

    name: str
    unit: str
    value: float
    attributes: dict[str, str] = field(default_factory=dict)
    of_instance: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """Return the event table's RECORD."""
        return {
            "metric": {"name": self.name, "unit": self.unit},
            "metric_type": "gauge",
            "value_type": "INT" if isinstance(self.value, int) else "DOUBLE",
        }


def used(usage: ContainerUsage, before: ContainerUsage | None, since: float) -> list[Metric]:
    """Return the group `system`; processor use is the mean since *since*."""
    seconds = usage.cpu_seconds - (before.cpu_seconds if before else 0.0)
    cpus = seconds / (usage.measured_at - since) if usage.measured_at > since else 0.0
    found = [
        Metric("container.cpu.usage", "cpu", round(max(0.0, cpus), 4)),
        Metric("container.memory.usage", "bytes", usage.memory_bytes),
    ]
    if usage.gpu_utilization is not None:
        found.append(Metric("container.gpu.utilization", "ratio", usage.gpu_utilization))
    if usage.gpu_memory_bytes is not None:
        found.append(Metric("container.gpu.memory.usage", "bytes", usage.gpu_memory_bytes))
    return found


def limits(state: ContainerState, spec: ServiceSpec, family: InstanceFamily) -> list[Metric]:
    """Return the group `system_limits`; without a limit it is what the node has."""
    container = next(c for c in spec.containers if c.name == state.name)
    found = [
        Metric("container.cpu.limit", "cpu", container.limit_cpu or family.vcpu),
        Metric("container.cpu.requested", "cpu", container.request_cpu),
        Metric("container.memory.limit", "bytes", container.limit_memory or family.memory_bytes),
        Metric("container.memory.requested", "bytes", container.request_memory),
    ]
    if container.gpus:
        found += [
            Metric("container.gpu.limit", "gpu", container.gpus),
            Metric("container.gpu.requested", "gpu", container.gpus),
        ]
        capacity = (family.gpu_memory_gib or 0) * 2**30
        found += [
            Metric("container.gpu.memory.capacity", "bytes", capacity, {"gpu": str(index)})
            for index in range(container.gpus if capacity else 0)
        ]
    return found


def states(container: ContainerState) -> list[Metric]:
    """Return the group `status`."""
    found = [Metric("container.restarts", "restarts", 0)]  # job services are never restarted
    holds = {
        "pending": container.status == "PENDING",
        "running": container.status == "READY",
        "finished": container.status in job_states.ENDED_CONTAINERS,
        "started": container.started_at is not None,
    }
    found += [
        Metric(f"container.state.{name}", "boolean", 1) for name, is_so in holds.items() if is_so
    ]
    if container.status == "PENDING":
        reason = next(
            (why for text, why in _PENDING_REASONS.items() if container.message.startswith(text)),
            "Creating",
        )
        found.append(Metric("container.state.pending.reason", "boolean", 1, {"reason": reason}))
    return found


def network(usage: NetworkUsage) -> list[Metric]:
    """Return the group `network`: what an instance received and sent since it started."""
    values = [
        ("received.bytes", "bytes", usage.received_bytes),
        ("received.packets", "packets", usage.received_packets),
        ("transmitted.bytes", "byte", usage.transmitted_bytes),
        ("transmitted.packets", "packets", usage.transmitted_packets),
    ]
    return [
        Metric(f"network.egress.{name}", unit, value, of_instance=True)
        for name, unit, value in values
    ]


def volume(found: Volume, used_bytes: int, identifier: str, replica: int) -> list[Metric]:
    """Return the group `storage` of one block volume."""
    attributes = {
        "snow_volume_id": identifier,
        "snow_volume_name": found.name,
        "snow_volume_replica": str(replica),
        "volume_type": found.source,
    }
    return [
        Metric("volume.capacity", "bytes", found.size_bytes or 0, attributes, of_instance=True),
        Metric("volume.usage", "bytes", used_bytes, attributes, of_instance=True),
    ]
