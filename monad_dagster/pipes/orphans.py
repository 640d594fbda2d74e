"""Job services whose run is gone: which of them nobody will ever fetch a result from.

Dagster has no hook for a cancelled or lost run, so the last line against paying for an abandoned
node is to compare what runs in the account with what runs in Dagster. The decision is a pure
function; only `runs_of` asks Dagster, and nothing here asks Snowflake.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from monad_dagster.pipes.ledger import MAX_FORERUNNERS
from monad_dagster.spcs.job_service_state import ENDING, RUN_ID_LABEL, JobServiceDescription

DEPLOYMENT_LABEL = "deployment"

_FINISHED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
_UNFINISHED = [status for status in DagsterRunStatus if status not in _FINISHED]


@dataclass(frozen=True)
class KnownRuns:
    """What Dagster knows of the runs that job services name.

    Attributes:
        finished: Final status by run id, of the runs that exist and have ended.
        watched: Ids of the unfinished runs and of every run that one of them retries.
        deployment: Identity of the Dagster instance; None when it has none.
    """

    finished: Mapping[str, str] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    deployment: str | None = None

    def owns(self, job_service: JobServiceDescription) -> bool:
        """Whether a run of this Dagster instance launched the job service.

        An absent run proves nothing: another instance may have it. Then only the label counts.
        """
        run_id = str(job_service.labels.get(RUN_ID_LABEL) or "")
        if not run_id:
            return False
        if run_id in self.finished or run_id in self.watched:
            return True
        label = job_service.labels.get(DEPLOYMENT_LABEL)
        return self.deployment is not None and label == self.deployment


@dataclass(frozen=True)
class Orphan:
    """An active job service of ours without a run.

    Attributes:
        job_service: What Snowflake says of it.
        run_id: The run that launched it.
        run_status: That run's final status, or `absent`.
        since: When it was first seen without a run, in seconds.
    """

    job_service: JobServiceDescription
    run_id: str
    run_status: str
    since: float

    def __str__(self) -> str:
        status = self.job_service.raw_status
        return f"{self.job_service.name} ({status}; run {self.run_id} is {self.run_status})"


@dataclass(frozen=True)
class Findings:
    """What a look at the account showed.

    Attributes:
        due: Orphans whose grace period is over.
        waiting: Orphans within their grace period.
        num_watched: Active job services of ours that a run still follows.
        num_foreign: Active job services that are not ours; never touched.
    """

    due: tuple[Orphan, ...] = ()
    waiting: tuple[Orphan, ...] = ()
    num_watched: int = 0
    num_foreign: int = 0

    @property
    def first_seen(self) -> dict[str, float]:
        """What the next look has to know: when each orphan was first seen."""
        return {str(o.job_service.name): o.since for o in (*self.due, *self.waiting)}


def is_active(job_service: JobServiceDescription) -> bool:
    """Whether a job service costs, or will cost, until somebody ends it."""
    return not job_service.status.is_terminal and job_service.status not in ENDING


def find_orphans(
    job_services: Iterable[JobServiceDescription],
    runs: KnownRuns,
    first_seen: Mapping[str, float],
    now: float,
    grace: float,
) -> Findings:
    """Decide which job services are orphans, and for which the grace period is over.

    Args:
        job_services: Those of the schema, of whatever origin.
        runs: What Dagster knows; read after the job services, so that no launch is missed.
        first_seen: When earlier looks first saw each orphan.
        now: The time of this look.
        grace: How long an orphan may wait for a retry that reattaches to it.
    """
    due, waiting = [], []
    num_watched = num_foreign = 0
    for item in job_services:
        if not is_active(item):
            continue
        if not runs.owns(item):
            num_foreign += 1
            continue
        run_id = str(item.labels[RUN_ID_LABEL])
        if run_id in runs.watched:
            num_watched += 1
            continue
        # A clock that was set back must not prolong the grace period.
        since = min(first_seen.get(str(item.name), now), now)
        orphan = Orphan(item, run_id, runs.finished.get(run_id, "absent"), since)
        (due if now - since >= grace else waiting).append(orphan)
    return Findings(tuple(due), tuple(waiting), num_watched, num_foreign)


def runs_of(
    instance: DagsterInstance,
    job_services: Iterable[JobServiceDescription],
    deployment: str | None,
) -> KnownRuns:
    """Read from Dagster what `find_orphans` has to know of the runs of *job_services*."""
    named = {str(item.labels.get(RUN_ID_LABEL) or "") for item in job_services} - {""}
    if not named:
        return KnownRuns(deployment=deployment)
    known = {run.run_id: run for run in instance.get_runs(RunsFilter(run_ids=sorted(named)))}
    unfinished = instance.get_runs(RunsFilter(statuses=_UNFINISHED))
    watched = {run_id for run in unfinished for run_id in _family(instance, run)}
    finished = {
        run_id: run.status.value for run_id, run in known.items() if run.status in _FINISHED
    }
    # A run that ended between the two queries is unfinished in the first one only.
    watched |= {run_id for run_id, run in known.items() if run.status not in _FINISHED}
    return KnownRuns(finished, frozenset(watched), deployment)


def _family(instance: DagsterInstance, run: DagsterRun) -> set[str]:
    """Return a run and every run it retries, whichever way it was re-executed."""
    found = {run.run_id}
    if run.root_run_id:
        found.add(run.root_run_id)
    parent = run.parent_run_id
    while parent and parent not in found and len(found) < MAX_FORERUNNERS:
        found.add(parent)
        ancestor = instance.get_run_by_id(parent)
        parent = ancestor.parent_run_id if ancestor else None
    return found
