"""What is known of every job service: asking for it, and changing it by the transition tables.

Each change is stored before anyone can see it, and is a platform event.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.job_events import PlatformEvents
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_nodes import Need, Nodes, need_of
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.pools.pool_states import Load
from monad_dagster.local.specs.spec import ServiceSpec, parse_spec
from monad_dagster.spcs.instance_families import InstanceFamily

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

COLLECTION = "job_services"


class JobRecords:
    """Every job service of the account, dropped ones included while history keeps them.

    Attributes:
        changed: Held while job services or pools change, and notified of each change.
    """

    def __init__(self, account: "Account") -> None:
        self.account = account
        self.events = PlatformEvents(account)
        self.changed = threading.Condition(pools_of(account).lock)
        self.jobs: dict[str, Job] = {}
        self._specs: dict[str, ServiceSpec] = {}
        self._needs: dict[str, Need] = {}
        for document in account.catalog.documents(COLLECTION).values():
            job = Job.from_document(document)
            self.jobs[job.id] = job

    # --- asking

    def active(self) -> list[Job]:
        """Return the job services that are not over."""
        with self.changed:
            return [job for job in self.jobs.values() if not job.is_over]

    def existing(self) -> list[Job]:
        """Return the job services that were not dropped."""
        with self.changed:
            return [job for job in self.jobs.values() if job.deleted_at is None]

    def on_pool(self, pool: str) -> list[Job]:
        """Return the job services of a compute pool that were not dropped."""
        return [job for job in self.existing() if job.pool == pool]

    def placed(self, pool: str) -> list[tuple[Job, InstanceState]]:
        """Return the instances that hold a node of a pool."""
        with self.changed:
            return [
                (job, instance)
                for job in self.jobs.values()
                if job.pool == pool and not job.is_over
                for instance in job.instances
                if instance.node is not None and not instance.is_over
            ]

    def load(self, pool: str, family: InstanceFamily, max_nodes: int) -> tuple[Load, int]:
        """Return what is wanted of a pool, and how many waiting instances find no room in it."""
        with self.changed:
            placed = self.placed(pool)
            waiting = [
                self.need(job)
                for job in self.jobs.values()
                if job.pool == pool and not job.is_over and not job.cancelling
                for instance in job.instances
                if instance.node is None and not instance.launched and not job.is_terminal
            ]
            nodes = Nodes(((found.node, self.need(job)) for job, found in placed), family)
            held = nodes.held
            wanted, without = nodes.wanted(waiting, max_nodes)
            return Load(len(placed), held, wanted), without

    def need(self, job: Job) -> Need:
        """Return what one instance of a job service takes from a node."""
        if job.id not in self._needs:
            self._needs[job.id] = need_of(self.spec(job))
        return self._needs[job.id]

    def occupied_nodes(self, pool: str) -> set[int]:
        """Return the numbers of a pool's nodes that hold instances."""
        return {instance.node for _, instance in self.placed(pool) if instance.node is not None}

    def query_warehouse(self, fqn: str) -> str | None:
        """Return the warehouse that sessions from a job service's containers begin with."""
        return next((job.warehouse for job in self.existing() if job.fqn == fqn), None)

    def spec(self, job: Job) -> ServiceSpec:
        """Return a job service's parsed specification."""
        if job.id not in self._specs:
            self._specs[job.id] = parse_spec(job.spec_text)
        return self._specs[job.id]

    def wait(
        self,
        job: Job,
        is_enough: Callable[[Job], bool],
        timeout: float | None,
        cancelled: threading.Event | None = None,
    ) -> bool:
        """Wait until a job service satisfies a condition; tell whether it does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.changed:
            while not is_enough(job):
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if left <= 0 or (cancelled is not None and cancelled.is_set()):
                    return False
                self.changed.wait(min(left, 1.0))
            return True

    # --- changing

    def set_status(self, job: Job, status: str) -> None:
        """Give a job service another status, where the transition table allows it."""
        if status == job.status or status not in job_states.TRANSITIONS[job.status]:
            return
        job.status = status
        now = self.account.clock().timestamp()
        job.updated_at = now
        if job.is_terminal:
            job.completed_at = now
        self.save(job)
        self.events.service(job)
        self.changed.notify_all()

    def set_container(
        self,
        job: Job,
        instance: InstanceState,
        container: ContainerState,
        status: str,
        message: str,
    ) -> None:
        """Give a container another status and message, where the table allows it."""
        if (container.status, container.message) == (status, message):
            return
        allowed = job_states.CONTAINER_TRANSITIONS[container.status]
        if status != container.status and status not in allowed:
            return
        container.status, container.message = status, message
        if status == "READY":
            container.started_at = container.started_at or self.account.clock().timestamp()
            instance.started_at = instance.started_at or container.started_at
        self.save(job)
        if status != "TERMINATING":  # no such event is documented
            self.events.container(job, instance, container)
        self.changed.notify_all()

    def set_messages(self, job: Job, instance: InstanceState, message: str) -> None:
        """Say the same of every container of an instance."""
        for container in instance.containers:
            self.set_container(job, instance, container, container.status, message)

    def save(self, job: Job) -> None:
        """Store a job service before anyone can see the change."""
        self.account.catalog.put_document(COLLECTION, job.id, job.as_document())

    def remove(self, job: Job) -> None:
        """Forget a job service."""
        self.account.catalog.delete_document(COLLECTION, job.id)
        for kept in (self.jobs, self._specs, self._needs):
            kept.pop(job.id, None)


def newest_first(jobs: Iterable[Job]) -> list[Job]:
    """Return job services by creation, newest first."""
    return sorted(jobs, key=lambda job: job.created_at, reverse=True)
