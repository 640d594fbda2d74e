"""One call of the client, from the plan to the recorded result.

The order is the point: look for an earlier launch, check the specification, submit and record in
one uninterruptible step, wait, drain every message, archive the log, and only then say how it
went.
"""

from collections.abc import Mapping
from typing import Any

from dagster import (
    DagsterExecutionInterruptedError,
    Failure,
    MaterializeResult,
    PipesClientCompletedInvocation,
    PipesSession,
    open_pipes_session,
)

from monad_dagster.errors import JobServiceTimeoutError, MonadDagsterError
from monad_dagster.pipes import compat, outcome
from monad_dagster.pipes.context import StageContextInjector
from monad_dagster.pipes.ending import Ending
from monad_dagster.pipes.failures import GivenUp, classify
from monad_dagster.pipes.interrupts import handle_interrupt, warn_of_detachment
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.ledger import Attempt, LaunchLedger, Plan
from monad_dagster.pipes.logs import LogFollower
from monad_dagster.pipes.messages import StageMessageReader
from monad_dagster.pipes.observations import MetricsObserver
from monad_dagster.pipes.preparation import (
    launch_warnings,
    newest_manifest,
    refuse_repeated_failure,
    resolve_image_digest,
)
from monad_dagster.pipes.records import write_lineage
from monad_dagster.pipes.submission import Submitter
from monad_dagster.pipes.supervision import Supervisor
from monad_dagster.pipes.wait import JobServiceWaiter, Watch
from monad_dagster.spcs.compute_pool import describe_compute_pool, family_of
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import JobServiceDescription, containers_from_history
from monad_dagster.spcs.spec import JobSpec
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
        self._waiting: JobServiceWaiter | None = None
        self._facts = outcome.Facts(
            compute_pool=settings.compute_pool, replicas=request.options.replicas
        )

    # --- before the launch ---------------------------------------------------------------------

    def run(self, extras: Mapping[str, Any]) -> PipesClientCompletedInvocation:
        """Launch or reattach, wait, and return the results."""
        self._refuse_a_cancelled_run()
        ledger = LaunchLedger(self._context, self._services, self._settings.clock)
        try:
            self._pool = describe_compute_pool(self._session, self._settings.compute_pool)
            self._family = family_of(self._session, self._pool)
            self._facts.instance_family = self._pool.instance_family
            plan = self._plan(ledger)
        except compat.INTERRUPTS:
            with compat.deferred_interrupts():
                self._interrupted_before_the_plan(ledger)
            raise
        # From here on the job service may be there; whoever leaves has to say what becomes of it.
        self._submitter = Submitter(
            self._context,
            self._request,
            self._settings,
            services=self._services,
            ledger=ledger,
            facts=self._facts,
            plan=plan,
        )
        try:
            return self._run_planned(plan, extras)
        except compat.INTERRUPTS:
            # A terminal sends the signal to every process, and the executor forwards it once more.
            with compat.deferred_interrupts():
                self._interrupted(plan)
            raise
        except compat.VERDICTS:
            raise
        except Exception:
            # Nobody asked for the end of the job service; say that it is still there.
            if self._submitter.may_exist and not self._has_ended:
                warn_of_detachment(self._context, plan.attempt.name)
            raise

    def _run_planned(self, plan: Plan, extras: Mapping[str, Any]) -> PipesClientCompletedInvocation:
        spec = self._request.spec_for(plan.attempt, self._family)
        if plan.found is None:
            self._check_launch(spec)
        else:
            self._image_digest = self._image_digest or plan.extras.get("image_digest")
        self._note_plan(plan, spec)
        with self._open_session(plan, extras) as session:
            self._follow(session, plan, spec)
        results = session.get_results(
            implicit_materializations=not self._request.options.speaks_pipes
        )
        write_lineage(
            self._context,
            self._session,
            self._settings.lineage_table,
            self._request,
            self._facts,
            [r for r in results if isinstance(r, MaterializeResult)],
        )
        return PipesClientCompletedInvocation(session, metadata=dict(self._facts.metadata()))

    def _refuse_a_cancelled_run(self) -> None:
        """Launch nothing for a run that a user has cancelled.

        A RetryPolicy makes Dagster turn an interrupt into a retry, and the in-process executor
        would start the step, and another job service, again.
        """
        if self._context.retry_number and compat.run_is_cancelling(self._context):
            raise Failure(
                "The run is being cancelled; no further attempt is launched.", allow_retries=False
            ) from DagsterExecutionInterruptedError()

    def _check_launch(self, spec: JobSpec) -> None:
        """Say what is wrong or unwise before anything is paid for."""
        self._image_digest = self._image_digest or resolve_image_digest(
            self._session, spec.main.image
        )
        refuse_repeated_failure(
            self._context, self._request.fingerprint(self._family, self._image_digest)
        )
        self._facts.warnings = launch_warnings(
            self._context,
            self._session,
            self._pool,
            self._family,
            spec,
            self._request,
            self._settings,
        )
        for warning in self._facts.warnings:
            self._context.log.warning(warning)

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
        """Whether a failed job service left a complete checkpoint that its successor continues."""
        if not self._request.options.resume_args:
            return False
        output_name = found.labels.get("output_name")
        directory = self._request.output_directory(str(output_name)) if output_name else None
        if directory is None or not self._lost_to_the_platform(found):
            return False
        manifest = newest_manifest(self._stage.list(directory))
        self._facts.resumed_from = str(manifest) if manifest else None
        return manifest is not None

    def _lost_to_the_platform(self, found: JobServiceDescription) -> bool:
        containers = self._services.containers(found.name)
        if not containers:
            row = self._services.find_in_history(name=found.name)
            containers = containers_from_history(row) if row else []
        failure = classify(found.status, containers, own_containers=self._request.container_names)
        return failure.retry

    def _note_plan(self, plan: Plan, spec: JobSpec) -> None:
        facts, attempt = self._facts, plan.attempt
        output = self._request.output_directory(attempt.output_name)
        facts.job_name = str(attempt.name)
        facts.attempt = attempt.number
        facts.resumed = attempt.resumed
        facts.resumed_from = facts.resumed_from or plan.extras.get("resumed_from")
        facts.reattached = plan.found is not None
        facts.image_ref = spec.main.image
        facts.image_digest = self._image_digest
        facts.spec_sha256 = spec.sha256
        facts.request_sha256 = self._request.fingerprint(self._family, self._image_digest)
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

    def _follow(self, session: PipesSession, plan: Plan, spec: JobSpec) -> None:
        self._logs = LogFollower(
            self._services,
            plan.attempt.name,
            containers=self._request.container_names,
            replicas=self._request.options.replicas or 1,
            started=plan.found.created_on if plan.found else None,
        )
        ending = self._ending(plan.attempt)
        supervisor = self._supervisor(plan)
        waiter = self._waiter(plan, supervisor, ending)
        self._waiting = waiter
        try:
            if plan.found is None:
                self._submitter.launch(session, spec, self._image_digest)
            else:
                self._submitter.reattach()
            try:
                progress = waiter.wait()
            except (JobServiceTimeoutError, GivenUp) as error:
                ending.give_up(error, waiter.progress, supervisor.pool)
            ending.conclude(progress)
        finally:
            self._logs.close()

    @property
    def _has_ended(self) -> bool:
        return self._waiting is not None and self._waiting.progress.status.is_terminal

    def _interrupted_before_the_plan(self, ledger: LaunchLedger) -> None:
        """Treat what an earlier run has launched as if this one had found it already."""
        handle = ledger.latest_handle()
        try:
            name = QualifiedName.parse(handle.external_run_id) if handle else None
            found = self._services.describe(name) if name else None
        except MonadDagsterError as error:
            self._context.log.warning(f"What runs already could not be looked up: {error}")
            return
        if found is None or found.status.is_terminal:
            self._context.log.info("Interrupted before anything was launched.")
        else:
            self._end_or_leave(found.name)

    def _interrupted(self, plan: Plan) -> None:
        name = plan.attempt.name
        if not self._submitter.may_exist:
            self._context.log.info("Interrupted before anything was launched.")
            return
        if self._has_ended:
            self._context.log.info(
                f"Interrupted after job service {name} had ended; a retry reads its results again."
            )
            return
        self._end_or_leave(name)

    def _end_or_leave(self, name: QualifiedName) -> None:
        status = handle_interrupt(
            self._context,
            self._services,
            name,
            policy=self._settings.on_interrupt,
            forward_termination=self._settings.forward_termination,
            clock=self._settings.clock,
        )
        self._context.log.info(f"Job service {name} after the interrupt: {status}.")

    def _supervisor(self, plan: Plan) -> Supervisor:
        return Supervisor(
            self._context,
            plan.attempt.name,
            self._request,
            self._settings,
            facts=self._facts,
            observer=self._observer,
            image_digest=self._image_digest,
            describe_pool=lambda: describe_compute_pool(self._session, self._settings.compute_pool),
        )

    def _ending(self, attempt: Attempt) -> Ending:
        return Ending(
            self._context,
            attempt,
            self._request,
            self._settings,
            services=self._services,
            stage=self._stage,
            facts=self._facts,
            reader=self._reader,
            observer=self._observer,
            logs=self._logs,
        )

    def _waiter(self, plan: Plan, supervisor: Supervisor, ending: Ending) -> JobServiceWaiter:
        created = plan.found.created_on if plan.found else None
        return JobServiceWaiter(
            self._services,
            plan.attempt.name,
            limits=self._settings.limits,
            clock=self._settings.clock,
            log=self._context.log.info,
            warn=self._context.log.warning,
            watches=(
                Watch(ending.poll_messages),
                Watch(self._logs.poll),
                *supervisor.watches(),
            ),
            on_containers=supervisor.look_at_containers,
            is_closed=lambda: self._reader.closed,
            submitted_at=created.timestamp() if created else None,
        )
