"""What is watched beside the status: image, gang, pool and signs of life.

Each look warns, or raises `GivenUp` when the job service cannot succeed or must not go on being
paid for. Nothing here waits; the wait loop says when.
"""

from collections.abc import Callable

from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes import compat
from monad_dagster.pipes.failures import FailureClass, GivenUp, pending_failure
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.observations import MetricsObserver, StallDetector
from monad_dagster.pipes.outcome import Facts
from monad_dagster.pipes.wait import Watch
from monad_dagster.spcs import sql
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service_state import ContainerState, JobServiceStatus

POOL_SECONDS = 30.0
STALL_LOOK_SECONDS = 15.0
# What a container that has begun is called; anything else has not.
STARTED = ("READY", "DONE", "FAILED", "TERMINATING")


class Supervisor:
    """Watches one job service for its invocation."""

    def __init__(
        self,
        context: compat.ExecutionContext,
        name: QualifiedName,
        request: LaunchRequest,
        settings: InvocationSettings,
        *,
        facts: Facts,
        observer: MetricsObserver,
        image_digest: str | None,
        describe_pool: Callable[[], ComputePool],
    ) -> None:
        """Prepare watching; nothing is asked yet."""
        self._context = context
        self._log = context.log
        self._name = name
        self._request = request
        self._settings = settings
        self._facts = facts
        self._image_digest = image_digest
        self._describe_pool = describe_pool
        self._clock = settings.clock
        self._gang_since: float | None = None
        self._pool_message = ""
        self._stall = StallDetector(
            observer, after_seconds=settings.stall_seconds or 0.0, clock=settings.clock
        )
        self.pool: ComputePool | None = None

    def watches(self) -> tuple[Watch, ...]:
        """Return the looks that have an interval of their own."""
        pool = Watch(
            self._look_at_pool, while_pending=True, while_running=False, every_seconds=POOL_SECONDS
        )
        run = Watch(self._look_at_run, while_pending=True)
        if not self._settings.stall_seconds:
            return (pool, run)
        return (pool, Watch(self._look_for_stall, every_seconds=STALL_LOOK_SECONDS), run)

    def look_at_containers(
        self, status: JobServiceStatus, containers: list[ContainerState]
    ) -> None:
        """Check what runs: an image that can be had, the right one, every instance of a gang.

        Raises:
            GivenUp: The job service cannot succeed.
        """
        own = [c for c in containers if c.container_name in self._request.container_names]
        if status is JobServiceStatus.PENDING:
            hopeless = pending_failure(own)
            if hopeless is not None:
                message = next((c.message for c in own if c.message), "")
                raise GivenUp(hopeless, message)
        self._check_digest(own)
        self._check_gang(own)

    def _check_digest(self, own: list[ContainerState]) -> None:
        wanted = self._image_digest
        for container in own[:1]:
            observed = container.image_digest.removeprefix("@")
            self._facts.image_digest_observed = observed or self._facts.image_digest_observed
            if observed and wanted and observed != wanted:
                raise GivenUp(FailureClass.IMAGE, f"digest {observed} runs, {wanted} was asked for")

    def _check_gang(self, own: list[ContainerState]) -> None:
        """Replicas wait for one another: one that does not start lets all others burn money."""
        replicas = self._request.options.replicas or 1
        limit = self._settings.gang_timeout_seconds
        started = {c.instance_id for c in own if c.status.upper() in STARTED}
        if replicas == 1 or not started or len(started) >= replicas:
            self._gang_since = None
            return
        now = self._clock.now()
        if self._gang_since is None:
            self._gang_since = now
            self._log.info(f"{len(started)} of {replicas} instances of {self._name} have started.")
        waited = now - self._gang_since
        if limit is not None and waited > limit:
            missing = sorted(set(range(replicas)) - started)
            raise GivenUp(
                FailureClass.CAPACITY,
                f"instances {', '.join(map(str, missing))} of {replicas} did not start within "
                f"{waited:.0f} s of the first, and gang_timeout_seconds is {limit:.0f}",
            )

    def _look_at_pool(self) -> int:
        """Say what the pool says while the job service waits for a node."""
        try:
            self.pool = pool = self._describe_pool()
        except MonadDagsterError as error:
            self._log.debug(f"The compute pool could not be read, trying again: {error}")
            return 0
        message = f"{pool.state}: {pool.status_message}" if pool.status_message else pool.state
        if message == self._pool_message:
            return 0
        self._pool_message = message
        say = self._log.warning if pool.has_capacity_error else self._log.info
        nodes = f"{pool.active_nodes} of {pool.max_nodes} nodes in use"
        say(f"{self._name} waits for compute pool {pool.name} ({nodes}), which is {message}")
        return 1

    def _look_at_run(self) -> int:
        """Treat the end of a run that nobody told this process of as an interruption.

        A forced termination marks the run and may reach no worker; a run monitor declares a worker
        lost that is only slow, and a retry may follow the job service already.
        """
        try:
            ended = compat.run_has_been_ended(self._context)
        except Exception as error:
            self._log.debug(f"The run could not be read, trying again: {error}")
            return 0
        if ended:
            self._log.warning("The run has been ended from outside this process.")
            if compat.run_is_cancelling(self._context):
                # The multiprocess executor calls such a run failed, which a run retry would follow.
                compat.forbid_run_retry(self._context)
            raise compat.DagsterExecutionInterruptedError
        return 0

    def _look_for_stall(self) -> int:
        stopped = self._stall.look()
        if stopped is None:
            return 0
        if self._settings.cancel_stalled:
            raise GivenUp(FailureClass.STALLED, f"{stopped}, and cancel_stalled is set")
        warning = f"Job service {self._name} may hang: {stopped}."
        self._facts.warnings = [*self._facts.warnings, warning]
        self._log.warning(f"{warning} To end it: {sql.cancel_job_service(self._name)}")
        return 1
