"""Faults of compute pools, job services, their logs and events.

Each function is asked by the place where the real cause would show, and answers from the faults
that are set; what follows (statuses, messages, events) is the ordinary code's.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.faults.fault_store import Hit
from monad_dagster.local.runners.stage_serve import DISK_FULL

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.catalog.catalog import CatalogObject
    from monad_dagster.local.faults.fault_store import Faults
    from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
    from monad_dagster.local.jobs.job_services import JobServices

CAPACITY_ERROR = "392507"  # no node of the instance family is to be had


def subject(job: "Job") -> dict[str, str | tuple[str, ...]]:
    """Return what faults select a job service by."""
    return {"service": (job.name, job.fqn), "pool": job.pool, "user": job.user}


def lacks_capacity(faults: "Faults", pool: "CatalogObject") -> bool:
    """Tell whether a pool gets no node of its family, nor of a back-up family."""
    if not faults.armed:
        return False
    since = pool.properties.get("RESUMED_ON")
    hit = faults.holding("capacity-error", f"{pool.name}/{since}", {"pool": pool.name})
    if hit is None:
        return False
    families = [pool.properties["INSTANCE_FAMILY"]]
    families += [str(f) for f in pool.properties.get("BACKUP_INSTANCE_FAMILIES") or []]
    pattern = str(hit.fault.option("family")).upper()
    return all(fnmatchcase(family.upper(), pattern) for family in families)


def cannot_pull(faults: "Faults", job: "Job", instance: "InstanceState") -> bool:
    """Tell whether the images of an instance cannot be pulled now."""
    if not faults.armed:
        return False
    key = f"{job.id}/{instance.index}"
    return faults.holding("image-pull-failure", key, subject(job)) is not None


def max_log_bytes(faults: "Faults", job: "Job", limit: int) -> int:
    """Return how many bytes of a log GET_SERVICE_LOGS returns."""
    if not faults.armed:
        return limit
    hit = faults.decide("truncated-logs", job.id, subject(job))
    return limit if hit is None else min(limit, int(hit.fault.option("max_bytes")))


def newest_event_ns(account: "Account", job: "Job") -> int | None:
    """Return the time of the newest log line or event that the event table shows, if limited."""
    if not account.faults.armed:
        return None
    hit = account.faults.decide("delayed-events", job.id, subject(job))
    if hit is None:
        return None
    return int((account.clock().timestamp() - hit.fault.delay_seconds) * 1e9)


def note_full_disks(account: "Account", job: "Job", run_dir: Path) -> None:
    """Tell the server of a container's stage volumes which of them lie on a full disk."""
    full = []
    for stage in job.stages:
        names = (f"{stage.database}.{stage.schema}.{stage.stage}", stage.stage)
        what = {**subject(job), "stage": names}
        if account.faults.decide("full-disk", f"{job.id}/{stage.volume}", what) is not None:
            place = (stage.database, stage.schema, stage.stage, stage.path)
            full.append(str(account.stages.resolve(*place)))
    note = run_dir / DISK_FULL
    if full:
        note.write_text("\n".join(full))
    else:
        note.unlink(missing_ok=True)


class JobFaults:
    """What befalls running job services; asked once in each step of the controller."""

    def __init__(self, jobs: "JobServices") -> None:
        self.jobs = jobs
        self.account = jobs.account
        self.applied = False  # a fault was set before, so that its traces may have to go

    def apply(self, job: "Job") -> None:
        """Let what is due happen to a job service; the controller's lock is held."""
        self.applied = self.account.faults.armed
        if job.is_terminal or job.cancelling:
            return
        for instance in job.instances:
            for container in instance.containers if instance.launched else ():
                run_dir = self.jobs.launcher.run_dir(job, instance, container.name)
                note_full_disks(self.account, job, run_dir)
            if instance.status == "READY" and not instance.lost:
                self._apply(job, instance)

    def _apply(self, job: "Job", instance: "InstanceState") -> None:
        if self._due("internal-error", job, instance):
            self.jobs.fail_internally(job)
        elif self._due("node-loss", job, instance):
            self.jobs.lose_node(job, instance, graceful=False)
        elif self._due("node-maintenance", job, instance):
            self.jobs.lose_node(job, instance, graceful=True)
        else:
            hit = self._due("out-of-memory", job, instance)
            victim = hit and _victim(hit, instance)
            if victim:
                self.jobs.kill_for_memory(job, instance, victim)

    def _due(self, kind: str, job: "Job", instance: "InstanceState") -> Hit | None:
        # One decision for each job service; its first instance that runs is the one hit.
        hit = self.account.faults.decide(kind, f"{job.id}/{instance.index}", subject(job))
        if hit is None or self.account.clock().timestamp() < hit.due_at:
            return None
        return hit


def _victim(hit: Hit, instance: "InstanceState") -> "ContainerState | None":
    pattern = str(hit.fault.option("container"))
    running = [c for c in instance.containers if c.status == "READY"]
    return next((c for c in running if fnmatchcase(c.name, pattern)), None)
