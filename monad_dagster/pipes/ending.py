"""What happens once a job service has ended: messages, log, facts, and the verdict.

The order is the point: first everything that can still be fetched is fetched and archived, then a
failure is raised, so that no failure costs its own evidence.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from dagster import MaterializeResult

from monad_dagster.errors import JobServiceTimeoutError, MonadDagsterError, SnowflakeError
from monad_dagster.pipes import compat, outcome
from monad_dagster.pipes.failures import Failure, FailureClass, GivenUp, classify, queue_failure
from monad_dagster.pipes.interrupts import cancel_and_wait
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.ledger import Attempt
from monad_dagster.pipes.logs import LogFollower
from monad_dagster.pipes.messages import StageMessageReader
from monad_dagster.pipes.observations import MetricsObserver
from monad_dagster.pipes.wait import Progress
from monad_dagster.spcs import sql
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import (
    ContainerState,
    JobServiceStatus,
    containers_from_history,
)
from monad_dagster.spcs.stage import StageClient

STILL_RUNNING = ("PENDING", "READY", "TERMINATING")
# Snowflake gives containers 30 s from SIGTERM to SIGKILL; the rest is slack.
SURVIVORS_SECONDS = 60.0


class Ending:
    """Concludes one attempt of an invocation."""

    def __init__(
        self,
        context: compat.ExecutionContext,
        attempt: Attempt,
        request: LaunchRequest,
        settings: InvocationSettings,
        *,
        services: JobServices,
        stage: StageClient,
        facts: outcome.Facts,
        reader: StageMessageReader,
        observer: MetricsObserver,
        logs: LogFollower,
    ) -> None:
        """Prepare; nothing is asked yet."""
        self._context = context
        self._attempt = attempt
        self._request = request
        self._settings = settings
        self._services = services
        self._stage = stage
        self._facts = facts
        self._reader = reader
        self._observer = observer
        self._logs = logs

    @property
    def _name(self) -> QualifiedName:
        return self._attempt.name

    def conclude(self, progress: Progress) -> None:
        """Take what is left and return when the results are complete.

        Raises:
            dagster.RetryRequested: The platform failed and another attempt is allowed.
            dagster.Failure: The job service failed for good, or its results are incomplete.
        """
        self._drain(progress)
        self._logs.poll()
        self._note_end(progress)
        if progress.status is not JobServiceStatus.DONE:
            self._end_survivors(progress)
            self._fail(self._classify(progress))
        if self._reader.closed_with_exception:
            self._fail(Failure(FailureClass.USER_CODE, "DONE", 0, "script raised"))
        missing = self._missing_results()
        if missing:
            self._fail(Failure(FailureClass.RESULTS_INCOMPLETE, "DONE", 0, missing))

    def give_up(self, error: Exception, progress: Progress, pool: ComputePool | None) -> NoReturn:
        """Cancel a job service that can no longer succeed, then fail.

        Raises:
            dagster.RetryRequested: The platform was to blame and another attempt is allowed.
            dagster.Failure: No attempt follows.
        """
        self._context.log.warning(f"Cancelling job service {self._name}: {error}")
        status = self._cancelled(progress)
        progress.status = JobServiceStatus.parse(status)
        progress.raw_status = status
        progress.ended_at = progress.ended_at or self._settings.clock.now()
        self._drain(progress)
        self._logs.poll()
        self._note_end(progress)
        self._fail(self._given_up(error, status, progress, pool))

    def _cancelled(self, progress: Progress) -> str:
        """Cancel and return the last status; a refusal costs the verdict nothing."""
        try:
            return cancel_and_wait(
                self._services, self._name, clock=self._settings.clock, log=self._context.log.info
            )
        except SnowflakeError as error:
            self._context.log.error(
                f"Job service {self._name} was not cancelled: {error} "
                f"Cancel it by hand: {sql.cancel_job_service(self._name)}"
            )
            return progress.raw_status

    def _given_up(
        self, error: Exception, status: str, progress: Progress, pool: ComputePool | None
    ) -> Failure:
        if isinstance(error, GivenUp):
            return Failure(error.failure_class, status, None, error.observed)
        if isinstance(error, JobServiceTimeoutError) and progress.running_at is None:
            replicas = self._request.options.replicas or 1
            failure_class = queue_failure(progress.containers, pool, num_nodes=replicas)
            return Failure(failure_class, status, None, str(error))
        return Failure(FailureClass.TIMED_OUT, status, None, str(error))

    # --- messages ------------------------------------------------------------------------------

    def poll_messages(self) -> int:
        """Take the messages that are there; a stage that cannot be read is asked again later."""
        try:
            return self._reader.poll()
        except MonadDagsterError as error:
            self._context.log.debug(f"Messages could not be read, trying again: {error}")
            return 0

    def _drain(self, progress: Progress) -> None:
        """Take late messages: after success until `closed`, after a failure what is there."""
        clock = self._settings.clock
        expected = progress.status is JobServiceStatus.DONE and self._request.options.speaks_pipes
        limit = self._settings.drain_timeout_seconds if expected else 0.0
        deadline = clock.now() + limit
        while True:
            found = self.poll_messages()
            if self._reader.closed or (not found and clock.now() >= deadline):
                break
            clock.sleep(min(1.0, self._settings.limits.poll_seconds))
        self._observer.flush()

    def _missing_results(self) -> str:
        reader = self._reader
        if not self._request.options.speaks_pipes:
            return ""
        if not reader.closed:
            held_back = f"; {reader.held_back}" if reader.held_back else ""
            came = f"{reader.num_messages} messages came{held_back}"
            return f"the script never said that it was through ({came})"
        if reader.problems:
            return "; ".join(reader.problems[:3])
        if not self._request.options.require_materialization or not self._context.has_assets_def:
            return ""
        handler = reader.handler
        results = list(handler.get_reported_results()) if handler is not None else []
        reported = {r.asset_key for r in results if isinstance(r, MaterializeResult)}
        absent = sorted(
            key.to_user_string() for key in self._context.selected_asset_keys - reported
        )
        return f"no materialization came for {', '.join(absent)}" if absent else ""

    # --- facts ---------------------------------------------------------------------------------

    def _note_end(self, progress: Progress) -> None:
        facts = self._facts
        facts.status = progress.raw_status
        row = self._history_row()
        containers = self._containers(row) or progress.containers
        progress.containers = containers
        own = [c for c in containers if c.container_name in self._request.container_names]
        facts.note_containers(own)
        completed = row.get("completed_time")
        started = [c.started_on for c in own if c.started_on is not None]
        progress.correct(
            started=min(started, default=None),
            completed=completed if isinstance(completed, datetime) else None,
        )
        facts.note_times(progress, self._settings.credits_per_hour)
        facts.num_messages = self._reader.num_messages
        self._archive_log(progress)

    def _history_row(self) -> Mapping[str, Any]:
        try:
            return self._services.find_in_history(name=self._name) or {}
        except SnowflakeError as error:
            self._context.log.warning(f"The job history could not be read: {error}")
            return {}

    def _containers(self, row: Mapping[str, Any]) -> list[ContainerState]:
        try:
            containers = self._services.containers(self._name)
        except SnowflakeError as error:
            self._context.log.warning(f"The containers of {self._name} could not be read: {error}")
            containers = []
        return containers or (containers_from_history(row) if row else [])

    def _archive_log(self, progress: Progress) -> None:
        ran = progress.running_at is not None
        archived = self._logs.archive(
            self._stage,
            self._request.log_path(self._attempt),
            clock=self._settings.clock,
            wait_seconds=self._settings.log_wait_seconds if ran else 0.0,
        )
        self._facts.log_path = str(archived) if archived else None
        if self._logs.not_archived:
            self._context.log.warning(
                f"The log of {self._name} was not archived: {self._logs.not_archived}"
            )
        self._facts.log_complete = self._logs.is_complete if ran else None
        if ran and not self._logs.is_complete:
            self._context.log.warning(
                f"The log of {self._name} is not complete: lines left the node before they were "
                f"read, and did not reach the event table within "
                f"{self._settings.log_wait_seconds:.0f} s. Later: monad-dagster logs "
                f"{self._name.name}"
            )

    # --- the verdict ---------------------------------------------------------------------------

    def _end_survivors(self, progress: Progress) -> None:
        """End the instances that go on after another one failed; nothing comes of them."""
        going_on = [c for c in progress.containers if c.status.upper() in STILL_RUNNING]
        if not going_on or (self._request.options.replicas or 1) == 1:
            return
        self._context.log.warning(
            f"{len(going_on)} containers of {self._name} go on after the failure; they are ended."
        )
        try:
            self._services.cancel(self._name)
            self._wait_for_survivors()
        except SnowflakeError as error:
            self._context.log.debug(f"They end by themselves: {error}")

    def _wait_for_survivors(self) -> None:
        """Wait, within a bound, until no instance can write what the next attempt continues."""
        clock = self._settings.clock
        deadline = clock.now() + SURVIVORS_SECONDS
        while any(c.status.upper() in STILL_RUNNING for c in self._services.containers(self._name)):
            if clock.now() >= deadline:
                self._context.log.warning(f"Instances of {self._name} have not ended yet.")
                return
            clock.sleep(1.0)

    def _classify(self, progress: Progress) -> Failure:
        failure = classify(
            progress.status,
            progress.containers,
            own_containers=self._request.container_names,
            reported_exception=self._reader.closed_with_exception,
        )
        return failure.explained_by(self._logs.tail(failure.instance_id, failure.container))

    def _fail(self, failure: Failure) -> NoReturn:
        outcome.raise_failure(
            self._context,
            self._attempt,
            failure,
            facts=self._facts,
            log_tail=tuple(self._logs.tail(failure.instance_id, failure.container)),
            max_retries=self._settings.max_infrastructure_retries,
            retry_delay_seconds=self._settings.retry_delay_seconds,
        )
