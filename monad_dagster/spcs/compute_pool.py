"""Compute pools: what they are, whether they have room, and what their state means.

Follows Snowflake's page "Working with compute pools"; the error numbers are those reported for a
pool that cannot get nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monad_dagster.errors import (
    ComputePoolUnavailableError,
    ConnectionFailedError,
    SnowflakeError,
    problem,
)
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.instance_families import InstanceFamily, load_instance_families

AT_ITS_LIMIT = "392508"  # something waits and MAX_NODES allows no more: said by the nodes in use
CAPACITY_ERRORS = frozenset({"392507", AT_ITS_LIMIT})
MISSING_OR_INVISIBLE = frozenset({2003, 2043})


@dataclass(frozen=True)
class ComputePool:
    """One row of DESCRIBE COMPUTE POOL."""

    name: str
    state: str
    instance_family: str
    min_nodes: int
    max_nodes: int
    active_nodes: int
    idle_nodes: int
    auto_resume: bool
    error_code: str = ""
    status_message: str = ""

    @property
    def has_capacity_error(self) -> bool:
        """Whether the cloud had no node to give."""
        return self.error_code in CAPACITY_ERRORS or "CAPACITY_ERROR" in self.status_message

    @property
    def free_nodes(self) -> int:
        """Nodes that a new job service could get."""
        return max(0, self.max_nodes - self.active_nodes)

    def warnings(self, *, replicas: int = 1) -> list[str]:
        """Say what will keep a job service of *replicas* instances waiting."""
        found = []
        if self.state == "SUSPENDED" and not self.auto_resume:
            found.append(
                f"Compute pool {self.name} is SUSPENDED and does not resume by itself. "
                f"Resume it: {sql.resume_compute_pool(self.name)}"
            )
        if self.free_nodes < replicas:
            found.append(
                f"Compute pool {self.name} has {self.active_nodes} of {self.max_nodes} nodes in "
                f"use and {replicas} are needed; the job service stays PENDING until one is free. "
                "Wait, or raise MAX_NODES."
            )
        if self.has_capacity_error and self.error_code != AT_ITS_LIMIT:
            found.append(
                f"Compute pool {self.name} got no node from the cloud: {self.status_message} "
                "Wait, or set BACKUP_INSTANCE_FAMILIES on the pool."
            )
        return found


def describe_compute_pool(session: Session, name: str) -> ComputePool:
    """Read a compute pool.

    Raises:
        ComputePoolUnavailableError: The pool does not exist or the role cannot see it.
    """
    try:
        row = session.execute(sql.describe_compute_pool(name)).first
    except SnowflakeError as error:
        if error.errno not in MISSING_OR_INVISIBLE:
            raise
        raise ComputePoolUnavailableError(
            problem(
                f"Compute pool {name} does not exist or the role may not see it",
                f"The answer was error {error.errno} (query {error.query_id})",
                "Create it or grant USAGE and MONITOR: monad-dagster setup",
                "More: monad-dagster doctor",
            )
        ) from error
    return _pool(row)


def instance_families(session: Session) -> dict[str, InstanceFamily]:
    """Return the families the account offers, by name, with their shape."""
    known = load_instance_families()
    families = {}
    for row in session.execute(sql.show_instance_families()).rows:
        name = str(row["name"])
        families[name] = InstanceFamily(
            name=name,
            vcpu=int(row["vcpu"]),
            memory_gib=int(float(row["memory_gib"])),
            storage_gib=_optional(row.get("storage_gib")),
            gpu=str(row["gpu"]) if row.get("gpu") else None,
            gpu_count=_optional(row.get("gpu_count")) or 0,
            gpu_memory_gib=_optional(row.get("gpu_memory_gib")) or 0,
            clouds=known[name].clouds if name in known else (),
        )
    return families


def family_of(session: Session, pool: ComputePool) -> InstanceFamily | None:
    """Return the shape of the pool's nodes; None for a family nobody describes.

    Raises:
        ConnectionFailedError: The account gave no answer. The specification depends on the shape,
            so an attempt that guessed it would not recognise the job service of the last one.
    """
    try:
        offered = instance_families(session)
    except ConnectionFailedError:
        raise
    except (SnowflakeError, KeyError, ValueError):
        offered = {}
    return offered.get(pool.instance_family) or load_instance_families().get(pool.instance_family)


def _pool(row: Mapping[str, Any]) -> ComputePool:
    return ComputePool(
        name=str(row["name"]),
        state=str(row.get("state", "")).upper(),
        instance_family=str(row.get("instance_family", "")),
        min_nodes=_optional(row.get("min_nodes")) or 0,
        max_nodes=_optional(row.get("max_nodes")) or 0,
        active_nodes=_optional(row.get("active_nodes")) or 0,
        idle_nodes=_optional(row.get("idle_nodes")) or 0,
        auto_resume=str(row.get("auto_resume", "true")).lower() in {"true", "1"},
        error_code=str(row.get("error_code") or ""),
        status_message=str(row.get("status_message") or ""),
    )


def _optional(value: object) -> int | None:
    try:
        return int(float(str(value)))
    except ValueError:
        return None
