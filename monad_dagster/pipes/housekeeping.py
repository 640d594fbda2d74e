"""Removal of old message chunks and of finished job services, of ours only.

The log, the context and the outputs stay. A job service is dropped when its messages are gone from
the stage and its log is there: until then its labels say whose chunks these are, and its node or the
account may hold the only copy of the log.
"""

from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from monad_dagster.pipes.messages import MESSAGES_DIRECTORY
from monad_dagster.pipes.naming import attempt_name
from monad_dagster.pipes.orphans import KnownRuns
from monad_dagster.pipes.places import (
    LOG_FILE,
    RUNS_DIRECTORY,
    labelled_log_path,
    run_directory,
)
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import RUN_ID_LABEL, JobServiceDescription
from monad_dagster.spcs.stage import StageClient, StageFile


def old_message_directories(
    root: StagePath,
    files: Iterable[StageFile],
    job_services: Iterable[JobServiceDescription],
    runs: KnownRuns,
    older_than: float,
) -> list[StagePath]:
    """Decide which message directories go.

    Args:
        root: Root of the stage.
        files: Everything below the stage's `runs` directory.
        job_services: Those of the schema, with their labels.
        runs: What Dagster knows of them.
        older_than: A directory whose newest chunk is not older than this time stays.
    """
    owned = {
        attempt_name(item.name.name)
        for item in job_services
        if item.status.is_terminal
        and runs.owns(item)
        and str(item.labels[RUN_ID_LABEL]) not in runs.watched
    }
    newest: dict[str, float] = {}
    for file in files:
        parts = file.path.path.split("/")
        if len(parts) != 4 or (parts[0], parts[2]) != (RUNS_DIRECTORY, MESSAGES_DIRECTORY):
            continue
        newest[parts[1]] = max(newest.get(parts[1], 0.0), _seconds(file.last_modified))
    return [
        root / RUNS_DIRECTORY / name / MESSAGES_DIRECTORY
        for name, modified in sorted(newest.items())
        if name in owned and modified < older_than
    ]


def finished_job_services(
    files: Iterable[StageFile],
    job_services: Iterable[JobServiceDescription],
    runs: KnownRuns,
    older_than: float,
) -> list[JobServiceDescription]:
    """Decide which finished job services can go once their log is archived.

    Args:
        files: Everything that is left below the stage's `runs` directory.
        job_services: Those of the schema.
        runs: What Dagster knows of them.
        older_than: One that ended after this time stays.
    """
    paths = {file.path.path for file in files}
    holders = {path.split("/")[1] for path in paths if f"/{MESSAGES_DIRECTORY}/" in path}
    due = []
    for item in job_services:
        name = attempt_name(item.name.name)
        ended = item.updated_on or item.created_on
        followed = str(item.labels.get(RUN_ID_LABEL)) in runs.watched
        if not item.status.is_terminal or not runs.owns(item) or followed or name in holders:
            continue
        if ended is None or ended.timestamp() >= older_than:
            continue
        due.append(item)
    return due


def is_log_archived(stage: StageClient, root: StagePath, item: JobServiceDescription) -> bool:
    """Whether the log is on the stage: where the labels say, or where it used to be put."""
    places = {
        labelled_log_path(root, item.name, item.labels),
        run_directory(root, item.name) / LOG_FILE,
    }
    return any(stage.exists(place) for place in sorted(places))


def archive_kept_log(
    services: JobServices, stage: StageClient, root: StagePath, item: JobServiceDescription
) -> bool:
    """Put what the account kept of a log on the stage; False when it kept nothing."""
    rows = services.fetch_kept_logs(item.name, start=item.created_on)
    if not rows:
        return False
    instances = {str(row.get("instance_id")) for row in rows}
    lines = [
        f"[{row.get('container_name')}/{row.get('instance_id')}] {row.get('log')}"
        if len(instances) > 1
        else str(row.get("log"))
        for row in rows
    ]
    target = labelled_log_path(root, item.name, item.labels)
    stage.put_text("".join(f"{line}\n" for line in lines), target)
    return True


def _seconds(last_modified: str) -> float:
    """Read the time of a LIST row; one that is not readable counts as the far future."""
    try:
        return parsedate_to_datetime(last_modified).timestamp()
    except (TypeError, ValueError):
        return float("inf")
