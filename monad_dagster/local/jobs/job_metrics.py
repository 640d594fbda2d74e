"""Platform metrics of containers: what they use, what they may use, and their state.

A specification asks for them by group (`platformMonitor.metricConfig.groups`); METRIC_LEVEL NONE on
the schema, its database or the account keeps them out [I]. The group `network` has rows where an
instance has a network of its own, `storage` for block volumes only, as on Snowflake; both describe
the instance, so their rows name no container. Snowflake does not document how often it measures;
here it is every `interval_seconds` of the account's clock, and once when a container starts and
ends.
"""

import os
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.jobs import job_states, metric_values
from monad_dagster.local.jobs.event_store import EventRow
from monad_dagster.local.jobs.job_events import SCOPE, resource_attributes
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.jobs.metric_values import Metric
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.runners.base import ContainerUsage, Measured, RunningContainer
from monad_dagster.local.specs.spec import ServiceSpec

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

INTERVAL_SECONDS = 10.0
_Key = tuple[str, int, str]


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
        found: list[Metric] = []
        if container.status == "READY":
            found += self._measured(job, instance, container, spec, running)
        if "system_limits" in spec.metric_groups and container.status == "READY":
            family = pools_of(self.account).families[job.family]
            found += metric_values.limits(container, spec, family)
        if "status" in spec.metric_groups:
            found += metric_values.states(container)
        now = int(self.account.clock().timestamp() * 1e6) * 1000
        self.account.extensions["events"].add(
            self._row(now, job, instance, None if metric.of_instance else container.name, metric)
            for metric in found
        )

    def forget(self, job: Job, instance: InstanceState, container: ContainerState) -> None:
        """Drop what is kept between measurements of an ended container."""
        with self._lock:
            self._usage.pop(_key(job, instance, container), None)

    def _row(
        self, now: int, job: Job, instance: InstanceState, container: str | None, metric: Metric
    ) -> EventRow:
        resource = resource_attributes(self.account, job, instance, container or "")
        return EventRow(
            now, job.id, "METRIC", resource, metric.value, instance.index, container, SCOPE,
            metric.record, metric.attributes,
        )  # fmt: skip

    def _is_off(self, job: Job) -> bool:
        scopes = [f"SCHEMA:{job.database}.{job.schema}", f"DATABASE:{job.database}"]
        return self.account.parameter("METRIC_LEVEL", scopes) == "NONE"

    def _measured(
        self,
        job: Job,
        instance: InstanceState,
        container: ContainerState,
        spec: ServiceSpec,
        running: RunningContainer | None,
    ) -> Iterable[Metric]:
        groups = spec.metric_groups
        speaks = container.name == _speaker(instance)
        if "storage" in groups and speaks:
            yield from self._storage(job, instance, spec)
        if not {"system", "network"} & set(groups) or not isinstance(running, Measured):
            return
        usage = running.usage()
        if usage is None:
            return
        if "network" in groups and speaks and usage.network is not None:
            yield from metric_values.network(usage.network)
        if "system" in groups:
            key = _key(job, instance, container)
            with self._lock:
                before = self._usage.get(key)
                self._usage[key] = usage
            since = before.measured_at if before else container.started_at or usage.measured_at
            yield from metric_values.used(usage, before, since)

    def _storage(self, job: Job, instance: InstanceState, spec: ServiceSpec) -> Iterable[Metric]:
        jobs = self.account.extensions["jobs"]
        for volume in spec.volumes.values():
            if volume.source == "block":
                folder = jobs.launcher.volume_folder(job, instance, volume.name)
                identifier = uuid.uuid5(
                    uuid.NAMESPACE_OID, f"{job.id}/{instance.index}/{volume.name}"
                )
                yield from metric_values.volume(
                    volume, _bytes_below(folder), str(identifier), instance.index
                )


def _speaker(instance: InstanceState) -> str:
    """Return the container with which the instance's own metrics are measured."""
    return next((c.name for c in instance.containers if c.status == "READY"), "")


def _bytes_below(folder: Path) -> int:
    """Return what a directory's files take on the disk; files that vanish meanwhile count not."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_blocks * 512
            except OSError:
                continue
    return total


def _key(job: Job, instance: InstanceState, container: ContainerState) -> _Key:
    return job.id, instance.index, container.name
