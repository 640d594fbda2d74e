"""Puts waiting instances on nodes and starts their containers."""

import logging
from typing import TYPE_CHECKING

from monad_dagster.local.faults.faults_jobs import cannot_pull
from monad_dagster.local.images.image_rootfs import ImageRootfsError
from monad_dagster.local.images.image_store import ImageStoreError
from monad_dagster.local.jobs import job_states
from monad_dagster.local.jobs.job_model import InstanceState, Job
from monad_dagster.local.jobs.job_nodes import Nodes
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.pools.pool_states import PoolState
from monad_dagster.local.runners.base import ImagePullError, RunnerError

if TYPE_CHECKING:
    from monad_dagster.local.jobs.job_services import JobServices

logger = logging.getLogger("monad_dagster.local")


class Placement:
    """Finds room for instances; containers start outside of the controller."""

    def __init__(self, jobs: "JobServices") -> None:
        self._jobs = jobs
        self._launching: set[tuple[str, int]] = set()

    def is_starting(self, job: Job, instance: InstanceState) -> bool:
        """Tell whether an instance's containers are being started now."""
        return (job.id, instance.index) in self._launching

    def place(self, job: Job, instance: InstanceState) -> None:
        """Give a waiting instance a node and start it; the controller's lock is held."""
        key = (job.id, instance.index)
        if key in self._launching:
            return
        if instance.node is None:
            message = self._find_node(job, instance)
            if message:
                self._jobs.set_messages(job, instance, message)
                return
            self._jobs.save(job)
        if cannot_pull(self._jobs.account.faults, job, instance):
            self._jobs.set_messages(job, instance, job_states.PULL_FAILED)
            return
        self._launching.add(key)
        self._jobs.starters.submit(self._launch, job, instance)

    def _find_node(self, job: Job, instance: InstanceState) -> str:
        """Give an instance a node; return why there is none, or nothing."""
        pools = pools_of(self._jobs.account)
        pool = pools.get(job.pool)
        if pool is None:
            return job_states.UNSCHEDULABLE
        clock = pools.clock(pool)
        if not clock.has_nodes:
            if clock.state is PoolState.SUSPENDED and pool.properties["AUTO_RESUME"]:
                pools.send(job.pool, "resume")
            return job_states.PROVISIONING
        occupied = (
            (other.node, self._jobs.need(owner)) for owner, other in self._jobs.placed(job.pool)
        )
        nodes = Nodes(occupied, pools.family(pool))
        node = nodes.place(self._jobs.need(job), clock.nodes)
        if node is None:
            may_grow = (
                nodes.place(self._jobs.need(job), int(pool.properties["MAX_NODES"])) is not None
            )
            return job_states.PROVISIONING if may_grow else job_states.UNSCHEDULABLE
        instance.node = node
        return ""

    def _launch(self, job: Job, instance: InstanceState) -> None:
        """Start an instance's containers; runs outside the controller, as images are unpacked."""
        spec = self._jobs.spec(job)
        self._name_instance(job, instance)
        for container, state in zip(spec.containers, instance.containers, strict=True):
            failure = ""
            running = None
            try:
                running = self._jobs.launcher.start(job, instance, container, spec)
            except (ImageRootfsError, ImageStoreError, ImagePullError) as error:
                failure = f"{job_states.PULL_FAILED}: {error}"
            except RunnerError as error:
                failure = f"{job_states.START_FAILED}: {error}"
            except Exception as error:
                logger.exception("container %s of %s cannot be started", container.name, job.fqn)
                failure = f"{job_states.START_FAILED}: {error}"
            with self._jobs.changed:
                if running is not None:
                    self._jobs.running[job.id, instance.index, container.name] = running
                    instance.launched = True
                    self._jobs.save(job)
                else:
                    state.exit_code = 127
                    self._jobs.set_container(job, instance, state, "FAILED", failure)
        with self._jobs.changed:
            instance.launched = True
            instance.started_at = instance.started_at or self._jobs.account.clock().timestamp()
            self._launching.discard((job.id, instance.index))
            self._jobs.save(job)
            if job.cancelling or job.is_terminal:
                self._jobs.terminate(job)
        self._jobs.wake()

    def _name_instance(self, job: Job, instance: InstanceState) -> None:
        """Give an instance its address and let the others resolve it."""
        try:
            with self._jobs.changed:
                self._jobs.launcher.give_address(job, instance, self._jobs.active())
                self._jobs.save(job)
                self.update_names(job)
        except (ImageRootfsError, ImageStoreError, RunnerError) as error:
            # The containers' own start meets the same and reports it.
            logger.warning("job service %s has no address: %s", job.fqn, error)

    def update_names(self, job: Job) -> None:
        """Let a job service's instances, and those that see it, resolve each other now."""
        active = self._jobs.active()
        declares = {other.id for other in [*active, job] if self._jobs.spec(other).has_endpoints}
        self._jobs.launcher.update_names(job, active, declares)
