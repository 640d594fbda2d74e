"""What a failed job service means: its class, whether another attempt makes sense, what to do.

The vocabulary is Snowflake's documented container messages, exit codes and pool errors. A failure
of the platform may be tried again; a failure of the code never is. The one place where a failure
becomes Dagster's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from monad_dagster.errors import JobServiceFailedError, problem
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service_state import ContainerState, JobServiceStatus

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
    TIMED_OUT = "timed_out"
    STALLED = "stalled"
    RESULTS_INCOMPLETE = "results_incomplete"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rule:
    """What follows from a failure class.

    Attributes:
        retry: Whether another attempt may be paid for without asking.
        seen: How the class is recognized.
        advice: What the user does next.
    """

    retry: bool
    seen: str
    advice: str


RULES: dict[FailureClass, Rule] = {
    FailureClass.CAPACITY: Rule(
        True,
        "not running within max_queue_seconds while the pool is full or reports error 392507, "
        "392508 or CAPACITY_ERROR; a gang that does not become complete; Unschedulable",
        "Wait, raise MAX_NODES, or set BACKUP_INSTANCE_FAMILIES on the pool",
    ),
    FailureClass.PROVISIONING: Rule(
        True,
        "not running within max_queue_seconds although the pool has room; "
        '"Compute pool node(s) are being provisioned"',
        "Run again; if it repeats, look at the pool's status_message",
    ),
    FailureClass.IMAGE: Rule(
        False,
        '"Failed to pull image", "Failed to retrieve image", "invalid format"; another digest '
        "runs than was asked for",
        "Materialize the image asset again and check the image path of the resource",
    ),
    FailureClass.OUT_OF_MEMORY: Rule(
        False,
        '"Container was OOMKilled"; the log or the reported exception says CUDA out of memory',
        "Lower the batch size or shared_memory, or choose a family with more memory",
    ),
    FailureClass.USER_CODE: Rule(
        False,
        '"User application error", "Encountered fatal error while running" or "while starting '
        'container", any other exit code; the script reported an exception',
        "Correct the cause named in the log, then run again",
    ),
    FailureClass.NODE_LOST: Rule(
        True,
        "exit code 137 or 143 that nobody asked for and nothing explains, a message that names "
        "the node, or no container left",
        "The next attempt resumes from the last complete checkpoint",
    ),
    FailureClass.INTERNAL_ERROR: Rule(
        True,
        'status INTERNAL_ERROR; "Encountered fatal error" without more',
        "Run again; if it repeats, give Snowflake's support the query id",
    ),
    FailureClass.CANCELLED: Rule(
        False,
        "status CANCELLED or DELETED",
        "Run again when the cancellation was not intended",
    ),
    FailureClass.TIMED_OUT: Rule(
        False,
        "running for longer than max_runtime_seconds; the client cancels it",
        "Raise max_runtime_seconds, or make the script faster",
    ),
    FailureClass.STALLED: Rule(
        False,
        "no sign of life for stall_seconds, with cancel_stalled; the client cancels it",
        "Look for a deadlock in the last log lines; raise stall_seconds for a slow script",
    ),
    FailureClass.RESULTS_INCOMPLETE: Rule(
        False,
        "DONE, but `closed` or a materialization never came",
        "Check that the script ends inside job_run; re-execute from failure to read again",
    ),
    FailureClass.UNKNOWN: Rule(
        False,
        "none of the above",
        "Read the log; run again if the cause is outside the code",
    ),
}

# Documented container messages, first match wins; the order is from specific to general.
MESSAGES: Sequence[tuple[str, FailureClass]] = (
    ("oomkilled", FailureClass.OUT_OF_MEMORY),
    ("failedwithoom", FailureClass.OUT_OF_MEMORY),
    ("failed to pull image", FailureClass.IMAGE),
    ("failedtopullimage", FailureClass.IMAGE),
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
GPU_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Failure:
    """A classified failure.

    Attributes:
        failure_class: Why.
        status: The last status.
        exit_code: Exit code of the container to blame.
        message: The platform's message.
        instance_id: The instance to blame.
        container: Its container to blame.
    """

    failure_class: FailureClass
    status: str
    exit_code: int | None = None
    message: str = ""
    instance_id: int | None = None
    container: str | None = None

    @property
    def retry(self) -> bool:
        """Whether another attempt may start by itself."""
        return RULES[self.failure_class].retry

    def explained_by(self, log_tail: Iterable[str]) -> "Failure":
        """Return the failure with what only the log says: a GPU that ran out of memory."""
        if self.failure_class is not FailureClass.USER_CODE:
            return self
        if any(GPU_MEMORY.search(line) for line in log_tail):
            return replace(self, failure_class=FailureClass.OUT_OF_MEMORY)
        return self


class GivenUp(Exception):
    """Seen while waiting: the job service cannot succeed, or must not go on."""

    def __init__(self, failure_class: FailureClass, observed: str) -> None:
        super().__init__(observed)
        self.failure_class = failure_class
        self.observed = observed


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
    blamed = _to_blame(own)
    failure_class = _class_of(status, blamed, bool(own), reported_exception=reported_exception)
    if blamed is None:
        return Failure(failure_class, str(status))
    return Failure(
        failure_class,
        str(status),
        blamed.last_exit_code,
        blamed.message,
        blamed.instance_id,
        blamed.container_name,
    )


def _to_blame(containers: Sequence[ContainerState]) -> ContainerState | None:
    """Return the container that failed by itself; the others are ended because of it."""
    failed = [item for item in containers if _failed(item)]
    return min(failed, key=_was_ended_from_outside, default=None)


def _was_ended_from_outside(container: ContainerState) -> bool:
    named = "oomkilled" in container.message.lower()
    return container.last_exit_code in (SIGKILL_EXIT, SIGTERM_EXIT) and not named


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
        named = class_of_message(blamed.message)
        if named is not None:
            general = named is FailureClass.USER_CODE
            return FailureClass.NODE_LOST if killed and general else named
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


def class_of_message(message: str) -> FailureClass | None:
    """Return the class that a container message names; None when it names none."""
    text = message.lower()
    return next((found for part, found in MESSAGES if part in text), None)


def pending_failure(containers: Iterable[ContainerState]) -> FailureClass | None:
    """Say whether a job service that is still PENDING can never start."""
    for container in containers:
        if class_of_message(container.message) is FailureClass.IMAGE:
            return FailureClass.IMAGE
    return None


def queue_failure(
    containers: Iterable[ContainerState], pool: ComputePool | None, *, num_nodes: int = 1
) -> FailureClass:
    """Say why a job service did not start in time: no node to be had, or nodes that come late."""
    if pool is not None and (pool.has_capacity_error or pool.free_nodes < num_nodes):
        return FailureClass.CAPACITY
    named = {class_of_message(item.message) for item in containers}
    return FailureClass.CAPACITY if FailureClass.CAPACITY in named else FailureClass.PROVISIONING


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
