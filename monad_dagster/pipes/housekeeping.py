"""Removal of old message chunks from the stage, of finished job services of ours only.

The log, the context and the outputs stay. Finished job services themselves are Snowflake's to
remove, 30 days after their end; until then their labels say whose chunks these are.
"""

from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from monad_dagster.pipes.launch import RUNS_DIRECTORY
from monad_dagster.pipes.messages import MESSAGES_DIRECTORY
from monad_dagster.pipes.naming import attempt_name
from monad_dagster.pipes.orphans import KnownRuns
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.job_service import RUN_ID_LABEL, JobServiceDescription
from monad_dagster.spcs.stage import StageFile


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


def _seconds(last_modified: str) -> float:
    """Read the time of a LIST row; one that is not readable counts as the far future."""
    try:
        return parsedate_to_datetime(last_modified).timestamp()
    except (TypeError, ValueError):
        return float("inf")
