"""Runs job services: places instances on nodes, starts containers, follows them, keeps records.

One controller thread advances every job service that is not over. Each change is stored before
anyone can see it, so a killed account continues where it was: a container that still runs is
found again, one that vanished is reported FAILED as a lost node.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from monad_dagster.local.faults.faults_jobs import JobFaults, cannot_pull, newest_event_ns
from monad_dagster.local.images.image_rootfs import ImageRootfsError
from monad_dagster.local.images.image_store import ImageStoreError
from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.event_store import EventRow
from monad_dagster.local.jobs.job_events import PlatformEvents
from monad_dagster.local.jobs.job_launch import Launcher
from monad_dagster.local.jobs.job_metrics import PlatformMetrics
from monad_dagster.local.jobs.job_model import RETENTION, ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_nodes import Need, Nodes, need_of
from monad_dagster.local.jobs.log_shipping import LogShipping
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.pools.pool_states import Load, PoolState
from monad_dagster.local.runners.base import ImagePullError, RunnerError, RunningContainer
from monad_dagster.local.specs.spec import ServiceSpec, parse_spec
from monad_dagster.spcs.instance_families import InstanceFamily

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

logger = logging.getLogger("monad_dagster.local")

COLLECTION = "job_services"
BUSY_SECONDS = 0.05
QUIET_SECONDS = 0.5
SWEEP_SECONDS = 30.0


class JobServices:
    """Every job service of the account, dropped ones included while history keeps them."""

    def __init__(
        self, account: "Account", launcher: Launcher, starters: Executor | None = None
    ) -> None:
        self.account = account
        self.launcher = launcher
        self.events = PlatformEvents(account)
        self.metrics = PlatformMetrics(account)
        self.logs = LogShipping(account, self.spec)
        self._faults = JobFaults(self)
        self.changed = threading.Condition(pools_of(account).lock)
        self.jobs: dict[str, Job] = {}
        self._specs: dict[str, ServiceSpec] = {}
        self._needs: dict[str, Need] = {}
        self._running: dict[tuple[str, int, str], RunningContainer] = {}
        self._launching: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._starters = starters or ThreadPoolExecutor(4, thread_name_prefix="job-start")
        self._controller = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._swept = 0.0
        for document in account.catalog.documents(COLLECTION).values():
            job = Job.from_document(document)
            self.jobs[job.id] = job

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
        self._wake.set()
        if self._controller.is_alive():
            self._controller.join(timeout=5)
        self._starters.shutdown(wait=False, cancel_futures=True)

    def _adopt(self, job: Job) -> None:
        for instance in job.instances:
            for container in instance.containers:
                found = self.launcher.attach(job, instance, container.name)
                if found is not None:
                    instance.launched = True
                    self._running[job.id, instance.index, container.name] = found

    def _ship_rest(self, job: Job) -> None:
        """Go on sending the logs of a job service that ended before they were sent."""
        for instance in job.instances:
            for container in instance.containers:
                path = self.launcher.run_dir(job, instance, container.name) / "log"
                self.logs.ship(job, instance, container, path)

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
                self._need(job)
                for job in self.jobs.values()
                if job.pool == pool and not job.is_over and not job.cancelling
                for instance in job.instances
                if instance.node is None and not instance.launched and not job.is_terminal
            ]
            nodes = Nodes(((found.node, self._need(job)) for job, found in placed), family)
            held = nodes.held
            wanted, without = nodes.wanted(waiting, max_nodes)
            return Load(len(placed), held, wanted), without

    def _need(self, job: Job) -> Need:
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

    # --- commanding

    def add(self, job: Job) -> None:
        """Take over a job service whose name is registered already."""
        with self.changed:
            self.jobs[job.id] = job
            self._save(job)
        self.events.service(job)
        for warning in job.warnings:
            self.events.warning(job, warning)
        self._wake.set()

    def cancel(self, job: Job) -> None:
        """Begin to cancel a job service; one that is over stays as it is."""
        with self.changed:
            if job.is_terminal:
                return
            job.cancelling = True
            self._set_status(job, "CANCELLING")
            self._terminate(job)
        self._wake.set()

    def drop(self, job: Job) -> None:
        """Remove a job service; its containers end, its history stays."""
        with self.changed, self.account.catalog.transaction():
            job.deleted_at = self.account.clock().timestamp()
            if not job.is_terminal:
                job.cancelling = True
                self._set_status(job, "DELETING")
                self._terminate(job)
                self._set_status(job, "DELETED")
            self.account.catalog.drop("SERVICE", job.name, database=job.database, schema=job.schema)
            self._save(job)
        self._wake.set()

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
                    self._save(job)

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
                    self._save(owner)
                    self._stop_containers(owner, other, graceful=graceful)

    def fail_internally(self, job: Job) -> None:
        """End a job service as INTERNAL_ERROR."""
        with self.changed:
            self._set_status(job, "INTERNAL_ERROR")
            self._terminate(job)

    def kill_for_memory(self, job: Job, instance: InstanceState, victim: ContainerState) -> None:
        """End a container as the kernel does when it uses more memory than it may."""
        with self.changed:
            running = self._running.get((job.id, instance.index, victim.name))
            if running is None:
                return
            self.logs.ship(job, instance, victim, running.log_path)
            running.kill()
            victim.exit_code = 137
            self._set_container(job, instance, victim, "FAILED", job_states.OUT_OF_MEMORY)

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
        self._export_events()
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
                self._place(job, instance)
        if not job.is_terminal:
            statuses = [instance.status for instance in job.instances]
            self._set_status(job, job_states.service_status(statuses, cancelling=job.cancelling))
        if job.status == "FAILED":
            self._terminate(job)
        if job.is_over:
            self._finish(job)

    def _is_orphaned(self, job: Job) -> bool:
        """Tell whether the job service's schema or database was dropped under it."""
        found = self.account.catalog.get("SERVICE", job.name, job.database, job.schema)
        return found is None or found.properties.get("JOB") != job.id

    def _place(self, job: Job, instance: InstanceState) -> None:
        key = (job.id, instance.index)
        if key in self._launching:
            return
        if instance.node is None:
            message = self._find_node(job, instance)
            if message:
                self._set_messages(job, instance, message)
                return
            self._save(job)
        if cannot_pull(self.account.faults, job, instance):
            self._set_messages(job, instance, job_states.PULL_FAILED)
            return
        self._launching.add(key)
        self._starters.submit(self._launch, job, instance)

    def _find_node(self, job: Job, instance: InstanceState) -> str:
        """Give an instance a node; return why there is none, or nothing."""
        pools = pools_of(self.account)
        pool = pools.get(job.pool)
        if pool is None:
            return job_states.UNSCHEDULABLE
        clock = pools.clock(pool)
        if not clock.has_nodes:
            if clock.state is PoolState.SUSPENDED and pool.properties["AUTO_RESUME"]:
                pools.send(job.pool, "resume")
            return job_states.PROVISIONING
        occupied = ((other.node, self._need(owner)) for owner, other in self.placed(job.pool))
        nodes = Nodes(occupied, pools.family(pool))
        node = nodes.place(self._need(job), clock.nodes)
        if node is None:
            may_grow = nodes.place(self._need(job), int(pool.properties["MAX_NODES"])) is not None
            return job_states.PROVISIONING if may_grow else job_states.UNSCHEDULABLE
        instance.node = node
        return ""

    def _launch(self, job: Job, instance: InstanceState) -> None:
        """Start an instance's containers; runs outside the controller, as images are unpacked."""
        spec = self.spec(job)
        self._name_instance(job, instance)
        for container, state in zip(spec.containers, instance.containers, strict=True):
            failure = ""
            running = None
            try:
                running = self.launcher.start(job, instance, container, spec)
            except (ImageRootfsError, ImageStoreError, ImagePullError) as error:
                failure = f"{job_states.PULL_FAILED}: {error}"
            except RunnerError as error:
                failure = f"{job_states.START_FAILED}: {error}"
            except Exception as error:
                logger.exception("container %s of %s cannot be started", container.name, job.fqn)
                failure = f"{job_states.START_FAILED}: {error}"
            with self.changed:
                if running is not None:
                    self._running[job.id, instance.index, container.name] = running
                    instance.launched = True
                    self._save(job)
                else:
                    state.exit_code = 127
                    self._set_container(job, instance, state, "FAILED", failure)
        with self.changed:
            instance.launched = True
            instance.started_at = instance.started_at or self.account.clock().timestamp()
            self._launching.discard((job.id, instance.index))
            self._save(job)
            if job.cancelling or job.is_terminal:
                self._terminate(job)
        self._wake.set()

    def _name_instance(self, job: Job, instance: InstanceState) -> None:
        """Give an instance its address and let the others resolve it."""
        try:
            with self.changed:
                self.launcher.give_address(job, instance, self.active())
                self._save(job)
                self._update_names(job)
        except (ImageRootfsError, ImageStoreError, RunnerError) as error:
            # The containers' own start meets the same and reports it.
            logger.warning("job service %s has no address: %s", job.fqn, error)

    def _update_names(self, job: Job) -> None:
        active = self.active()
        declares = {other.id for other in [*active, job] if self.spec(other).has_endpoints}
        self.launcher.update_names(job, active, declares)

    def _follow(self, job: Job, instance: InstanceState) -> None:
        for container in instance.containers:
            running = self._running.get((job.id, instance.index, container.name))
            if running is None:
                self._mourn(job, instance, container)
                continue
            if container.status in job_states.ENDED_CONTAINERS:
                continue
            end = running.poll()
            if container.status == "PENDING":
                # Seen as running for one step at least, however short it runs.
                if end is not None or running.started_at is not None:
                    self._set_container(job, instance, container, "READY", job_states.RUNNING)
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
                self._set_container(job, instance, container, status, message)
        self._measure(job, instance)
        status = instance.aggregate(terminating=job.cancelling or instance.lost)
        if instance.launched and status in job_states.INSTANCE_TRANSITIONS[instance.status]:
            instance.status = status
            self._save(job)
            self.events.instance(job, instance)
            if instance.is_over:
                self._update_names(job)

    def _measure(self, job: Job, instance: InstanceState) -> None:
        """Let the metrics that are due be collected; slow runners must not hold up the controller."""
        spec = self.spec(job)
        for container in instance.containers:
            if self.metrics.is_due(job, instance, container, spec):
                running = self._running.get((job.id, instance.index, container.name))
                arguments = (job, instance, replace(container), spec, running)
                self._starters.submit(self.metrics.collect, *arguments)

    def _mourn(self, job: Job, instance: InstanceState, container: ContainerState) -> None:
        """Fail a container that was started and whose directory is gone."""
        is_lost = instance.launched and (job.id, instance.index) not in self._launching
        if is_lost and container.status not in job_states.ENDED_CONTAINERS:
            container.exit_code = 137
            self._set_container(job, instance, container, "FAILED", job_states.NODE_LOST)

    def _terminate(self, job: Job) -> None:
        for instance in job.instances:
            self._stop_containers(job, instance, graceful=True)

    def _stop_containers(self, job: Job, instance: InstanceState, *, graceful: bool) -> None:
        for container in instance.containers:
            running = self._running.get((job.id, instance.index, container.name))
            if running is not None and container.status not in job_states.ENDED_CONTAINERS:
                running.terminate() if graceful else running.kill()
                if graceful:
                    self._set_container(
                        job, instance, container, "TERMINATING", job_states.TERMINATING
                    )

    def _finish(self, job: Job) -> None:
        self.account.tokens.revoke_job_tokens(job.fqn)
        for instance in job.instances:
            self._starters.submit(self.launcher.end_instance, job, instance)
            for container in instance.containers:
                self._running.pop((job.id, instance.index, container.name), None)
                self.metrics.forget(job, instance, container)
            for name in ("volumes", "session"):
                folder = self.launcher.root / job.id / str(instance.index) / name
                shutil.rmtree(folder, ignore_errors=True)

    # --- changing

    def _set_status(self, job: Job, status: str) -> None:
        if status == job.status or status not in job_states.TRANSITIONS[job.status]:
            return
        job.status = status
        now = self.account.clock().timestamp()
        job.updated_at = now
        if job.is_terminal:
            job.completed_at = now
        self._save(job)
        self.events.service(job)
        self.changed.notify_all()

    def _set_container(
        self,
        job: Job,
        instance: InstanceState,
        container: ContainerState,
        status: str,
        message: str,
    ) -> None:
        if (container.status, container.message) == (status, message):
            return
        allowed = job_states.CONTAINER_TRANSITIONS[container.status]
        if status != container.status and status not in allowed:
            return
        container.status, container.message = status, message
        if status == "READY":
            container.started_at = container.started_at or self.account.clock().timestamp()
            instance.started_at = instance.started_at or container.started_at
        self._save(job)
        if status != "TERMINATING":  # no such event is documented
            self.events.container(job, instance, container)
        self.changed.notify_all()

    def _set_messages(self, job: Job, instance: InstanceState, message: str) -> None:
        for container in instance.containers:
            self._set_container(job, instance, container, container.status, message)

    def _save(self, job: Job) -> None:
        self.account.catalog.put_document(COLLECTION, job.id, job.as_document())

    def _export_events(self) -> None:
        """Hand new rows to the SQL engine's event table."""
        store = self.account.extensions["events"]
        while rows := self._visible(store.unexported()):
            self.account.engine.append_events([row.as_event_table_row() for row in rows])
            store.mark_exported(rows[-1].id)

    def _visible(self, rows: list[EventRow]) -> list[EventRow]:
        """Return the rows before the first one that a fault still holds back."""
        if not self.account.faults.armed:
            return rows
        for index, row in enumerate(rows):
            job = self.jobs.get(row.job)
            newest = newest_event_ns(self.account, job) if job else None
            if newest is not None and row.at_ns > newest:
                return rows[:index]
        return rows

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
            self.account.catalog.delete_document(COLLECTION, job.id)
            self.account.extensions["events"].forget(job.id)
            self.logs.forget(job)
            self.jobs.pop(job.id, None)
            self._specs.pop(job.id, None)
            self._needs.pop(job.id, None)
        shutil.rmtree(self.launcher.root / job.id, ignore_errors=True)


def _ended(job: Job) -> float:
    return max(job.completed_at or 0.0, job.deleted_at or 0.0)


def newest_first(jobs: Iterable[Job]) -> list[Job]:
    """Return job services by creation, newest first."""
    return sorted(jobs, key=lambda job: job.created_at, reverse=True)
