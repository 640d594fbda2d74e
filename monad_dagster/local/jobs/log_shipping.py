"""Moves container logs from the nodes into the event table, at most 1 MB a second from each node.

Snowflake documents the limit and not what happens beyond it. Here the rest waits on the node and
follows as the limit allows, after the container's end too; what has not left a node when the node
goes is lost [I]. Only lines that the levels let through count. GET_SERVICE_LOGS reads the node's
own file and is not limited by it.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.jobs.event_store import EventStore
from monad_dagster.local.jobs.job_events import resource_attributes
from monad_dagster.local.jobs.job_logs import MAX_READ_BYTES, LogLine, log_rows, read_new
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.specs.spec import ServiceSpec

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

logger = logging.getLogger("monad_dagster.local")

NODE_BYTES_PER_SECOND = 1_000_000
_LOOK_AHEAD_BYTES = 64 * 1024  # more than the longest line takes in the file
_Node = tuple[str, int]


@dataclass
class _Budget:
    """What a node may still send now; at most one second's worth is saved up."""

    at: float
    left: float = field(default=NODE_BYTES_PER_SECOND)

    def refill(self, now: float) -> None:
        gained = max(0.0, now - self.at) * NODE_BYTES_PER_SECOND
        self.left = min(NODE_BYTES_PER_SECOND, self.left + gained)
        self.at = now


class LogShipping:
    """Sends new log lines of every container to the event table.

    Args:
        account: The account; its clock measures the seconds.
        spec_of: Returns a job service's specification.
    """

    def __init__(self, account: "Account", spec_of: Callable[[Job], ServiceSpec]) -> None:
        self.account = account
        self._spec_of = spec_of
        self._lock = threading.Lock()
        self._budgets: dict[_Node, _Budget] = {}
        self._waiting: dict[Path, tuple[Job, InstanceState, ContainerState]] = {}

    @property
    def _store(self) -> EventStore:
        return self.account.extensions["events"]

    def ship(
        self, job: Job, instance: InstanceState, container: ContainerState, path: Path
    ) -> None:
        """Send what is new in a container's log and what its node's limit allows."""
        with self._lock:
            if self._ship(job, instance, container, path):
                self._waiting.pop(path, None)
            else:
                self._waiting[path] = (job, instance, container)

    def ship_waiting(self) -> bool:
        """Send more of the logs that had to wait; tell whether any still does."""
        with self._lock:
            for path, (job, instance, container) in list(self._waiting.items()):
                if self._ship(job, instance, container, path):
                    del self._waiting[path]
            return bool(self._waiting)

    def lose(self, job: Job) -> None:
        """Forget what has not left the nodes of a job service: they are gone."""
        with self._lock:
            for path in [path for path, (other, *_) in self._waiting.items() if other is job]:
                lost = path.stat().st_size - self._store.offset(path) if path.exists() else 0
                logger.warning(
                    "job service %s: %d bytes of its log did not reach the event table before its "
                    "node was given back; nodes send %d bytes a second",
                    job.fqn, lost, NODE_BYTES_PER_SECOND,
                )  # fmt: skip
                del self._waiting[path]

    def forget(self, job: Job) -> None:
        """Stop sending a job service's logs."""
        with self._lock:
            self._waiting = {p: found for p, found in self._waiting.items() if found[0] is not job}

    def _ship(
        self, job: Job, instance: InstanceState, container: ContainerState, path: Path
    ) -> bool:
        """Send lines within the node's budget; tell whether nothing is left."""
        node = (job.pool, instance.node or 0)
        now = self.account.clock().timestamp()
        budget = self._budgets.setdefault(node, _Budget(now))
        budget.refill(now)
        offset = self._store.offset(path)
        log_level = self.account.log_level(job.database, job.schema)
        exported = self._spec_of(job).log_level
        counts = exported != "NONE" and log_level != "OFF"  # otherwise nothing is sent
        while True:
            most = _LOOK_AHEAD_BYTES + int(budget.left) if counts else MAX_READ_BYTES
            lines, end = read_new(path, offset, most)
            if not lines:
                return True
            fitting = _within(lines, budget) if counts else lines
            rows = log_rows(
                fitting,
                job=job.id,
                resource=resource_attributes(self.account, job, instance, container.name),
                instance=instance.index,
                container=container.name,
                log_level=log_level,
                exported=exported,
            )
            offset = end if len(fitting) == len(lines) else offset + sum(x.size for x in fitting)
            self._store.add(rows, log=path, offset=offset)
            if len(fitting) < len(lines):
                return False


def _within(lines: list[LogLine], budget: _Budget) -> list[LogLine]:
    """Return the first lines for which a budget suffices, and take them off it."""
    for index, line in enumerate(lines):
        size = len(line.text.encode())
        if size > budget.left:
            return lines[:index]
        budget.left -= size
    return lines
