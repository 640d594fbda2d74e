"""What SHOW, DESCRIBE and the history print about job services; columns in Snowflake's order."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job, as_time
from monad_dagster.local.jobs.job_states import HISTORY_MESSAGES, SERVICE_MESSAGES
from monad_dagster.local.jobs.job_submission import as_options
from monad_dagster.local.protocol.results import Column, number, text, timestamp, variant
from monad_dagster.local.specs.quantities import format_flag

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

SERVICE_COLUMNS = [
    text("name"), text("status"), text("database_name"), text("schema_name"), text("owner"),
    text("compute_pool"), text("dns_name"), number("current_instances"),
    number("target_instances"), number("min_ready_instances"), number("min_instances"),
    number("max_instances"), text("auto_resume"), text("external_access_integrations"),
    timestamp("created_on"), timestamp("updated_on"), timestamp("resumed_on"),
    timestamp("suspended_on"), number("auto_suspend_secs"), text("comment"),
    text("owner_role_type"), text("query_warehouse"), text("is_job"), text("is_async_job"),
    text("spec_digest"), text("is_upgrading"), text("managing_object_domain"),
    text("managing_object_name"),
]  # fmt: skip
CONTAINER_COLUMNS = [
    text("database_name"), text("schema_name"), text("service_name"), text("service_status"),
    text("instance_id"), text("instance_status"), text("container_name"), text("status"),
    text("message"), text("image_name"), text("image_digest"), number("restart_count"),
    text("start_time"), number("last_exit_code"), text("last_restart_time"),
]  # fmt: skip
INSTANCE_COLUMNS = [
    text("database_name"), text("schema_name"), text("service_name"), text("service_status"),
    text("instance_id"), text("status"), text("spec_digest"), text("creation_time"),
    text("start_time"), text("ip_address"),
]  # fmt: skip
HISTORY_COLUMNS = [
    text("QUERY_ID"), text("ID"), text("NAME"), text("DATABASE_NAME"), text("SCHEMA_NAME"),
    timestamp("CREATED_TIME"), timestamp("COMPLETED_TIME"), timestamp("DELETED_TIME"),
    text("STATUS"), text("MESSAGE"), variant("INSTANCE_STATUSES"), text("COMPUTE_POOL_NAME"),
    text("OWNER"), text("OWNER_ROLE_TYPE"), variant("PARAMETERS"), text("MANAGING_OBJECT"),
]  # fmt: skip


def describe_columns() -> list[Column]:
    """Return DESCRIBE SERVICE's columns: `spec` follows `compute_pool`."""
    at = [column.name for column in SERVICE_COLUMNS].index("compute_pool") + 1
    return [*SERVICE_COLUMNS[:at], text("spec"), *SERVICE_COLUMNS[at:]]


def service_row(job: Job) -> tuple[Any, ...]:
    """Return a row of SHOW SERVICES."""
    count = len(job.instances)
    current = sum(instance.launched and not instance.is_over for instance in job.instances)
    integrations = json.dumps(job.integrations) if job.integrations else None
    return (
        job.name, job.status, job.database, job.schema, job.owner, job.pool, dns_name(job),
        current, count, count, count, count, "false", integrations, as_time(job.created_at),
        as_time(job.updated_at), None, None, 0, job.comment, "ROLE", job.warehouse, "true",
        format_flag(job.is_async), job.digest, "false", None, None,
    )  # fmt: skip


def describe_row(session: "Session", job: Job) -> tuple[Any, ...]:
    """Return the row of DESCRIBE SERVICE; only the owner sees the specification."""
    row = service_row(job)
    at = [column.name for column in SERVICE_COLUMNS].index("compute_pool") + 1
    is_owner = job.owner in session.catalog.roles_of(session.role)
    return (*row[:at], job.rendered if is_owner else None, *row[at:])


def container_rows(job: Job) -> list[tuple[Any, ...]]:
    """Return the rows of SHOW SERVICE CONTAINERS."""
    return [
        (
            job.database, job.schema, job.name, job.status, str(instance.index), instance.status,
            container.name, container.status, container.message, container.image,
            container.digest, 0, _iso(container.started_at), container.exit_code, None,
        )
        for instance in job.instances
        for container in instance.containers
    ]  # fmt: skip


def instance_rows(job: Job) -> list[tuple[Any, ...]]:
    """Return the rows of SHOW SERVICE INSTANCES."""
    return [
        (
            job.database, job.schema, job.name, job.status, str(instance.index), instance.status,
            job.digest, _iso(instance.created_at), _iso(instance.started_at),
            instance.address if instance.launched else None,
        )
        for instance in job.instances
    ]  # fmt: skip


def history_row(job: Job) -> tuple[Any, ...]:
    """Return a row of GET_JOB_HISTORY."""
    message = HISTORY_MESSAGES.get(job.status, SERVICE_MESSAGES.get(job.status, ""))
    return (
        job.query_id, job.id, job.name, job.database, job.schema, as_time(job.created_at),
        as_time(job.completed_at), as_time(job.deleted_at), job.status, message,
        instance_statuses(job), job.pool, job.owner, "ROLE", as_options(job), None,
    )  # fmt: skip


def instance_statuses(job: Job) -> dict[str, Any]:
    """Return INSTANCE_STATUSES, with every container's last exit code."""
    statuses = [instance.status for instance in job.instances]
    return {
        "totalInstances": len(statuses),
        "pendingInstances": statuses.count("PENDING"),
        "runningInstances": statuses.count("READY") + statuses.count("TERMINATING"),
        "succeededInstances": statuses.count("SUCCEEDED"),
        "failedInstances": statuses.count("FAILED"),
        "instances": [
            {
                "instanceId": str(instance.index),
                "containers": [_history_container(container) for container in instance.containers],
            }
            for instance in job.instances
        ],
    }


def _history_container(container: ContainerState) -> dict[str, Any]:
    return {
        "containerName": container.name,
        "image": container.image,
        "imageSha256": container.digest,
        "lastExitCode": container.exit_code,
        "message": container.message,
        "restartCount": 0,
        "startTime": _iso(container.started_at),
        "status": container.status,
    }


def status_json(job: Job) -> list[dict[str, Any]]:
    """Return what SYSTEM$GET_SERVICE_STATUS prints."""
    return [
        {
            "status": container.status,
            "message": container.message,
            "containerName": container.name,
            "instanceId": str(instance.index),
            "serviceName": job.name,
            "image": container.image,
            "restartCount": 0,
            "startTime": _iso(container.started_at) or "",
        }
        for instance, container in _each(job)
    ]


def _each(job: Job) -> list[tuple[InstanceState, ContainerState]]:
    return [(i, container) for i in job.instances for container in i.containers]


def dns_domain(database: str, schema: str) -> str:
    """Return a schema's DNS domain."""
    digest = hashlib.sha256(f"{database}.{schema}".encode()).hexdigest()[:8]
    return f"{digest}.svc.spcs.internal"


def dns_name(job: Job) -> str:
    """Return a job service's DNS name."""
    return f"{job.name.lower().replace('_', '-')}.{dns_domain(job.database, job.schema)}"


def _iso(seconds: float | None) -> str | None:
    time = as_time(seconds)
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")
