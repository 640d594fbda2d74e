"""Functions on job services: logs, status, waiting, history and the table functions.

GET_SERVICE_LOGS reads what the node still holds, 100 KB at most; SPCS_GET_LOGS and
SPCS_GET_EVENTS read the event table, which LOG_LEVEL and LOG_EVENT_LEVEL fill.
"""

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.faults import faults_jobs
from monad_dagster.local.jobs import job_logs, job_views
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_records import newest_first
from monad_dagster.local.jobs.job_statements import find_job, jobs_of
from monad_dagster.local.protocol.results import (
    ResultSet,
    number,
    table,
    text,
    timestamp_ntz,
    variant,
)
from monad_dagster.local.sql.handlers import function, table_function, table_method
from monad_dagster.local.sql.statements import (
    Arguments,
    Expression,
    ObjectName,
    Statement,
    parse_name,
)

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

LOGS_UNAVAILABLE = 395010  # approximate: the texts are Snowflake's, the number is not known
MAX_HISTORY = 10_000


@function("SYSTEM$GET_SERVICE_LOGS")
def get_service_logs(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return the newest log lines of a container, both streams merged."""
    if not 3 <= len(args.positional) <= 7:
        raise errors.compilation_error(
            938, "22023", "not enough arguments for function [SYSTEM$GET_SERVICE_LOGS]"
        )
    job = find_job(session, _name(args, 0), "MONITOR")
    instance, container = _container(job, str(args.get(1, "")), str(args.get(2, "")))
    num_lines = args.get(3, "NUM_LINES")
    if args.get(4, "PREVIOUS"):
        # Containers of job services are never restarted, so there was none before [text I].
        raise errors.StatementError(
            LOGS_UNAVAILABLE, "22023",
            f"Unable to get previous logs of container {container.name} of instance "
            f"{instance.index}: it was not restarted.",
        )  # fmt: skip
    if container.status == "PENDING":
        raise errors.StatementError(
            LOGS_UNAVAILABLE, "22023", f"{container.message}, Container Status: PENDING"
        )
    if job.logs_gone:
        raise _no_instance(job, str(instance.index), available=False)
    path = jobs_of(session).launcher.run_dir(job, instance, container.name) / "log"
    return job_logs.tail(
        path,
        num_lines=None if num_lines is None else max(0, int(num_lines)),
        since=str(args.get(5, "SINCE_TIMESTAMP") or ""),
        include_timestamps=bool(args.get(6, "INCLUDE_TIMESTAMPS")),
        max_bytes=faults_jobs.max_log_bytes(session.account.faults, job, job_logs.MAX_LOG_BYTES),
    )


def _container(job: Job, instance_id: str, name: str) -> tuple[InstanceState, ContainerState]:
    for instance in job.instances:
        if str(instance.index) == instance_id:
            for container in instance.containers:
                if container.name == name:
                    return instance, container
            names = ", ".join(container.name for container in instance.containers)
            raise errors.StatementError(
                LOGS_UNAVAILABLE, "22023",
                f"Unable to get container status for container name: {name}. "
                f"Available containers: {names}",
            )  # fmt: skip
    raise _no_instance(job, instance_id, available=True)


def _no_instance(job: Job, instance_id: str, *, available: bool) -> errors.StatementError:
    ids = ", ".join(str(instance.index) for instance in job.instances) if available else ""
    return errors.StatementError(
        LOGS_UNAVAILABLE, "22023",
        f"Unable to get container status for instance id: {instance_id}. "
        f"Available instances: {ids}",
    )  # fmt: skip


@function("SYSTEM$GET_SERVICE_STATUS", note="deprecated in Snowflake")
def get_service_status(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return the containers' statuses as JSON, after waiting for READY if asked to."""
    job = find_job(session, _name(args, 0), "MONITOR")
    timeout = args.get(1, "TIMEOUT_SECS")
    if timeout:
        jobs_of(session).wait(
            job, lambda j: j.status != "PENDING", float(timeout), parsed.cancelled
        )
    return json.dumps(job_views.status_json(job))


@function("SYSTEM$WAIT_FOR_SERVICES")
def wait_for_services(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Wait until every named service is ready."""
    if len(args.positional) < 2 or not isinstance(args.positional[0], int | float):
        raise errors.syntax_error(str(args.get(0, "", "")))
    timeout = float(args.positional[0])
    jobs = [find_job(session, _name(args, i), "MONITOR") for i in range(1, len(args.positional))]
    for job in jobs:
        if not jobs_of(session).wait(
            job, lambda j: j.status != "PENDING", timeout, parsed.cancelled
        ):
            raise errors.StatementError(
                LOGS_UNAVAILABLE, "22023",
                f"Timed out waiting for service {job.name}. Current status: {job.status}.",
            )  # fmt: skip
    return "OK"


@function("SYSTEM$GET_SERVICE_DNS_DOMAIN")
def get_dns_domain(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return the DNS domain of a schema's services."""
    database, schema = session.qualify_schema(_name(args, 0))
    session.require_schema(database, schema)
    return job_views.dns_domain(database, schema)


@table_function("SNOWFLAKE.SPCS.GET_JOB_HISTORY")
def get_job_history(session: "Session", parsed: Statement, args: Arguments) -> ResultSet:
    """Return the current role's job services of the last 30 days, dropped ones included."""
    now = session.now()
    start = time_argument(session, args.get(0, "CREATED_TIME_START"), now - dt.timedelta(days=30))
    end = time_argument(session, args.get(1, "CREATED_TIME_END"), now + dt.timedelta(seconds=1))
    limit = args.get(2, "RESULT_LIMIT", 100)
    if not isinstance(limit, int) or not 1 <= limit <= MAX_HISTORY:
        raise errors.invalid_value(limit, "RESULT_LIMIT")
    jobs = [
        job
        for job in newest_first(list(jobs_of(session).jobs.values()))
        if job.owner == session.role and start.timestamp() <= job.created_at <= end.timestamp()
    ]
    return table(job_views.HISTORY_COLUMNS, [job_views.history_row(job) for job in jobs[:limit]])


@table_method("SPCS_GET_LOGS", note="a node sends at most 1 MB a second")
def get_logs(session: "Session", parsed: Statement, name: ObjectName, args: Arguments) -> ResultSet:
    """Return the log lines of a job service that reached the event table."""
    columns = [
        timestamp_ntz("TIMESTAMP"), number("INSTANCE_ID"), text("CONTAINER_NAME"), text("LOG"),
        variant("RECORD_ATTRIBUTES"),
    ]  # fmt: skip
    rows = [
        (row.at, row.instance, row.container, _text(row.value), row.attributes)
        for row in _rows(session, name, args, "LOG")
    ]
    return table(columns, rows)


@table_method("SPCS_GET_EVENTS")
def get_events(
    session: "Session", parsed: Statement, name: ObjectName, args: Arguments
) -> ResultSet:
    """Return the platform events of a job service."""
    columns = [
        timestamp_ntz("TIMESTAMP"), text("SEVERITY"), text("EVENT_NAME"),
        variant("EVENT_DETAILS"), number("INSTANCE_ID"), text("CONTAINER_NAME"),
        variant("RECORD"), variant("RECORD_ATTRIBUTES"),
    ]  # fmt: skip
    rows = [
        (row.at, (row.record or {}).get("severity_text"), (row.record or {}).get("name"),
         row.value, row.instance, row.container, row.record, row.attributes)
        for row in _rows(session, name, args, "EVENT")
    ]  # fmt: skip
    return table(columns, rows)


@table_method(
    "SPCS_GET_METRICS",
    note="network needs an instance's own network (docker-bridge); storage is of block volumes: "
    "capacity and usage",
)
def get_metrics(
    session: "Session", parsed: Statement, name: ObjectName, args: Arguments
) -> ResultSet:
    """Return the platform metrics that the specification asked for."""
    columns = [
        timestamp_ntz("TIMESTAMP"), text("METRIC_NAME"), text("VALUE"), text("UNIT"),
        number("INSTANCE_ID"), text("CONTAINER_NAME"), text("RESOURCE"), variant("RECORD"),
        variant("RECORD_ATTRIBUTES"),
    ]  # fmt: skip
    rows = []
    for row in _rows(session, name, args, "METRIC"):
        metric = (row.record or {})["metric"]
        rows.append(
            (row.at, metric["name"], str(row.value), metric["unit"], row.instance, row.container,
             None, row.record, row.attributes)  # RESOURCE is documented as never filled
        )  # fmt: skip
    return table(columns, rows)


def _rows(session: "Session", name: ObjectName, args: Arguments, record_type: str) -> list[Any]:
    job = find_job(session, name, "MONITOR")
    now = session.now()
    start = time_argument(session, args.get(0, "START_TIME"), now - dt.timedelta(days=1))
    end = time_argument(session, args.get(1, "END_TIME"), now + dt.timedelta(seconds=1))
    rows = session.account.extensions["events"].rows(job.id, record_type, start, end)
    newest = faults_jobs.newest_event_ns(session.account, job)
    return rows if newest is None else [row for row in rows if row.at_ns <= newest]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(args: Arguments, index: int) -> ObjectName:
    value = args.get(index, "NAME")
    if not isinstance(value, str):
        raise errors.syntax_error(str(value))
    return parse_name(value)


_DATEADD = re.compile(
    r"(?:DATEADD|TIMEADD|TIMESTAMPADD)\s*\(\s*'?([A-Z]+?)S?'?\s*,\s*(-?\d+)\s*,\s*(.+)\)",
    re.I | re.S,
)
_NOW = re.compile(
    r"(?:CURRENT_TIMESTAMP|SYSDATE|LOCALTIMESTAMP|GETDATE)\s*(?:\(\s*\d*\s*\))?", re.I
)
_CAST = re.compile(
    r"(?:TO_TIMESTAMP(?:_LTZ|_NTZ|_TZ)?|TRY_TO_TIMESTAMP)\s*\(\s*(.+)\)", re.I | re.S
)
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400, "WEEK": 604800}


def time_argument(session: "Session", value: Any, default: dt.datetime) -> dt.datetime:
    """Return a time argument: a literal, or DATEADD / TO_TIMESTAMP / CURRENT_TIMESTAMP of one."""
    if value is None:
        return default
    if isinstance(value, Expression):
        return _time_expression(session, value.sql.strip())
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    return _time_literal(str(value))


def _time_expression(session: "Session", sql: str) -> dt.datetime:
    if _NOW.fullmatch(sql):
        return session.now()
    if found := _DATEADD.fullmatch(sql):
        unit = _UNITS.get(found[1].upper())
        if unit is None:
            raise errors.invalid_value(found[1], "DATEADD")
        return _time_expression(session, found[3].strip()) + dt.timedelta(
            seconds=unit * int(found[2])
        )
    if found := _CAST.fullmatch(sql):
        return _time_expression(session, found[1].strip())
    return _time_literal(re.sub(r"::\s*[\w()]+$", "", sql).strip().strip("'"))


def _time_literal(value: str) -> dt.datetime:
    try:
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return dt.datetime.fromtimestamp(float(value), dt.UTC)
        time = dt.datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        raise errors.compilation_error(
            100035, "22007", f"Timestamp '{value}' is not recognized"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
