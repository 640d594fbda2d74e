"""What Snowflake says of job services: statuses, descriptions, containers; read from its rows.

Nothing here talks to Snowflake. Follows its pages "Monitoring services" and "GET_JOB_HISTORY".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from monad_dagster.spcs.identifiers import QualifiedName

COMMENT_KEY = "monad_dagster"
RUN_ID_LABEL = "run_id"


class JobServiceStatus(StrEnum):
    """The documented statuses, and UNKNOWN for any other."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SUSPENDING = "SUSPENDING"
    SUSPENDED = "SUSPENDED"
    DELETING = "DELETING"
    DELETED = "DELETED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def parse(cls, text: object) -> "JobServiceStatus":
        """Read a status; one that is not documented is UNKNOWN and never an error."""
        try:
            return cls(str(text).upper())
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Whether the job service will not change any more."""
        return self in TERMINAL


# Asked to end: containers have their 30 s of grace, in which they may still write.
ENDING = frozenset({JobServiceStatus.CANCELLING, JobServiceStatus.DELETING})
TERMINAL = frozenset(
    {
        JobServiceStatus.DONE,
        JobServiceStatus.FAILED,
        JobServiceStatus.CANCELLED,
        JobServiceStatus.INTERNAL_ERROR,
        JobServiceStatus.DELETED,
    }
)


@dataclass(frozen=True)
class JobServiceDescription:
    """What Snowflake says of one job service.

    Attributes:
        name: Its name.
        status: Its status.
        raw_status: The status as it was spelt.
        compute_pool: The pool it runs on.
        comment: The comment it was submitted with.
        created_on: When it was submitted.
        updated_on: When its status changed last.
        spec_text: The normalised specification, empty for another role than the owner.
    """

    name: QualifiedName
    status: JobServiceStatus
    raw_status: str
    compute_pool: str = ""
    comment: str = ""
    created_on: datetime | None = None
    updated_on: datetime | None = None
    spec_text: str = ""

    @property
    def labels(self) -> Mapping[str, Any]:
        """What this project wrote into the comment; empty for a job service of someone else."""
        try:
            labels = json.loads(self.comment)[COMMENT_KEY]
        except (ValueError, KeyError, TypeError):
            return {}
        return labels if isinstance(labels, dict) else {}

    @property
    def spec_sha256(self) -> str | None:
        """The hash of the specification it was submitted with."""
        value = self.labels.get("spec_sha256")
        return str(value) if value else None


@dataclass(frozen=True)
class ContainerState:
    """One row of SHOW SERVICE CONTAINERS, or of the job history."""

    container_name: str
    instance_id: int = 0
    status: str = "UNKNOWN"
    message: str = ""
    image_name: str = ""
    image_digest: str = ""
    restart_count: int = 0
    start_time: str | None = None
    last_exit_code: int | None = None

    @property
    def started_on(self) -> datetime | None:
        """When the container started, None when that is not known or not readable."""
        try:
            return datetime.fromisoformat(self.start_time) if self.start_time else None
        except ValueError:
            return None


def description_of(row: Mapping[str, Any]) -> JobServiceDescription:
    """Read a row of DESCRIBE SERVICE or SHOW JOB SERVICES."""
    created, updated = row.get("created_on"), row.get("updated_on")
    raw = str(row.get("status", ""))
    return JobServiceDescription(
        name=QualifiedName(str(row["database_name"]), str(row["schema_name"]), str(row["name"])),
        status=JobServiceStatus.parse(raw),
        raw_status=raw,
        compute_pool=str(row.get("compute_pool") or ""),
        comment=str(row.get("comment") or ""),
        created_on=created if isinstance(created, datetime) else None,
        updated_on=updated if isinstance(updated, datetime) else None,
        spec_text=str(row.get("spec") or ""),
    )


def container_of(row: Mapping[str, Any]) -> ContainerState:
    """Read a row of SHOW SERVICE CONTAINERS."""
    return ContainerState(
        container_name=str(row.get("container_name", "")),
        instance_id=_integer(row.get("instance_id")) or 0,
        status=str(row.get("status") or "UNKNOWN"),
        message=str(row.get("message") or ""),
        image_name=str(row.get("image_name") or ""),
        image_digest=str(row.get("image_digest") or ""),
        restart_count=_integer(row.get("restart_count")) or 0,
        start_time=str(row["start_time"]) if row.get("start_time") else None,
        last_exit_code=_integer(row.get("last_exit_code")),
    )


def containers_from_history(row: Mapping[str, Any]) -> list[ContainerState]:
    """Read container states out of a history row's INSTANCE_STATUSES."""
    raw = row.get("instance_statuses")
    document = json.loads(raw) if isinstance(raw, str) and raw else raw
    if not isinstance(document, Mapping):
        return []
    return [
        ContainerState(
            container_name=str(container.get("containerName", "")),
            instance_id=_integer(instance.get("instanceId")) or 0,
            status=str(container.get("status") or "UNKNOWN"),
            message=str(container.get("message") or ""),
            image_name=str(container.get("image") or ""),
            image_digest=str(container.get("imageSha256") or "").removeprefix("@"),
            restart_count=_integer(container.get("restartCount")) or 0,
            start_time=container.get("startTime"),
            last_exit_code=_integer(container.get("lastExitCode")),
        )
        for instance in document.get("instances", [])
        for container in instance.get("containers", [])
    ]


def _integer(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
