"""Platform events of job services and the attributes their event table rows carry."""

import uuid
from typing import TYPE_CHECKING, Any

from monad_dagster.local.jobs.event_store import EventRow
from monad_dagster.local.jobs.job_logs import passes
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_states import INSTANCE_MESSAGES, PULL_FAILED, SERVICE_MESSAGES

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

SCOPE = {"name": "snow.spcs.platform"}


def resource_attributes(
    account: "Account", job: Job, instance: InstanceState | None = None, container: str = ""
) -> dict[str, Any]:
    """Return RESOURCE_ATTRIBUTES of a job service, an instance or a container."""
    attributes: dict[str, Any] = {
        "snow.account.name": account.name,
        **_object(account, "database", "DATABASE", job.database),
        **_object(account, "schema", "SCHEMA", job.schema, job.database),
        **_object(account, "compute_pool", "COMPUTE POOL", job.pool),
        "snow.compute_pool.node.instance_family": job.family,
        "snow.service.id": job.id,
        "snow.service.name": job.name,
        "snow.service.type": "Job",  # a service's own is printed as Service
        "snow.query.id": job.query_id,
    }
    if instance is not None:
        attributes["snow.service.instance"] = str(instance.index)
        attributes["snow.service.container.instance"] = str(instance.index)
        if instance.node is not None:
            attributes["snow.compute_pool.node.id"] = f"{job.pool}-{instance.node}"
    if container:
        attributes["snow.service.container.name"] = container
        index = instance.index if instance else 0
        run = uuid.uuid5(uuid.NAMESPACE_OID, f"{job.id}/{index}/{container}")
        attributes["snow.service.container.run.id"] = run.hex
    return attributes


def _object(
    account: "Account", key: str, kind: str, name: str, database: str = ""
) -> dict[str, Any]:
    """Return an object's id, while it exists, and its name."""
    found = account.catalog.get(kind, name, database)
    known = {f"snow.{key}.id": found.id} if found is not None else {}
    return {**known, f"snow.{key}.name": name}


class PlatformEvents:
    """Writes SERVICE, SERVICE_INSTANCE and CONTAINER status changes, as LOG_EVENT_LEVEL allows."""

    def __init__(self, account: "Account") -> None:
        self.account = account

    def service(self, job: Job) -> None:
        """Record the job service's status."""
        self._add(job, "SERVICE.STATUS_CHANGE", job.status, SERVICE_MESSAGES[job.status])

    def instance(self, job: Job, instance: InstanceState) -> None:
        """Record an instance's status."""
        message = INSTANCE_MESSAGES[instance.status]
        self._add(job, "SERVICE_INSTANCE.STATUS_CHANGE", instance.status, message, instance)

    def container(self, job: Job, instance: InstanceState, container: ContainerState) -> None:
        """Record a container's status and message."""
        self._add(
            job, "CONTAINER.STATUS_CHANGE", container.status, container.message, instance,
            container.name,
        )  # fmt: skip

    def warning(self, job: Job, message: str) -> None:
        """Record something that was accepted and deserves attention (ours)."""
        self._add(job, "SERVICE.WARNING", job.status, message, severity="WARN")

    def _add(
        self,
        job: Job,
        name: str,
        status: str,
        message: str,
        instance: InstanceState | None = None,
        container: str = "",
        *,
        severity: str = "",
    ) -> None:
        failed = status in ("FAILED", "INTERNAL_ERROR") or message == PULL_FAILED
        severity = severity or ("ERROR" if failed else "INFO")
        level = self.account.log_level(job.database, job.schema, "LOG_EVENT_LEVEL")
        if not passes(severity, level):
            return
        self.account.extensions["events"].add(
            [
                EventRow(
                    int(self.account.clock().timestamp() * 1e6) * 1000, job.id, "EVENT",
                    resource_attributes(self.account, job, instance, container),
                    {"status": status, "message": message},
                    instance.index if instance else None, container or None, SCOPE,
                    {"name": name, "severity_text": severity},
                )
            ]
        )  # fmt: skip
