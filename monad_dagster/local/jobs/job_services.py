"""Runs job services: places instances on nodes, starts containers, follows them, keeps records.

One controller thread advances every job service that is not over. Each change is stored before
anyone can see it, so a killed account continues where it was: a container that still runs is
found again, one that vanished is reported FAILED as a lost node.
"""

import logging
import shutil
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from monad_dagster.local.faults.faults_jobs import JobFaults
from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.event_export import EventExport
from monad_dagster.local.jobs.job_launch import Launcher
from monad_dagster.local.jobs.job_metrics import PlatformMetrics
from monad_dagster.local.jobs.job_model import RETENTION, ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_placement import Placement
from monad_dagster.local.jobs.job_records import JobRecords
from monad_dagster.local.jobs.log_shipping import LogShipping
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.runners.base import RunningContainer

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

logger = logging.getLogger("monad_dagster.local")

BUSY_SECONDS = 0.05
QUIET_SECONDS = 0.5
SWEEP_SECONDS = 30.0


class JobServices(JobRecords):
    """Runs the account's job services: takes commands, follows containers, forgets in the end."""

    def __init__(
        self, account: "Account", launcher: Launcher, starters: Executor | None = None
    ) -> None:
        super().__init__(account)
        self.launcher = launcher
        self.metrics = PlatformMetrics(account)
        self.logs = LogShipping(account, self.spec)
        self._faults = JobFaults(self)
        self.running: dict[tuple[str, int, str], RunningContainer] = {}
        self._placement = Placement(self)
        self._export = EventExport(self)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self.starters = starters or ThreadPoolExecutor(4, thread_name_prefix="job-start")
        self._controller = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._swept = 0.0

    # --- life cycle of the room

    def open(self) -> None:
        """Find the containers of an earlier account process and start to follow."""
        with self.changed:
            for job in self.jobs.values():
                if not job.is_over:
                    self._adopt(job)
                elif not job.logs_gone:
                    self._ship_rest(job)
        self._controller.start()

    def close(self) -> None:
        """Stop following; containers go on."""
        self._stop.set()
        self.wake()
        if self._controller.is_alive():
            self._controller.join(timeout=5)
        self.starters.shutdown(wait=False, cancel_futures=True)

    def _adopt(self, job: Job) -> None:
        for instance in job.instances:
            for container in instance.containers:
                found = self.launcher.attach(job, instance, container.name)
                if found is not None:
                    instance.launched = True
                    self.running[job.id, instance.index, container.name] = found

    def _ship_rest(self, job: Job) -> None:
        """Go on sending the logs of a job service that ended before they were sent."""
        for instance in job.instances:
            for container in instance.containers:
                path = self.launcher.run_dir(job, instance, container.name) / "log"
                self.logs.ship(job, instance, container, path)

    # --- commanding

    def add(self, job: Job) -> None:
        """Take over a job service whose name is registered already."""
        with self.changed:
            self.jobs[job.id] = job
            self.save(job)
        self.events.service(job)
        for warning in job.warnings:
            self.events.warning(job, warning)
        self.wake()

    def cancel(self, job: Job) -> None:
        """Begin to cancel a job service; one that is over stays as it is."""
        with self.changed:
            if job.is_terminal:
                return
            job.cancelling = True
            self.set_status(job, "CANCELLING")
            self.terminate(job)
        self.wake()

    def drop(self, job: Job) -> None:
        """Remove a job service; its containers end, its history stays."""
        with self.changed, self.account.catalog.transaction():
            job.deleted_at = self.account.clock().timestamp()
            if not job.is_terminal:
                job.cancelling = True
                self.set_status(job, "DELETING")
                self.terminate(job)
                self.set_status(job, "DELETED")
            self.account.catalog.drop("SERVICE", job.name, database=job.database, schema=job.schema)
            self.save(job)
        self.wake()

    def stop_all(self, pool: str) -> None:
        """Cancel every job service of a pool."""
        for job in self.on_pool(pool):
            self.cancel(job)

    def nodes_gone(self, pool: str) -> None:
        """Forget the local logs of ended job services: their nodes were given back."""
        with self.changed:
            for job in self.on_pool(pool):
                if job.is_over and not job.logs_gone:
                    self._lose_logs(job)
                    self.save(job)

    def _lose_logs(self, job: Job) -> None:
        job.logs_gone = True
        self.logs.lose(job)

    def lose_nodes(self, pool: str) -> None:
        """Take a pool's nodes away as maintenance does: what runs there fails."""
        with self.changed:
            for job, instance in self.placed(pool):
                self.lose_node(job, instance, graceful=False)

    def lose_nodes_above(self, pool: str, max_nodes: int) -> None:
        """Take away the nodes that a lowered MAX_NODES no longer allows; what runs there fails."""
        with self.changed:
            for job, instance in self.placed(pool):
                if instance.node is not None and instance.node >= max_nodes:
                    self.lose_node(job, instance, graceful=True)

    def lose_node(self, job: Job, instance: InstanceState, *, graceful: bool) -> None:
        """Take an instance's node away; everything on it fails, local logs go with it."""
        with self.changed:
            for owner, other in self.placed(job.pool):
                if other.node == instance.node and not other.lost:
                    other.lost = True
                    self.save(owner)
                    self._stop_containers(owner, other, graceful=graceful)

    def fail_internally(self, job: Job) -> None:
        """End a job service as INTERNAL_ERROR."""
        with self.changed:
            self.set_status(job, "INTERNAL_ERROR")
            self.terminate(job)

    def kill_for_memory(self, job: Job, instance: InstanceState, victim: ContainerState) -> None:
        """End a container as the kernel does when it uses more memory than it may."""
        with self.changed:
            running = self.running.get((job.id, instance.index, victim.name))
            if running is None:
                return
            self.logs.ship(job, instance, victim, running.log_path)
            running.kill()
            victim.exit_code = 137
            self.set_container(job, instance, victim, "FAILED", job_states.OUT_OF_MEMORY)

    # --- the controller

    def _run(self) -> None:
        while not self._stop.is_set():
            busy = False
            try:
                busy = self.step()
            except Exception:
                logger.exception("a step of the job service controller failed")
            self._wake.wait(BUSY_SECONDS if busy else QUIET_SECONDS)
            self._wake.clear()

    def step(self) -> bool:
        """Advance every job service once; tell whether any is not over."""
        for pool in self.account.catalog.list_objects("COMPUTE POOL"):
            pools_of(self.account).refresh(pool.name)
        active = self.active()
        for job in active:
            try:
                with self.changed:
                    self._advance(job)
            except Exception:
                logger.exception("job service %s cannot be advanced", job.fqn)
                self.fail_internally(job)
        is_shipping = self.logs.ship_waiting()
        self._export.export()
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            self.sweep()
        return bool(active) or is_shipping

    def _advance(self, job: Job) -> None:
        if job.deleted_at is None and self._is_orphaned(job):
            self.drop(job)
        if self.account.faults.armed or self._faults.applied:
            self._faults.apply(job)
        for instance in job.instances:
            self._follow(job, instance)
            if not instance.launched and not job.cancelling and not job.is_terminal:
                self._placement.place(job, instance)
        if not job.is_terminal:
            statuses = [instance.status for instance in job.instances]
            self.set_status(job, job_states.service_status(statuses, cancelling=job.cancelling))
        if job.status == "FAILED":
            self.terminate(job)
        if job.is_over:
            self._finish(job)

    def _is_orphaned(self, job: Job) -> bool:
        """Tell whether the job service's schema or database was dropped under it."""
        found = self.account.catalog.get("SERVICE", job.name, job.database, job.schema)
        return found is None or found.properties.get("JOB") != job.id

    def _follow(self, job: Job, instance: InstanceState) -> None:
        for container in instance.containers:
            running = self.running.get((job.id, instance.index, container.name))
            if running is None:
                self._mourn(job, instance, container)
                continue
            if container.status in job_states.ENDED_CONTAINERS:
                continue
            end = running.poll()
            if container.status == "PENDING":
                # Seen as running for one step at least, however short it runs.
                if end is not None or running.started_at is not None:
                    self.set_container(job, instance, container, "READY", job_states.RUNNING)
                continue
            self.logs.ship(job, instance, container, running.log_path)
            if end is not None:
                # First: what was closed is on the stage when the job service is seen as over.
                self.launcher.ended(job, instance, container.name)
                container.exit_code = end.exit_code
                is_lost = end.lost or instance.lost
                message = job_states.exit_message(
                    end.exit_code, oom=end.oom, start_error=end.start_error, lost=is_lost
                )
                if is_lost:
                    self._lose_logs(job)
                status = "DONE" if end.exit_code == 0 and not is_lost else "FAILED"
                self.set_container(job, instance, container, status, message)
        self._measure(job, instance)
        status = instance.aggregate(terminating=job.cancelling or instance.lost)
        if instance.launched and status in job_states.INSTANCE_TRANSITIONS[instance.status]:
            instance.status = status
            self.save(job)
            self.events.instance(job, instance)
            if instance.is_over:
                self._placement.update_names(job)

    def _measure(self, job: Job, instance: InstanceState) -> None:
        """Let the metrics that are due be collected; slow runners must not hold up the controller."""
        spec = self.spec(job)
        for container in instance.containers:
            if self.metrics.is_due(job, instance, container, spec):
                running = self.running.get((job.id, instance.index, container.name))
                arguments = (job, instance, replace(container), spec, running)
                self.starters.submit(self.metrics.collect, *arguments)

    def _mourn(self, job: Job, instance: InstanceState, container: ContainerState) -> None:
        """Fail a container that was started and whose directory is gone."""
        is_lost = instance.launched and not self._placement.is_starting(job, instance)
        if is_lost and container.status not in job_states.ENDED_CONTAINERS:
            container.exit_code = 137
            self.set_container(job, instance, container, "FAILED", job_states.NODE_LOST)

    def wake(self) -> None:
        """Let the controller look at once."""
        self._wake.set()

    def terminate(self, job: Job) -> None:
        """Ask every container of a job service to end."""
        for instance in job.instances:
            self._stop_containers(job, instance, graceful=True)

    def _stop_containers(self, job: Job, instance: InstanceState, *, graceful: bool) -> None:
        for container in instance.containers:
            running = self.running.get((job.id, instance.index, container.name))
            if running is not None and container.status not in job_states.ENDED_CONTAINERS:
                running.terminate() if graceful else running.kill()
                if graceful:
                    self.set_container(
                        job, instance, container, "TERMINATING", job_states.TERMINATING
                    )

    def _finish(self, job: Job) -> None:
        self.account.tokens.revoke_job_tokens(job.fqn)
        for instance in job.instances:
            self.starters.submit(self.launcher.end_instance, job, instance)
            for container in instance.containers:
                self.running.pop((job.id, instance.index, container.name), None)
                self.metrics.forget(job, instance, container)
            for name in ("volumes", "session"):
                folder = self.launcher.root / job.id / str(instance.index) / name
                shutil.rmtree(folder, ignore_errors=True)

    # --- forgetting

    def sweep(self) -> None:
        """Release names and history that are older than 30 days."""
        horizon = (self.account.clock() - RETENTION).timestamp()
        with self.changed:
            old = [job for job in self.jobs.values() if job.is_over and _ended(job) < horizon]
        for job in old:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        with self.changed:
            if job.deleted_at is None:
                self.account.catalog.drop(
                    "SERVICE", job.name, database=job.database, schema=job.schema
                )
            self.account.extensions["events"].forget(job.id)
            self.logs.forget(job)
            self.remove(job)
        shutil.rmtree(self.launcher.root / job.id, ignore_errors=True)


def _ended(job: Job) -> float:
    return max(job.completed_at or 0.0, job.deleted_at or 0.0)
