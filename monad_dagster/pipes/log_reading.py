"""A job service's log, from wherever it still is: the node, the archive, or the event table."""

import re

from monad_dagster.errors import ConnectionFailedError, SnowflakeError
from monad_dagster.pipes.logs import INCOMPLETE, is_complete_log
from monad_dagster.pipes.naming import attempt_name
from monad_dagster.pipes.places import LOG_FILE, LOG_SUFFIX, labelled_log_path, run_directory
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import JobServiceDescription
from monad_dagster.spcs.stage import StageClient

# What the archive puts in front of a line when there are several containers or instances.
_PREFIX = re.compile(r"\[[^\]/]+/(\d+)\] ")


def read_log(
    services: JobServices,
    stage: StageClient,
    root: StagePath,
    name: QualifiedName,
    *,
    instance: int = 0,
    num_lines: int = 1000,
) -> list[str] | None:
    """Return the newest log lines of one instance; None when nothing is left of the job service.

    While it runs the node has them. After that the archive holds every line, and where it says
    that it does not, the account may have received the rest since.

    Args:
        services: Answers for the node and the event table.
        stage: Holds the archive.
        root: Root of the stage.
        name: The job service; it may have been dropped.
        instance: Which instance.
        num_lines: How many lines at most.
    """
    found = services.describe(name)
    archived: list[str] = []
    if found is None or found.status.is_terminal:
        text = _archived(stage, root, name, found)
        archived = _of_instance(text.splitlines(), instance)
        if archived and is_complete_log(text):
            return archived[-num_lines:]
    if not archived:
        lines = _on_the_node(services, name, instance, num_lines)
        if lines:
            return lines
    kept = _kept(services, name, found, instance)
    known = [line for line in archived if line != INCOMPLETE]
    lines = kept if len(kept) > len(known) else archived
    return lines[-num_lines:] if found or lines else None


def _archived(
    stage: StageClient, root: StagePath, name: QualifiedName, found: JobServiceDescription | None
) -> str:
    """Read the archive: where the labels say, where it used to be put, or wherever it is."""
    places = [labelled_log_path(root, name, found.labels)] if found else []
    places.append(run_directory(root, name) / LOG_FILE)
    for place in dict.fromkeys(places):
        if stage.exists(place):
            return stage.read_text(place)
    if found is None:  # dropped, and its labels with it
        for file in stage.find_named(root, f"{attempt_name(name.name)}{LOG_SUFFIX}"):
            return stage.read_text(file.path)
    return ""


def _of_instance(lines: list[str], instance: int) -> list[str]:
    """Take one instance's lines when the archive names instances; else all of them."""
    named = [(line, _PREFIX.match(line)) for line in lines]
    if not any(match for _, match in named):
        return lines
    own = [line for line, match in named if match is None or int(match[1]) == instance]
    return own if any(_PREFIX.match(line) for line in own) else lines


def _on_the_node(
    services: JobServices, name: QualifiedName, instance: int, num_lines: int
) -> list[str]:
    try:
        return services.fetch_logs(name, instance_id=instance, num_lines=num_lines).splitlines()
    except ConnectionFailedError:
        raise
    except SnowflakeError:
        return []  # not started yet, or the node is gone


def _kept(
    services: JobServices, name: QualifiedName, found: JobServiceDescription | None, instance: int
) -> list[str]:
    try:
        rows = services.fetch_kept_logs(name, start=found.created_on if found else None)
    except ConnectionFailedError:
        raise
    except SnowflakeError:
        return []  # the event table cannot be read by this role
    return [str(row["log"]) for row in rows if int(str(row.get("instance_id") or 0)) == instance]
