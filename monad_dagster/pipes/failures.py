"""What a failed job service means: its class, whether another attempt makes sense, what to do.

The vocabulary is Snowflake's documented container messages, exit codes and pool errors. A failure
of the platform may be tried again; a failure of the code never is. The one place where a failure
becomes Dagster's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from monad_dagster.errors import JobServiceFailedError, problem
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import ContainerState, JobServiceStatus

SIGKILL_EXIT = 137
SIGTERM_EXIT = 143


class FailureClass(StrEnum):
    """Why a job service ended without success."""

    CAPACITY = "capacity"
    PROVISIONING = "provisioning"
    IMAGE = "image"
    OUT_OF_MEMORY = "out_of_memory"
    USER_CODE = "user_code"
    NODE_LOST = "node_lost"
    INTERNAL_ERROR = "internal_error"
    CANCELLED = "cancelled"
    RESULTS_INCOMPLETE = "results_incomplete"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rule:
    """What follows from a failure class.

    Attributes:
        retry: Whether another attempt may be paid for without asking.
        advice: What the user does next.
    """

    retry: bool
    advice: str


RULES: dict[FailureClass, Rule] = {
    FailureClass.CAPACITY: Rule(
        True, "Wait for the cloud to have nodes, or set BACKUP_INSTANCE_FAMILIES on the pool"
    ),
    FailureClass.PROVISIONING: Rule(
        True, "Run again; if it repeats, look at the pool's status_message"
    ),
    FailureClass.IMAGE: Rule(
        False, "Materialize the image asset again and check the image path of the resource"
    ),
    FailureClass.OUT_OF_MEMORY: Rule(
        False, "Lower the batch size or shared_memory, or choose a family with more memory"
    ),
    FailureClass.USER_CODE: Rule(False, "Correct the cause named in the log, then run again"),
    FailureClass.NODE_LOST: Rule(
        True, "The next attempt resumes from the last complete checkpoint"
    ),
    FailureClass.INTERNAL_ERROR: Rule(
        True, "Run again; if it repeats, give Snowflake's support the query id"
    ),
    FailureClass.CANCELLED: Rule(False, "Run again when the cancellation was not intended"),
    FailureClass.RESULTS_INCOMPLETE: Rule(
        False, "Check that the script ends inside job_run; re-execute from failure to read again"
    ),
    FailureClass.UNKNOWN: Rule(False, "Read the log; run again if the cause is outside the code"),
}

# Documented container messages, first match wins; the order is from specific to general.
MESSAGES: Sequence[tuple[str, FailureClass]] = (
    ("oomkilled", FailureClass.OUT_OF_MEMORY),
    ("failed to pull image", FailureClass.IMAGE),
    ("failed to retrieve image", FailureClass.IMAGE),
    ("image name uses an invalid format", FailureClass.IMAGE),
    ("user application error", FailureClass.USER_CODE),
    ("fatal error while running", FailureClass.USER_CODE),
    ("fatal error while starting", FailureClass.USER_CODE),
    ("capacity", FailureClass.CAPACITY),
    ("unschedulable", FailureClass.CAPACITY),
    ("being provisioned", FailureClass.PROVISIONING),
    ("node", FailureClass.NODE_LOST),
    ("encountered fatal error", FailureClass.INTERNAL_ERROR),
)


@dataclass(frozen=True)
class Failure:
    """A classified failure.

    Attributes:
        failure_class: Why.
        status: The last status.
        exit_code: Exit code of the first container that failed.
        message: The platform's message.
        instance_id: The instance that failed first.
    """

    failure_class: FailureClass
    status: str
    exit_code: int | None = None
    message: str = ""
    instance_id: int | None = None

    @property
    def retry(self) -> bool:
        """Whether another attempt may start by itself."""
        return RULES[self.failure_class].retry


def classify(
    status: JobServiceStatus,
    containers: Iterable[ContainerState],
    *,
    own_containers: Iterable[str],
    reported_exception: bool = False,
) -> Failure:
    """Classify a job service that ended without success.

    Args:
        status: Its terminal status.
        containers: Its containers, sidecars included.
        own_containers: Names of the specification's containers; only they can be to blame.
        reported_exception: Whether the script itself reported an exception before it ended.
    """
    names = set(own_containers)
    own = [item for item in containers if item.container_name in names]
    blamed = next((item for item in own if _failed(item)), None)
    exit_code = blamed.last_exit_code if blamed else None
    message = blamed.message if blamed else ""
    failure_class = _class_of(status, blamed, bool(own), reported_exception=reported_exception)
    instance = blamed.instance_id if blamed else None
    return Failure(failure_class, str(status), exit_code, message, instance)


def _failed(container: ContainerState) -> bool:
    return container.status.upper() == "FAILED" or container.last_exit_code not in (None, 0)


def _class_of(
    status: JobServiceStatus,
    blamed: ContainerState | None,
    has_containers: bool,
    *,
    reported_exception: bool,
) -> FailureClass:
    if status in (JobServiceStatus.CANCELLED, JobServiceStatus.DELETED):
        return FailureClass.CANCELLED
    if status is JobServiceStatus.INTERNAL_ERROR:
        return FailureClass.INTERNAL_ERROR
    if blamed is not None:
        # Killed from outside, which Snowflake's general messages do not say: unless memory or the
        # image is named, or the script itself reported why, the node went away.
        killed = blamed.last_exit_code in (SIGKILL_EXIT, SIGTERM_EXIT) and not reported_exception
        text = blamed.message.lower()
        for part, failure_class in MESSAGES:
            if part in text:
                general = failure_class is FailureClass.USER_CODE
                return FailureClass.NODE_LOST if killed and general else failure_class
        if killed:
            return FailureClass.NODE_LOST
        if reported_exception:
            return FailureClass.USER_CODE
        if blamed.last_exit_code:
            return FailureClass.USER_CODE
        return FailureClass.UNKNOWN
    if reported_exception:
        return FailureClass.USER_CODE
    return FailureClass.UNKNOWN if has_containers else FailureClass.NODE_LOST


def pending_failure(containers: Iterable[ContainerState]) -> FailureClass | None:
    """Say whether a job service that is still PENDING can never start."""
    for container in containers:
        text = container.message.lower()
        if "failed to pull image" in text or "invalid format" in text:
            return FailureClass.IMAGE
    return None


def failed_error(
    name: QualifiedName,
    failure: Failure,
    *,
    seconds: float,
    query_id: str | None,
    log_tail: Sequence[str],
    log_path: str | None,
) -> JobServiceFailedError:
    """Build the four-part error of a failed job service."""
    code = f", exit code {failure.exit_code}" if failure.exit_code is not None else ""
    platform = f', "{failure.message}"' if failure.message else ""
    last = next((line for line in reversed(log_tail) if line.strip()), "")
    last_line = f'. Last log line: "{last[:300]}"' if last else ""
    observed = (
        f"Failure class {failure.failure_class}{code}{platform} (query {query_id}){last_line}"
    )
    look = f"Full log: {log_path}" if log_path else f"Full log: monad-dagster logs {name.name}"
    return JobServiceFailedError(
        problem(
            f"Job service {name} ended as {failure.status} after {seconds:.0f} s",
            observed,
            RULES[failure.failure_class].advice,
            look,
        ),
        status=failure.status,
        exit_code=failure.exit_code,
        log_tail=tuple(log_tail),
    )
