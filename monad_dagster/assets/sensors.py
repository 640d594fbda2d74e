"""Sensors that clean up after runs: abandoned job services, and what finished ones have left.

Both are stopped by default, because both end or remove things; switch them on for each
deployment. They touch only what a run of this Dagster instance has launched.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes import compat
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.housekeeping import (
    archive_kept_log,
    finished_job_services,
    is_log_archived,
    old_message_directories,
)
from monad_dagster.pipes.orphans import Findings, Orphan, find_orphans, is_active, runs_of
from monad_dagster.pipes.places import RUNS_DIRECTORY
from monad_dagster.spcs import sql
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import JobServiceDescription
from monad_dagster.spcs.stage import StageClient

GRACE_SECONDS = 900.0
CHECK_INTERVAL_SECONDS = 120
KEEP_MESSAGES_DAYS = 14.0
DROP_AFTER_DAYS = 21.0
DAY_SECONDS = 86400


def build_sensors() -> list[dg.SensorDefinition]:
    """Return the pipeline's sensors."""
    return [build_orphan_sensor(), build_housekeeping_sensor()]


def build_orphan_sensor(
    *,
    name: str = "orphaned_job_services",
    resource_key: str = "spcs",
    grace_seconds: float = GRACE_SECONDS,
    minimum_interval_seconds: int = CHECK_INTERVAL_SECONDS,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    now: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """Return a sensor that cancels job services whose run is gone.

    A job service is cancelled when the run that launched it has ended or was deleted, no
    unfinished run retries that run, and both have been so for the grace period.

    Args:
        name: Name of the sensor.
        resource_key: Resource key of the `PipesSPCSClient` whose schema is looked at.
        grace_seconds: How long a detached job service waits for a retry that reattaches.
        minimum_interval_seconds: Shortest time between two looks.
        default_status: Whether it runs without being switched on.
        now: The clock.
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=(
            "Cancels job services of this deployment whose run has ended or is gone, "
            f"{grace_seconds:.0f} s after it first saw them so. Others are never touched. "
            "Stopped by default: while it runs, a job service that a lost run left behind must "
            "be retried within that time to be kept."
        ),
    )
    def orphaned_job_services(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        client: PipesSPCSClient = getattr(context.resources, resource_key)
        place = client.stage_root.stage
        with client.session() as session:
            services = JobServices(session)
            # First the job services, then the runs: a launch in between has its run already.
            listed = services.list(place.database, place.schema)
            runs = runs_of(
                context.instance, filter(is_active, listed), compat.deployment_id(context.instance)
            )
            findings = find_orphans(
                listed, runs, _read_cursor(context.cursor), now(), grace_seconds
            )
            done = [_cancel(context, services, orphan) for orphan in findings.due]
        return dg.SensorResult(
            skip_reason=_report(findings, done, grace_seconds),
            cursor=json.dumps({"first_seen": findings.first_seen}, sort_keys=True),
        )

    return orphaned_job_services


def build_housekeeping_sensor(
    *,
    name: str = "old_job_services",
    resource_key: str = "spcs",
    keep_days: float = KEEP_MESSAGES_DAYS,
    drop_after_days: float | None = DROP_AFTER_DAYS,
    minimum_interval_seconds: int = DAY_SECONDS,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    now: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """Return a sensor that clears away what job services of long ago have left.

    Args:
        name: Name of the sensor.
        resource_key: Resource key of the `PipesSPCSClient` whose stage is cleaned.
        keep_days: Age of the newest message at which a job service's messages go.
        drop_after_days: Age at which a finished job service is dropped, once its messages are gone
            and its log is archived; none leaves it to Snowflake, which does so after 30 days.
        minimum_interval_seconds: Shortest time between two looks.
        default_status: Whether it runs without being switched on.
        now: The clock.
    """
    dropping = "" if drop_after_days is None else f" Drops them {drop_after_days:g} days old."

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=(
            f"Removes Pipes messages older than {keep_days:g} days of this deployment's finished "
            "job services from the stage; logs and outputs stay. After that, a retry can no "
            f"longer replay the results of such a job service.{dropping}"
        ),
    )
    def old_job_services(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        client: PipesSPCSClient = getattr(context.resources, resource_key)
        root = client.stage_root
        with client.session() as session:
            stage, services = StageClient(session), JobServices(session)
            files = stage.list(root / RUNS_DIRECTORY)
            listed = services.list(root.stage.database, root.stage.schema)
            runs = runs_of(context.instance, listed, compat.deployment_id(context.instance))
            older_than = now() - keep_days * DAY_SECONDS
            old = old_message_directories(root, files, listed, runs, older_than)
            num_removed = sum(stage.remove_directory(path) for path in old)
            report = [f"Removed {num_removed} message files of {len(old)} job services."]
            if drop_after_days is not None:
                left = [f for f in files if not any(f.path.parent == path for path in old)]
                finished = finished_job_services(
                    left, listed, runs, now() - drop_after_days * DAY_SECONDS
                )
                report.append(_drop_finished(context, services, stage, root, finished))
        return dg.SensorResult(skip_reason=" ".join(report))

    return old_job_services


def _drop_finished(
    context: dg.SensorEvaluationContext,
    services: JobServices,
    stage: StageClient,
    root: StagePath,
    finished: list[JobServiceDescription],
) -> str:
    """Drop finished job services, and say which stay because their log cannot be archived."""
    ready: list[JobServiceDescription] = []
    kept: list[JobServiceDescription] = []
    for item in finished:
        try:
            has_log = is_log_archived(stage, root, item) or archive_kept_log(
                services, stage, root, item
            )
        except MonadDagsterError as error:
            context.log.warning(f"The log of {item.name} was not archived: {error}")
            has_log = False
        (ready if has_log else kept).append(item)
    num_dropped = 0
    for item in ready:
        try:
            services.drop(item.name, force=True)
            num_dropped += 1
        except MonadDagsterError as error:
            context.log.warning(f"Finished job service {item.name} was not dropped: {error}")
    report = f"Dropped {num_dropped} finished job services."
    if kept:
        names = ", ".join(item.name.name for item in kept)
        report += f" Kept, because no log of theirs is left to archive: {names}."
    return report


def _cancel(context: dg.SensorEvaluationContext, services: JobServices, orphan: Orphan) -> str:
    """Cancel one orphan and say what came of it; a refusal is tried again at the next look."""
    name = orphan.job_service.name
    # The look at the runs may be seconds old by now; a retry that has begun since then follows it.
    runs = runs_of(context.instance, [orphan.job_service], compat.deployment_id(context.instance))
    if orphan.run_id in runs.watched:
        return f"followed again: {orphan}"
    try:
        found = services.cancel(name)
    except MonadDagsterError as error:
        context.log.error(
            f"Orphaned job service {name} was not cancelled: {error} "
            f"By hand: {sql.cancel_job_service(name)}"
        )
        return f"not cancelled: {orphan}"
    message = f"cancelled: {orphan}" if found else f"already gone: {orphan}"
    context.log.info(message)
    compat.report_to_run(
        context.instance,
        orphan.run_id,
        f"Job service {name} was still {orphan.job_service.raw_status} and no run followed it; "
        f"the sensor {context.sensor_name} has cancelled it.",
    )
    return message


def _report(findings: Findings, done: list[str], grace_seconds: float) -> str:
    parts = list(done)
    parts += [f"in its grace period of {grace_seconds:.0f} s: {item}" for item in findings.waiting]
    parts.append(
        f"{findings.num_watched} active job services have a run, "
        f"{findings.num_foreign} belong to others"
    )
    return "; ".join(parts) + "."


def _read_cursor(cursor: str | None) -> dict[str, float]:
    """Read when orphans were first seen; a cursor that is not ours starts the grace anew."""
    try:
        document: Any = json.loads(cursor or "{}")
        return {str(key): float(value) for key, value in document["first_seen"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
