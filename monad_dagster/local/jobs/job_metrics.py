"""Platform metrics of containers: what they use, what they may use, and their state.

A specification asks for them by group (`platformMonitor.metricConfig.groups`); METRIC_LEVEL NONE on
the schema, its database or the account keeps them out [I]. The groups `network` and `storage` are
accepted and empty: instances of the process runner share the host's network and disk. Snowflake
does not document how often it measures; here it is every `interval_seconds` of the account's
clock, and once when a container starts and ends.
"""

import threading
from typing import TYPE_CHECKING, Any

from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.event_store import EventRow
from monad_dagster.local.jobs.job_events import SCOPE, resource_attributes
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.runners.base import ContainerUsage, Measured, RunningContainer
from monad_dagster.local.specs.spec import ServiceSpec

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

INTERVAL_SECONDS = 10.0
_Key = tuple[str, int, str]
_PENDING_REASONS = {
    job_states.PULL_FAILED: "FailedToPullImage",
    job_states.START_FAILED: "FailingToStartContainer",
    job_states.PROVISIONING: "Initializing",
    job_states.UNSCHEDULABLE: "Initializing",
}


class PlatformMetrics:
    """Measures containers and writes METRIC rows of the event table."""

    def __init__(self, account: "Account", interval_seconds: float = INTERVAL_SECONDS) -> None:
        self.account = account
        self.interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._last: dict[_Key, tuple[str, float]] = {}
        self._usage: dict[_Key, ContainerUsage] = {}

    def is_due(
        self, job: Job, instance: InstanceState, container: ContainerState, spec: ServiceSpec
    ) -> bool:
        """Tell whether a container is to be measured now, and take note of it."""
        if not spec.metric_groups or self._is_off(job):
            return False
        key, now = _key(job, instance, container), self.account.clock().timestamp()
        status, at = self._last.get(key, ("", 0.0))
        ended = container.status in job_states.ENDED_CONTAINERS
        if status == container.status and (ended or now - at < self.interval_seconds):
            return False
        self._last[key] = (container.status, now)
        return True

    def collect(
        self,
        job: Job,
        instance: InstanceState,
        container: ContainerState,
        spec: ServiceSpec,
        running: RunningContainer | None,
    ) -> None:
        """Measure one container; slow runners do it outside of the controller's lock."""
        found: list[dict[str, Any]] = []
        if "system" in spec.metric_groups and container.status == "READY":
            usage = running.usage() if isinstance(running, Measured) else None
            found += self._system(_key(job, instance, container), container, usage)
        if "system_limits" in spec.metric_groups and container.status == "READY":
            found += _limits(container, spec)
        if "status" in spec.metric_groups:
            found += _status(container)
        now = int(self.account.clock().timestamp() * 1e6) * 1000
        resource = resource_attributes(self.account, job, instance, container.name)
        self.account.extensions["events"].add(
            EventRow(
                now, job.id, "METRIC", resource, item["value"], instance.index, container.name,
                SCOPE, _record(item), item.get("attributes", {}),
            )
            for item in found
        )  # fmt: skip

    def forget(self, job: Job, instance: InstanceState, container: ContainerState) -> None:
        """Drop what is kept between measurements of an ended container."""
        with self._lock:
            self._usage.pop(_key(job, instance, container), None)

    def _is_off(self, job: Job) -> bool:
        scopes = [f"SCHEMA:{job.database}.{job.schema}", f"DATABASE:{job.database}"]
        return self.account.parameter("METRIC_LEVEL", scopes) == "NONE"

    def _system(
        self, key: _Key, container: ContainerState, usage: ContainerUsage | None
    ) -> list[dict[str, Any]]:
        if usage is None:
            return []
        with self._lock:
            before = self._usage.get(key)
            self._usage[key] = usage
        since = before.measured_at if before else container.started_at or usage.measured_at
        used = usage.cpu_seconds - (before.cpu_seconds if before else 0.0)
        cpus = used / (usage.measured_at - since) if usage.measured_at > since else 0.0
        found = [
            _metric("container.cpu.usage", "cpu", round(max(0.0, cpus), 4)),
            _metric("container.memory.usage", "bytes", usage.memory_bytes),
        ]
        if usage.gpu_utilization is not None:
            found.append(_metric("container.gpu.utilization", "ratio", usage.gpu_utilization))
        if usage.gpu_memory_bytes is not None:
            found.append(_metric("container.gpu.memory.usage", "bytes", usage.gpu_memory_bytes))
        return found


def _limits(state: ContainerState, spec: ServiceSpec) -> list[dict[str, Any]]:
    container = next(c for c in spec.containers if c.name == state.name)
    values = [
        ("container.cpu.limit", "cpu", container.limit_cpu),
        ("container.cpu.requested", "cpu", container.request_cpu),
        ("container.memory.limit", "bytes", container.limit_memory),
        ("container.memory.requested", "bytes", container.request_memory),
        ("container.gpu.limit", "gpu", container.gpus or None),
        ("container.gpu.requested", "gpu", container.gpus or None),
    ]
    return [_metric(name, unit, value) for name, unit, value in values if value is not None]


def _status(container: ContainerState) -> list[dict[str, Any]]:
    ended = container.status in job_states.ENDED_CONTAINERS
    states = {
        "pending": container.status == "PENDING",
        "running": container.status == "READY",
        "finished": ended,
    }
    found = [_metric(f"container.state.{name}", "", int(is_so)) for name, is_so in states.items()]
    found.append(_metric("container.restarts", "", 0))  # job services are never restarted
    if container.started_at is not None:
        found.append(_metric("container.state.started", "s", int(container.started_at)))
    if container.status == "PENDING":
        reason = next(
            (why for text, why in _PENDING_REASONS.items() if container.message.startswith(text)),
            "Creating",
        )
        found.append(_metric("container.state.pending.reason", "", 1, reason=reason))
    if ended:
        name = "container.state.last.finished"
        found.append(_metric(f"{name}.reason", "", 1, reason=_finished_reason(container)))
        if container.exit_code is not None:
            found.append(_metric(f"{name}.exitcode", "", container.exit_code))
    return found


def _finished_reason(container: ContainerState) -> str:
    if container.status == "DONE":
        return "Done"
    if container.message == job_states.OUT_OF_MEMORY:
        return "FailedWithOOM"
    never = container.message.startswith((job_states.START_FAILED, job_states.PULL_FAILED))
    return "FailedToStart" if never else "Failed"


def _metric(name: str, unit: str, value: float, **attributes: str) -> dict[str, Any]:
    return {"name": name, "unit": unit, "value": value, "attributes": attributes}


def _record(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": {"name": item["name"], "unit": item["unit"]},
        "metric_type": "gauge",
        "value_type": "INT" if isinstance(item["value"], int) else "DOUBLE",
    }


def _key(job: Job, instance: InstanceState, container: ContainerState) -> _Key:
    return job.id, instance.index, container.name
