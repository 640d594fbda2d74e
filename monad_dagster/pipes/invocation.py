"""One call of the client, from the plan to the recorded result.

The order is the point: look for an earlier launch, check the specification, submit and record in
one uninterruptible step, wait, drain every message, archive the log, and only then say how it
went.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from dagster import (
    MaterializeResult,
    PipesClientCompletedInvocation,
    PipesSession,
    open_pipes_session,
)

from monad_dagster.errors import (
    JobServiceTimeoutError,
    MonadDagsterError,
)
from monad_dagster.pipes import compat, outcome
from monad_dagster.pipes.context import StageContextInjector
from monad_dagster.pipes.failures import (
    Failure,
    FailureClass,
    classify,
    pending_failure,
)
from monad_dagster.pipes.interrupts import cancel_and_wait, handle_interrupt
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.ledger import Attempt, LaunchLedger, Plan
from monad_dagster.pipes.logs import LogFollower
from monad_dagster.pipes.messages import StageMessageReader
from monad_dagster.pipes.observations import MetricsObserver
from monad_dagster.pipes.records import resolve_image_digest, write_lineage
from monad_dagster.pipes.wait import JobServiceWaiter, Progress, Watch
from monad_dagster.spcs.compute_pool import describe_compute_pool, family_of
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import (
    ContainerState,
    JobOptions,
    JobServiceDescription,
    JobServices,
    JobServiceStatus,
    containers_from_history,
)
from monad_dagster.spcs.spec import JobSpec
from monad_dagster.spcs.spec_checks import require_valid
from monad_dagster.spcs.stage import StageClient


class Invocation:
    """Runs one request for one step."""

    def __init__(
        self,
        context: compat.ExecutionContext,
        session: Session,
        request: LaunchRequest,
        settings: InvocationSettings,
        image_digest: str | None = None,
    ) -> None:
        """Prepare; nothing is sent yet."""
        self._context = context
        self._session = session
        self._request = request
        self._settings = settings
        self._services = JobServices(session)
        self._stage = StageClient(session)
        self._image_digest = image_digest
        self._facts = outcome.Facts(
            compute_pool=settings.compute_pool, replicas=request.options.replicas
        )

    # --- before the launch ---------------------------------------------------------------------

    def run(self, extras: Mapping[str, Any]) -> PipesClientCompletedInvocation:
        """Launch or reattach, wait, and return the results."""
        pool = describe_compute_pool(self._session, self._settings.compute_pool)
        self._family = family_of(self._session, pool)
        self._facts.instance_family = pool.instance_family
        ledger = LaunchLedger(self._context, self._services)
        plan = self._plan(ledger)
        attempt = plan.attempt
        spec = self._request.spec_for(attempt, self._family)
        if plan.found is None:
            replicas = self._request.options.replicas or 1
            self._facts.warnings = [
                *require_valid(spec, self._family),
                *pool.warnings(replicas=replicas),
            ]
            for warning in self._facts.warnings:
                self._context.log.warning(warning)
            self._image_digest = self._image_digest or resolve_image_digest(
                self._session, spec.main.image
            )
        else:
            self._image_digest = self._image_digest or plan.extras.get("image_digest")
        self._note_plan(plan, spec)
        with self._open_session(plan, extras) as session:
            self._follow(session, ledger, plan, spec)
        self._facts.num_messages = self._reader.num_messages
        results = session.get_results(implicit_materializations=False)
        write_lineage(
            self._context,
            self._session,
            self._settings.lineage_table,
            self._request,
            self._facts,
            [r for r in results if isinstance(r, MaterializeResult)],
        )
        return PipesClientCompletedInvocation(session, metadata=dict(self._facts.metadata()))

    def _plan(self, ledger: LaunchLedger) -> Plan:
        context = self._context
        return ledger.plan(
            asset=self._asset_name(),
            partition=compat.partition_key_of(context),
            schema=self._request.stage.stage,
            prefix=self._settings.job_name_prefix,
            spec_sha256=lambda attempt: self._request.spec_for(attempt, self._family).sha256,
            may_resume=self._may_resume,
        )

    def _asset_name(self) -> str:
        if self._context.has_assets_def:
            return "_".join("_".join(key.path) for key in sorted(self._context.selected_asset_keys))
        return compat.step_key_of(self._context)

    def _may_resume(self, found: JobServiceDescription) -> bool:
        """Whether a failed job service left something its successor can continue."""
        if not self._request.options.resume_args:
            return False
        output_name = found.labels.get("output_name")
        directory = self._request.output_directory(str(output_name)) if output_name else None
        if directory is None or not self._classify(found.status, found.name).retry:
            return False
        return bool(self._stage.list(directory))

    def _note_plan(self, plan: Plan, spec: JobSpec) -> None:
        facts, attempt = self._facts, plan.attempt
        output = self._request.output_directory(attempt.output_name)
        facts.job_name = str(attempt.name)
        facts.attempt = attempt.number
        facts.resumed = attempt.resumed
        facts.reattached = plan.found is not None
        facts.image_ref = spec.main.image
        facts.image_digest = self._image_digest
        facts.spec_sha256 = spec.sha256
        facts.spec_yaml = spec.to_yaml(redacted=True)
        facts.output_path = str(output) if output else None
        facts.run_directory = str(self._request.run_directory(attempt))
        facts.query_id = plan.extras.get("query_id")

    def _open_session(self, plan: Plan, extras: Mapping[str, Any]) -> Any:
        run_directory = self._request.run_directory(plan.attempt)
        mounted = self._request.mounted(run_directory)
        self._observer = MetricsObserver(
            self._context,
            interval_seconds=self._settings.observation_interval_seconds,
            clock=self._settings.clock,
        )
        self._reader = StageMessageReader(
            self._stage, run_directory, mounted=mounted, on_custom_message=self._observer
        )
        injector = StageContextInjector(
            self._stage, run_directory, mounted=mounted, write=plan.found is None
        )
        sent = {
            **extras,
            "inputs": self._inputs_for_container(),
            "attempt": plan.attempt.number,
            "job_service": plan.attempt.name.name,
        }
        return open_pipes_session(self._context, injector, self._reader, extras=sent)

    def _inputs_for_container(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {item.name: item.version for item in self._request.inputs}
        if self._image_digest:
            inputs["image_digest"] = self._image_digest
        return inputs

    # --- launch and wait -----------------------------------------------------------------------

    def _follow(
        self, session: PipesSession, ledger: LaunchLedger, plan: Plan, spec: JobSpec
    ) -> None:
        name = plan.attempt.name
        self._logs = LogFollower(
            self._services,
            name,
            containers=self._request.container_names,
            replicas=self._request.options.replicas or 1,
        )
        try:
            if plan.found is None:
                self._launch(session, ledger, plan.attempt, spec)
            else:
                self._reattach(ledger, plan)
            progress = self._waiter(plan).wait()
        except compat.INTERRUPTS:
            outcome_status = handle_interrupt(
                self._context,
                self._services,
                name,
                policy=self._settings.on_interrupt,
                forward_termination=self._settings.forward_termination,
                clock=self._settings.clock,
            )
            self._context.log.info(f"Job service {name} after the interrupt: {outcome_status}.")
            raise
        except (JobServiceTimeoutError, _Refused) as error:
            self._give_up(name, plan.attempt, error)
        else:
            self._conclude(name, plan, progress)
        finally:
            self._logs.close()

    def _launch(
        self, session: PipesSession, ledger: LaunchLedger, attempt: Attempt, spec: JobSpec
    ) -> None:
        variables = {
            **session.get_bootstrap_env_vars(),
            **self._request.launch_variables(attempt),
        }
        labels = {
            **session.default_remote_invocation_info,
            "run_id": self._context.run.run_id,
            "deployment": compat.deployment_id(self._context.instance),
            "attempt": attempt.number,
            "output_name": attempt.output_name,
            "resumed": attempt.resumed,
            "image_digest": self._image_digest,
        }
        options = JobOptions(
            compute_pool=self._settings.compute_pool,
            query_warehouse=self._settings.query_warehouse,
            external_access_integrations=self._settings.external_access_integrations,
            replicas=self._request.options.replicas,
            labels=labels,
        )
        # A signal between the accepted statement and its record waits until both are through.
        with compat.deferred_interrupts():
            submission = self._services.submit(attempt.name, spec.with_env(variables), options)
            self._facts.query_id = submission.query_id
            self._facts.reattached = submission.adopted
            ledger.record_launch(
                attempt,
                query_id=submission.query_id,
                extras={
                    "spec_sha256": spec.sha256,
                    "image_digest": self._image_digest,
                    "compute_pool": self._settings.compute_pool,
                    "output_path": self._facts.output_path,
                    "run_directory": self._facts.run_directory,
                },
            )
        self._context.log.info(
            f"Submitted job service {attempt.name} (attempt {attempt.number}, query "
            f"{submission.query_id}) to compute pool {self._settings.compute_pool}."
        )

    def _reattach(self, ledger: LaunchLedger, plan: Plan) -> None:
        ledger.record_reattach(plan)
        status = plan.found.raw_status if plan.found else ""
        self._context.log.info(
            f"Reattached to job service {plan.attempt.name}, which is {status}; nothing was "
            "submitted."
        )

    def _waiter(self, plan: Plan) -> JobServiceWaiter:
        created = plan.found.created_on if plan.found else None
        return JobServiceWaiter(
            self._services,
            plan.attempt.name,
            limits=self._settings.limits,
            clock=self._settings.clock,
            log=self._context.log.info,
            warn=self._context.log.warning,
            watches=(
                Watch(self._poll_messages),
                Watch(self._logs.poll),
                Watch(self._check_run, while_pending=True),
            ),
            on_containers=self._check_containers,
            is_closed=lambda: self._reader.closed,
            submitted_at=created.timestamp() if created else None,
        )

    def _poll_messages(self) -> int:
        try:
            return self._reader.poll()
        except MonadDagsterError as error:
            self._context.log.debug(f"Messages could not be read, trying again: {error}")
            return 0

    def _check_run(self) -> int:
        """Treat the end of a run that nobody told this process of as an interruption.

        A forced termination marks the run and may reach no worker; a run monitor declares a worker
        lost that is only slow, and a retry may follow the job service already.
        """
        try:
            ended = compat.run_has_been_ended(self._context)
        except Exception as error:
            self._context.log.debug(f"The run could not be read, trying again: {error}")
            return 0
        if ended:
            raise compat.DagsterExecutionInterruptedError
        return 0

    def _check_containers(self, status: JobServiceStatus, containers: list[ContainerState]) -> None:
        own = [c for c in containers if c.container_name in self._request.container_names]
        if status is JobServiceStatus.PENDING:
            hopeless = pending_failure(own)
            if hopeless is not None:
                message = next((c.message for c in own if c.message), "")
                raise _Refused(hopeless, message)
        for container in own[:1]:
            observed = container.image_digest.removeprefix("@")
            self._facts.image_digest_observed = observed or self._facts.image_digest_observed
            if observed and self._image_digest and observed != self._image_digest:
                raise _Refused(
                    FailureClass.IMAGE,
                    f"digest {observed} runs, {self._image_digest} was asked for",
                )

    # --- after the end -------------------------------------------------------------------------

    def _conclude(self, name: QualifiedName, plan: Plan, progress: Progress) -> None:
        self._drain(progress)
        self._logs.poll()
        self._note_end(name, plan, progress)
        if progress.status is not JobServiceStatus.DONE:
            self._fail(plan.attempt, self._classify(progress.status, name, progress))
        if self._reader.closed_with_exception:
            self._fail(plan.attempt, Failure(FailureClass.USER_CODE, "DONE", 0, "script raised"))
        missing = self._missing_results()
        if missing:
            self._fail(plan.attempt, Failure(FailureClass.RESULTS_INCOMPLETE, "DONE", 0, missing))

    def _drain(self, progress: Progress) -> None:
        """Take late messages: after success until `closed`, after a failure what is there."""
        clock = self._settings.clock
        succeeded = progress.status is JobServiceStatus.DONE
        limit = self._settings.drain_timeout_seconds if succeeded else 0.0
        deadline = clock.now() + limit
        while True:
            found = self._poll_messages()
            if self._reader.closed or (not found and clock.now() >= deadline):
                break
            clock.sleep(min(1.0, self._settings.limits.poll_seconds))
        self._observer.flush()

    def _missing_results(self) -> str:
        reader = self._reader
        if not reader.closed:
            came = "; ".join(
                part for part in (f"{reader.num_messages} messages came", reader.held_back) if part
            )
            return f"the script never said that it was through ({came})"
        if reader.problems:
            return "; ".join(reader.problems[:3])
        if not self._request.options.require_materialization or not self._context.has_assets_def:
            return ""
        results = self._reader_results()
        reported = {r.asset_key for r in results if isinstance(r, MaterializeResult)}
        absent = sorted(
            key.to_user_string() for key in self._context.selected_asset_keys - reported
        )
        return f"no materialization came for {', '.join(absent)}" if absent else ""

    def _reader_results(self) -> list[Any]:
        handler = self._reader.handler
        return list(handler.get_reported_results()) if handler is not None else []

    def _note_end(self, name: QualifiedName, plan: Plan, progress: Progress) -> None:
        facts = self._facts
        facts.status = progress.raw_status
        containers = self._services.containers(name) or progress.containers
        progress.containers = containers
        own = [c for c in containers if c.container_name in self._request.container_names]
        if own:
            facts.exit_code = own[0].last_exit_code
            facts.restart_count = own[0].restart_count
            facts.image_digest_observed = (
                own[0].image_digest.removeprefix("@") or facts.image_digest_observed
            )
        row = self._services.find_in_history(name=name) or {}
        completed = row.get("completed_time")
        progress.correct(
            started=own[0].started_on if own else None,
            completed=completed if isinstance(completed, datetime) else None,
        )
        facts.note_times(progress, self._settings.credits_per_hour)
        archived = self._logs.archive(self._stage, self._request.run_directory(plan.attempt))
        facts.log_path = str(archived) if archived else None

    def _classify(
        self, status: JobServiceStatus, name: QualifiedName, progress: Progress | None = None
    ) -> Failure:
        containers = progress.containers if progress else self._services.containers(name)
        if not containers:
            row = self._services.find_in_history(name=name)
            containers = containers_from_history(row) if row else []
        return classify(
            status,
            containers,
            own_containers=self._request.container_names,
            reported_exception=progress is not None and self._reader.closed_with_exception,
        )

    def _give_up(self, name: QualifiedName, attempt: Attempt, error: Exception) -> NoReturn:
        """Cancel a job service that can no longer succeed, then fail."""
        self._context.log.warning(f"Cancelling job service {name}: {error}")
        status = cancel_and_wait(
            self._services, name, clock=self._settings.clock, log=self._context.log.info
        )
        self._facts.status = status
        if isinstance(error, _Refused):
            failure = Failure(error.failure_class, status, None, error.observed)
        else:
            failure = Failure(FailureClass.CANCELLED, status, None, str(error))
        self._fail(attempt, failure)

    def _fail(self, attempt: Attempt, failure: Failure) -> NoReturn:
        outcome.raise_failure(
            self._context,
            attempt,
            failure,
            facts=self._facts,
            log_tail=tuple(self._logs.tail),
            max_retries=self._settings.max_infrastructure_retries,
            retry_delay_seconds=self._settings.retry_delay_seconds,
        )


class _Refused(Exception):
    """Seen while waiting: the job service cannot succeed."""

    def __init__(self, failure_class: FailureClass, observed: str) -> None:
        super().__init__(observed)
        self.failure_class = failure_class
        self.observed = observed
