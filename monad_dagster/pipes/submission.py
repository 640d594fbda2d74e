"""The submission of an attempt and its record, as one step that no signal comes between."""

from dagster import PipesSession

from monad_dagster.errors import ConnectionFailedError, MonadDagsterError
from monad_dagster.pipes import compat, outcome
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.pipes.ledger import Attempt, LaunchLedger, Plan
from monad_dagster.pipes.places import LOG_LABEL
from monad_dagster.spcs.job_service import JobOptions, JobServices, Submission
from monad_dagster.spcs.spec import JobSpec


class Submitter:
    """Submits the attempt of a plan, or records that its job service was found.

    Attributes:
        may_exist: Whether the job service may be there; whoever leaves has to say what becomes of
            it.
    """

    def __init__(
        self,
        context: compat.ExecutionContext,
        request: LaunchRequest,
        settings: InvocationSettings,
        *,
        services: JobServices,
        ledger: LaunchLedger,
        facts: outcome.Facts,
        plan: Plan,
    ) -> None:
        """Prepare; nothing is sent yet."""
        self._context = context
        self._request = request
        self._settings = settings
        self._services = services
        self._ledger = ledger
        self._facts = facts
        self._plan = plan
        self.may_exist = plan.found is not None

    def launch(self, session: PipesSession, spec: JobSpec, image_digest: str | None) -> None:
        """Submit the attempt and record it.

        Args:
            session: The Pipes session that the container is to join.
            spec: What the attempt runs.
            image_digest: The digest that its tag has.
        """
        attempt = self._plan.attempt
        launched = spec.with_env(
            {
                **session.get_bootstrap_env_vars(),
                **self._request.launch_variables(attempt),
            }
        )
        options = self._options(session, image_digest)
        # A signal between the accepted statement and its record waits until both are through.
        with compat.deferred_interrupts():
            submission = self._submit(attempt, launched, options)
            self._facts.query_id = submission.query_id
            self._facts.reattached = submission.adopted
            self._ledger.record_launch(
                attempt,
                query_id=submission.query_id,
                extras={
                    "spec_sha256": spec.sha256,
                    "image_digest": image_digest,
                    "compute_pool": self._settings.compute_pool,
                    "output_path": self._facts.output_path,
                    "run_directory": self._facts.run_directory,
                },
            )
        self._context.log.info(
            f"Submitted job service {attempt.name} (attempt {attempt.number}, query "
            f"{submission.query_id}) to compute pool {self._settings.compute_pool}."
        )

    def reattach(self) -> None:
        """Record that this run watches a job service that was there before."""
        self._ledger.record_reattach(self._plan)
        status = self._plan.found.raw_status if self._plan.found else ""
        self._context.log.info(
            f"Reattached to job service {self._plan.attempt.name}, which is {status}; nothing was "
            "submitted."
        )

    def _options(self, session: PipesSession, image_digest: str | None) -> JobOptions:
        attempt = self._plan.attempt
        labels = {
            **session.default_remote_invocation_info,
            "run_id": self._context.run.run_id,
            "asset": asset_label(self._context),
            "deployment": compat.deployment_id(self._context.instance),
            "attempt": attempt.number,
            "output_name": attempt.output_name,
            "resumed": attempt.resumed,
            "resumed_from": self._facts.resumed_from,
            "image_digest": image_digest,
            LOG_LABEL: str(self._request.log_path(attempt)),
        }
        return JobOptions(
            compute_pool=self._settings.compute_pool,
            query_warehouse=self._settings.query_warehouse,
            external_access_integrations=self._settings.external_access_integrations,
            replicas=self._request.options.replicas,
            labels=labels,
        )

    def _submit(self, attempt: Attempt, spec: JobSpec, options: JobOptions) -> Submission:
        self.may_exist = True
        try:
            return self._services.submit(attempt.name, spec, options)
        except ConnectionFailedError:
            raise  # whether it was accepted is not known
        except MonadDagsterError:
            self.may_exist = False
            raise


def asset_label(context: compat.ExecutionContext) -> str:
    """Name the step's assets for people and for the account's own records."""
    if not context.has_assets_def:
        return compat.step_key_of(context)
    return ",".join(key.to_user_string() for key in sorted(context.selected_asset_keys))
