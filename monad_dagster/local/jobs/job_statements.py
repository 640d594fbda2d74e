"""Statements on job services: execute, show, describe, drop, wait, cancel.

Approximate, because not documented: the error of a failed synchronous job service and the
answers of SPCS_WAIT_FOR and SPCS_CANCEL_JOB.
"""

from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.catalog.dropping import already_dropped
from monad_dagster.local.jobs import job_views
from monad_dagster.local.jobs.job_model import Job
from monad_dagster.local.jobs.job_services import JobServices
from monad_dagster.local.jobs.job_states import TERMINAL
from monad_dagster.local.jobs.job_submission import (
    Submission,
    create_job,
    hold_name,
    parse_submission,
)
from monad_dagster.local.protocol.results import ResultSet, status, table, text
from monad_dagster.local.sql.handlers import method, statement
from monad_dagster.local.sql.show_options import ShowOptions, parse_show
from monad_dagster.local.sql.statements import Arguments, ObjectName, Statement, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

KIND = "SERVICE"
JOB_FAILED = 395022  # approximate: Snowflake's number for a failed synchronous job is unknown
WAIT_FAILED = 395023  # approximate, as above


def jobs_of(session: "Session") -> JobServices:
    """Return the account's job services."""
    return session.account.extensions["jobs"]


def find_job(session: "Session", name: ObjectName, *privileges: str) -> Job:
    """Return a job service the role may use.

    Raises:
        StatementError: 2003 when missing or invisible, 3001 when a privilege lacks.
    """
    found = session.lookup(KIND, name, *privileges)
    job = jobs_of(session).jobs.get(found.properties.get("JOB", ""))
    if job is None:
        raise errors.does_not_exist(KIND, quote_identifier(found.name))
    return job


@statement("EXECUTE JOB SERVICE")
def execute_job_service(session: "Session", parsed: Statement) -> ResultSet:
    """Run a job service; without ASYNC the statement lasts as long as the job service."""
    return start_job(session, parsed, parse_submission(parsed.cursor))


def start_job(session: "Session", parsed: Statement, submission: Submission) -> ResultSet:
    """Start a job service, and wait for its end unless it is asynchronous."""
    jobs = jobs_of(session)
    job = create_job(session, parsed, submission)
    with jobs.changed, session.catalog.transaction():  # the name and the job service, or neither
        hold_name(session, job)
        jobs.add(job)
    if submission.is_async:
        return status(f"Started Snowpark Container Services Job '{job.name}'.")
    parsed.on_cancel(lambda: jobs.cancel(job))
    jobs.wait(job, lambda j: j.is_terminal, None)
    if parsed.cancelled.is_set():
        raise errors.canceled()
    if job.status == "DONE":
        return status(f"Job {job.name} completed successfully with status: DONE.")
    raise errors.StatementError(
        JOB_FAILED, "P0000", f"Job {job.name} failed with status: {job.status}. {_reason(job)}"
    )


def _reason(job: Job) -> str:
    for instance in job.instances:
        for container in instance.containers:
            if container.status == "FAILED":
                code = "" if container.exit_code is None else f" (exit code {container.exit_code})"
                return f"Container '{container.name}': {container.message}{code}."
    return ""


@statement("SHOW SERVICES")
def show_services(session: "Session", parsed: Statement) -> ResultSet:
    """List services; all services of the local account are job services."""
    excludes_jobs = parsed.cursor.accept("EXCLUDE JOBS")
    options = parse_show(session, parsed.cursor, extra=("COMPUTE POOL",))
    found = [] if excludes_jobs else _visible(session, options)
    columns = job_views.SERVICE_COLUMNS
    if excludes_jobs:
        columns = [column for column in columns if column.name != "is_job"]
    return table(columns, [job_views.service_row(job) for job in found])


@statement("SHOW JOB SERVICES")
def show_job_services(session: "Session", parsed: Statement) -> ResultSet:
    """List job services."""
    options = parse_show(session, parsed.cursor, extra=("COMPUTE POOL",))
    columns = [column for column in job_views.SERVICE_COLUMNS if column.name != "is_job"]
    at = [column.name for column in job_views.SERVICE_COLUMNS].index("is_job")
    rows = [job_views.service_row(job) for job in _visible(session, options)]
    return table(columns, [(*row[:at], *row[at + 1 :]) for row in rows])


def _visible(session: "Session", options: ShowOptions) -> list[Job]:
    objects = session.visible(KIND, options.database, options.schema)
    ids = {found.properties.get("JOB") for found in objects}
    jobs = [job for job in jobs_of(session).existing() if job.id in ids]
    if options.types and not options.types & {"JOB", "USER", "ALL"}:
        jobs = []
    if options.extra:
        pool = session.lookup("COMPUTE POOL", options.extra["COMPUTE POOL"]).name
        jobs = [job for job in jobs if job.pool == pool]
    return options.select(sorted(jobs, key=lambda job: job.name), lambda job: job.name)


@statement("DESCRIBE SERVICE")
def describe_service(session: "Session", parsed: Statement) -> ResultSet:
    """Describe one job service, with its normalised specification."""
    name = parsed.cursor.name()
    parsed.cursor.expect_end()
    job = find_job(session, name)
    return table(job_views.describe_columns(), [job_views.describe_row(session, job)])


@statement("SHOW SERVICE CONTAINERS IN SERVICE")
def show_service_containers(session: "Session", parsed: Statement) -> ResultSet:
    """List the containers of a job service."""
    job = find_job(session, _last_name(parsed), "MONITOR")
    return table(job_views.CONTAINER_COLUMNS, job_views.container_rows(job))


@statement("SHOW SERVICE INSTANCES IN SERVICE")
def show_service_instances(session: "Session", parsed: Statement) -> ResultSet:
    """List the instances of a job service."""
    job = find_job(session, _last_name(parsed), "MONITOR")
    return table(job_views.INSTANCE_COLUMNS, job_views.instance_rows(job))


@statement("SHOW ENDPOINTS IN SERVICE")
def show_endpoints(session: "Session", parsed: Statement) -> ResultSet:
    """List the endpoints a job service declares."""
    job = find_job(session, _last_name(parsed))
    columns = [text(name) for name in ("name", "port", "port_range", "protocol", "is_public",
                                       "ingress_url")]  # fmt: skip
    spec = jobs_of(session).spec(job).data["spec"]
    rows = [
        (item["name"], item.get("port"), item.get("portRange"), item.get("protocol", "HTTP"),
         "true" if item.get("public") else "false", None)
        for item in spec.get("endpoints") or spec.get("endpoint") or []
    ]  # fmt: skip
    return table(columns, rows)


@statement("SHOW ROLES IN SERVICE")
def show_service_roles(session: "Session", parsed: Statement) -> ResultSet:
    """List the service roles a job service declares."""
    job = find_job(session, _last_name(parsed))
    roles = jobs_of(session).spec(job).data.get("serviceRoles") or []
    columns = [text("created_on"), text("name"), text("comment")]
    return table(columns, [(None, role["name"], None) for role in roles])


def _last_name(parsed: Statement) -> ObjectName:
    name = parsed.cursor.name()
    parsed.cursor.expect_end()
    return name


@statement("DROP SERVICE")
def drop_service(session: "Session", parsed: Statement) -> ResultSet:
    """Drop a job service; what still runs ends."""
    cursor = parsed.cursor
    if_exists = cursor.accept("IF EXISTS")
    name = cursor.name()
    forced = cursor.accept("FORCE")
    cursor.expect_end()
    if if_exists and session.find(KIND, name) is None:
        return already_dropped(name.name)
    job = find_job(session, name, "OWNERSHIP")
    volumes = jobs_of(session).spec(job).volumes.values()
    if not forced and any(volume.source == "block" for volume in volumes):
        raise errors.cannot_operate(f"{job.name} has block volumes: drop it with FORCE.")
    jobs_of(session).drop(job)
    return status(f"{job.name} successfully dropped.")


@statement("ALTER SERVICE")
def alter_service(session: "Session", parsed: Statement) -> ResultSet:
    """Refuse: a job service cannot be altered."""
    parsed.cursor.accept("IF EXISTS")
    find_job(session, parsed.cursor.name(), "OPERATE")
    raise errors.unsupported("ALTER SERVICE on a job service")


@method("SPCS_WAIT_FOR")
def wait_for(session: "Session", parsed: Statement, name: ObjectName, args: Arguments) -> str:
    """Wait until a job service has a status; error with the current one otherwise."""
    job = find_job(session, name, "USAGE", "MONITOR", "OPERATE")
    wanted = str(args.get(0, "STATUS", "")).upper()
    timeout = args.get(1, "TIMEOUT_SECS", 0)
    if not wanted or isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise errors.syntax_error(str(timeout))
    jobs = jobs_of(session)
    parsed.on_cancel(lambda: _wake(jobs))
    jobs.wait(job, lambda j: j.status == wanted or j.is_terminal, float(timeout), parsed.cancelled)
    if parsed.cancelled.is_set():
        raise errors.canceled()
    if job.status == wanted:
        return f"Job {job.name} reached status {job.status}."
    why = "can no longer reach it" if job.status in TERMINAL else "timed out"
    raise errors.StatementError(
        WAIT_FAILED, "22023",
        f"Waiting for status {wanted} of job {job.name} {why}. Current status: {job.status}.",
    )  # fmt: skip


def _wake(jobs: JobServices) -> None:
    with jobs.changed:
        jobs.changed.notify_all()


@method("SPCS_CANCEL_JOB")
def cancel_job(session: "Session", parsed: Statement, name: ObjectName, args: Arguments) -> str:
    """Cancel a job service: SIGTERM, 30 s of grace, SIGKILL; the object stays."""
    job = find_job(session, name, "OPERATE")
    if job.is_terminal:
        return f"Job {job.name} is already in status {job.status}."
    jobs_of(session).cancel(job)
    return f"Job {job.name} is being canceled."
