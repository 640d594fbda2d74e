"""Which job service a step has launched, and whether the next one may be launched.

Two records say so: the event log of the run and its forerunners, written at once after a launch,
and the account itself, where the derived name is held. The account wins: it closes the gap
between an accepted statement and a killed process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance, DagsterRun

from monad_dagster.errors import JobServiceExistsError, problem
from monad_dagster.pipes import compat
from monad_dagster.pipes.naming import attempt_name, job_service_name
from monad_dagster.pipes.pacing import Clock
from monad_dagster.spcs import sql
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import ENDING, JobServiceDescription, JobServiceStatus

CLIENT_NAME = "PipesSPCSClient"
MAX_FORERUNNERS = 64
MAX_ATTEMPTS = 100
# Snowflake ends the containers of a cancelled job service after 30 s of grace; the rest is slack.
ENDING_WAIT_SECONDS = 120.0
ENDING_POLL_SECONDS = 1.0


def run_family(instance: DagsterInstance, run: DagsterRun, step_key: str) -> list[DagsterRun]:
    """Return the chain of runs this run retries, itself first, the original last.

    A run belongs to its parent's family when Dagster tags it as a retry, or when the parent did
    not finish this step: the Python API re-executes from failure without a tag. A run that
    repeats a step which ended well was asked for, and starts a family of its own.
    """
    chain = [run]
    while chain[-1].parent_run_id and len(chain) < MAX_FORERUNNERS:
        parent = instance.get_run_by_id(chain[-1].parent_run_id)
        if parent is None:
            break
        if not compat.tagged_as_retry(chain[-1]) and compat.step_succeeded(
            instance, parent.run_id, step_key
        ):
            break
        chain.append(parent)
    return chain


@dataclass(frozen=True)
class Attempt:
    """One attempt that has been launched or is about to be.

    Attributes:
        number: Counts from 1 within the family.
        name: Name of its job service.
        output_name: Name of its output directory: its own, or that of the attempt it continues.
        resumed: Whether it continues an earlier attempt's output.
    """

    number: int
    name: QualifiedName
    output_name: str
    resumed: bool = False


@dataclass(frozen=True)
class Plan:
    """What to do next.

    Attributes:
        attempt: The attempt to launch or to watch.
        found: Its job service when it exists already.
        extras: What the launch record holds of it.
    """

    attempt: Attempt
    found: JobServiceDescription | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


class LaunchLedger:
    """Finds and records the launches of one step."""

    def __init__(
        self, context: compat.ExecutionContext, services: JobServices, clock: Clock
    ) -> None:
        """Read nothing yet.

        Args:
            context: The executing step.
            services: The account's job services.
            clock: Time and sleep, for the end of one that is being cancelled.
        """
        self._context = context
        self._services = services
        self._clock = clock
        self._step_key = compat.step_key_of(context)
        self._family = run_family(context.instance, context.run, self._step_key)

    @property
    def family_id(self) -> str:
        """Id of the first run of the chain."""
        return self._family[-1].run_id

    def record_launch(
        self, attempt: Attempt, *, query_id: str | None, extras: Mapping[str, Any]
    ) -> None:
        """Write the launch into the event log; call at once after the submission."""
        compat.record_external_launch(
            self._context,
            client_name=CLIENT_NAME,
            external_run_id=str(attempt.name),
            extras={
                **extras,
                "attempt": attempt.number,
                "output_name": attempt.output_name,
                "query_id": query_id,
            },
        )

    def record_reattach(self, plan: Plan) -> None:
        """Write into the event log that this run watches a job service it did not start."""
        handle = self.latest_handle()
        if handle is not None and handle.external_run_id == str(plan.attempt.name):
            compat.record_external_reattach(self._context, handle)
        else:
            self.record_launch(plan.attempt, query_id=None, extras=plan.extras)

    def latest_handle(self) -> compat.PipesLaunchHandle | None:
        """Return the newest launch of this step in the family."""
        for run in self._family:
            handle = compat.latest_handle_in_run(
                self._context.instance, run.run_id, self._step_key, CLIENT_NAME
            )
            if handle is not None:
                return handle
        return None

    def plan(
        self,
        *,
        asset: str,
        partition: str | None,
        schema: QualifiedName,
        prefix: str,
        spec_sha256: Callable[[Attempt], str],
        may_resume: Callable[[JobServiceDescription], bool],
    ) -> Plan:
        """Decide whether to launch, and which attempt.

        Args:
            asset: Part of the name.
            partition: Part of the name.
            schema: Any object of the schema that holds the job services.
            prefix: Part of the name.
            spec_sha256: Hash of the specification an attempt would run.
            may_resume: Whether a failed job service is to be continued in its output directory.

        Raises:
            JobServiceExistsError: A job service of another specification is still active, or one
                that is being cancelled does not end.
        """
        handle = self.latest_handle()
        extras: Mapping[str, Any] = dict(handle.extras) if handle else {}
        number = int(extras.get("attempt", 1))
        output_name, resumed = extras.get("output_name"), False
        for _ in range(MAX_ATTEMPTS):
            name = schema.sibling(
                job_service_name(
                    asset=asset,
                    partition=partition,
                    run_family=self.family_id,
                    attempt=number,
                    prefix=prefix,
                )
            )
            recorded = handle is not None and handle.external_run_id == str(name)
            seen = self._services.describe(name)
            found = self._settled(seen)
            if seen is None and not (recorded and self._was_there(name)):
                directory = output_name if resumed and output_name else attempt_name(name.name)
                return Plan(Attempt(number, name, directory, resumed))
            labels = dict(found.labels) if found else {}
            output_name = labels.get("output_name") or output_name or attempt_name(name.name)
            attempt = Attempt(number, name, output_name, bool(labels.get("resumed")))
            if found is not None and self._can_adopt(found, spec_sha256(attempt)):
                return Plan(attempt, found, {**labels, **(extras if recorded else {})})
            resumed = found is not None and may_resume(found)
            number += 1
        raise JobServiceExistsError(
            problem(
                f"{MAX_ATTEMPTS} attempts of {asset} exist in run family {self.family_id}",
                "",
                "Start a new run",
            )
        )

    def _settled(self, found: JobServiceDescription | None) -> JobServiceDescription | None:
        """Wait for the end of a job service that is being cancelled or dropped.

        Until then its containers may write, into the directory that the next attempt continues.
        """
        if found is None or found.status not in ENDING:
            return found
        name, started = found.name, self._clock.now()
        self._context.log.info(
            f"Job service {name} is {found.raw_status}; the next attempt starts when it has ended."
        )
        while found is not None and found.status in ENDING:
            waited = self._clock.now() - started
            if waited >= ENDING_WAIT_SECONDS:
                raise JobServiceExistsError(
                    problem(
                        f"Job service {name} is still {found.raw_status}",
                        f"It has been ending for {waited:.0f} s, and until it has ended it may "
                        "write what the next attempt would write",
                        f"Run again later, or remove it with {sql.drop_service(name, force=True)}",
                        f"See {sql.describe_service(name)}",
                    )
                )
            self._clock.sleep(ENDING_POLL_SECONDS)
            found = self._services.describe(name)
        return found

    def _can_adopt(self, found: JobServiceDescription, wanted: str) -> bool:
        same = found.spec_sha256 == wanted
        if found.status is JobServiceStatus.DONE:
            return same
        if found.status.is_terminal:
            return False
        if same:
            return True
        raise JobServiceExistsError(
            problem(
                f"Job service {found.name} is {found.raw_status} with another specification",
                f"It runs {found.spec_sha256}, this run wants {wanted}",
                f"Wait for it, or cancel it with {sql.cancel_job_service(found.name)} and retry",
                f"See {sql.describe_service(found.name)}",
            )
        )

    def _was_there(self, name: QualifiedName) -> bool:
        # Recorded as launched but not listed: dropped, or the submission never arrived.
        return self._services.find_in_history(name=name) is not None
