"""Statuses of job services, their instances and containers, and the platform's words for them.

Follows the pages "Working with services" and "Monitoring services". Pure: no clock, no files.
"""

from collections.abc import Sequence

TERMINAL = frozenset({"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"})
ENDED_CONTAINERS = frozenset({"DONE", "FAILED"})
ENDED_INSTANCES = frozenset({"SUCCEEDED", "FAILED"})

# What each status may become; a test checks that every change obeys it.
TRANSITIONS: dict[str, frozenset[str]] = {
    "PENDING": frozenset({"RUNNING", "DONE", "FAILED", "CANCELLING", "INTERNAL_ERROR", "DELETING"}),
    "RUNNING": frozenset({"PENDING", "DONE", "FAILED", "CANCELLING", "INTERNAL_ERROR", "DELETING"}),
    "CANCELLING": frozenset({"CANCELLED", "DELETING", "INTERNAL_ERROR"}),
    "DELETING": frozenset({"DELETED"}),
    **{status: frozenset() for status in TERMINAL},
}
INSTANCE_TRANSITIONS: dict[str, frozenset[str]] = {
    "PENDING": frozenset({"READY", "TERMINATING", "SUCCEEDED", "FAILED"}),
    "READY": frozenset({"TERMINATING", "SUCCEEDED", "FAILED"}),
    "TERMINATING": frozenset({"SUCCEEDED", "FAILED"}),
    "SUCCEEDED": frozenset(),
    "FAILED": frozenset(),
}
CONTAINER_TRANSITIONS: dict[str, frozenset[str]] = {
    "PENDING": frozenset({"READY", "FAILED"}),
    "READY": frozenset({"TERMINATING", "DONE", "FAILED"}),
    "TERMINATING": frozenset({"DONE", "FAILED"}),
    "DONE": frozenset(),
    "FAILED": frozenset(),
}

SERVICE_MESSAGES = {
    "PENDING": "Job is pending",
    "RUNNING": "Job is running",
    "DONE": "Job is completed",
    "FAILED": "Job has failed",
    "INTERNAL_ERROR": "Job has encountered an error",
    "CANCELLING": "Job is being canceled",
    "CANCELLED": "Job has been canceled",
    "DELETING": "Job is deleting",
    "DELETED": "Job has been deleted",
}
INSTANCE_MESSAGES = {
    "PENDING": "Job instance is pending",
    "READY": "Job instance is running",
    "TERMINATING": "Job instance is terminating",
    "SUCCEEDED": "Job instance has completed",
    "FAILED": "Job instance failed",
}
HISTORY_MESSAGES = {
    "DONE": "Job completed successfully.",
    "FAILED": "Job has failed.",
    "CANCELLED": "Job has been canceled.",
    "INTERNAL_ERROR": "Job has encountered an error.",
}

WAITING_TO_START = "Waiting to start"
PROVISIONING = "Compute pool node(s) are being provisioned"
UNSCHEDULABLE = "Unschedulable due to insufficient resources"
PULL_FAILED = "Failed to pull image"
RUNNING = "Running"
TERMINATING = "Terminating"  # approximate: the status is documented, its message is not
COMPLETED = "Completed successfully"
START_FAILED = "Encountered fatal error while starting container"
RUN_FAILED = "Encountered fatal error while running, check container logs"
USER_ERROR = "User application error, check container logs"
OUT_OF_MEMORY = "Container was OOMKilled due to resource usage"
NODE_LOST = "Encountered fatal error: the node was lost"  # approximate: not documented


def instance_status(containers: Sequence[str], *, terminating: bool = False) -> str:
    """Return an instance's status from its containers' statuses."""
    if any(status == "FAILED" for status in containers):
        return "FAILED"
    if containers and all(status == "DONE" for status in containers):
        return "SUCCEEDED"
    if terminating:
        return "TERMINATING"
    if any(status in ("READY", "DONE") for status in containers):
        return "READY"
    return "PENDING"


def service_status(instances: Sequence[str], *, cancelling: bool = False) -> str:
    """Return a job service's status from its instances' statuses, first match wins."""
    if cancelling:
        ended = all(status in (*ENDED_INSTANCES, "PENDING") for status in instances)
        return "CANCELLED" if ended else "CANCELLING"
    if any(status == "FAILED" for status in instances):
        return "FAILED"
    if instances and all(status == "SUCCEEDED" for status in instances):
        return "DONE"
    if any(status in ("READY", "TERMINATING", "SUCCEEDED") for status in instances):
        return "RUNNING"
    return "PENDING"


def exit_message(exit_code: int, *, oom: bool, start_error: str, lost: bool) -> str:
    """Return the container message for how it ended."""
    if lost:
        return NODE_LOST
    if oom:
        return OUT_OF_MEMORY
    if start_error:
        return f"{START_FAILED}: {start_error}"
    if exit_code == 0:
        return COMPLETED
    return USER_ERROR if exit_code < 128 else RUN_FAILED
