"""Every statement the project sends, as functions that return text; the only module with SQL.

Nothing here talks to Snowflake. Identifiers arrive as resolved names and are quoted here; values
arrive as Python values and are escaped here. `EXECUTE JOB SERVICE` is written pool first, other
properties next, specification last: the order of the documented examples.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monad_dagster.spcs.identifiers import QualifiedName, StagePath, quote_identifier

# The view of the default event table: what the application role EVENTS_VIEWER may read.
EVENT_TABLE = "SNOWFLAKE.TELEMETRY.EVENTS_VIEW"
MAX_HISTORY = 10_000  # what GET_JOB_HISTORY returns at most
MAX_QUERY_TAG = 2_000  # characters, page "QUERY_TAG"; a longer one is refused
_DOLLAR_BEFORE_DOLLAR = re.compile(r"\$(?=\$)")
_KIND = re.compile(r"^[A-Z]+(?: (?!IF\b|IN\b|FROM\b|INTO\b|SET\b|LIKE\b)[A-Z]+){0,2}")


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        text: What is sent.
        repeatable: Whether sending it again after a lost answer is harmless.
        note: What the statement is for, shown by a dry run.
    """

    text: str
    repeatable: bool = True
    note: str = ""

    @property
    def kind(self) -> str:
        """The statement's first words, without names and literals."""
        match = _KIND.match(self.text)
        return match.group(0) if match else self.text.split(" ", 1)[0]

    def __str__(self) -> str:
        return self.text


def literal(value: object) -> str:
    """Write *value* as an SQL literal.

    Strings are quoted and their quotes and backslashes escaped; None is NULL; mappings and lists
    become JSON text.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return f"'{value.isoformat(sep=' ')}'"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def like_literal(name: str) -> str:
    """Write a LIKE pattern that matches exactly *name*."""
    escaped = name.replace("_", "\\_").replace("%", "\\%")
    return literal(escaped)


def inline_specification(spec: Mapping[str, Any]) -> str:
    """Write *spec* between dollar quotes, so that no value can end the quotes early."""
    text = json.dumps(spec, ensure_ascii=False)
    return f"$${_DOLLAR_BEFORE_DOLLAR.sub(lambda _: chr(92) + 'u0024', text)}$$"


# --- session ----------------------------------------------------------------------------------


def set_query_tag(tag: Mapping[str, Any]) -> Statement:
    """Tag every later statement of the session; values that make it too long are cut short."""
    text, longest = json.dumps(tag, sort_keys=True), MAX_QUERY_TAG
    while len(text) > MAX_QUERY_TAG and longest > 1:
        longest //= 2
        text = json.dumps({key: str(value)[:longest] for key, value in tag.items()}, sort_keys=True)
    return Statement(f"ALTER SESSION SET QUERY_TAG = {literal(text)}")


def set_json_results() -> Statement:
    """Ask for JSON result sets, which the registry token request needs."""
    return Statement("ALTER SESSION SET PYTHON_CONNECTOR_QUERY_RESULT_FORMAT = 'json'")


def current_session() -> Statement:
    """Say who is connected, as what, and where."""
    return Statement(
        "SELECT CURRENT_ACCOUNT() AS account, CURRENT_USER() AS user_name, "
        "CURRENT_ROLE() AS role_name, CURRENT_DATABASE() AS database_name, "
        "CURRENT_SCHEMA() AS schema_name, CURRENT_WAREHOUSE() AS warehouse_name"
    )


def current_region() -> Statement:
    """Say in which region the account is."""
    return Statement("SELECT CURRENT_REGION() AS region")


def use_role(role: str) -> Statement:
    """Take *role* for the rest of the session."""
    return Statement(f"USE ROLE {quote_identifier(role)}")


# --- job services -----------------------------------------------------------------------------


def execute_job_service(
    *,
    name: QualifiedName,
    compute_pool: str,
    spec: Mapping[str, Any] | None = None,
    spec_file: StagePath | None = None,
    asynchronous: bool = True,
    replicas: int | None = None,
    query_warehouse: str | None = None,
    comment: str | None = None,
    external_access_integrations: Sequence[str] = (),
) -> Statement:
    """Start a job service from an inline or a staged specification.

    The name makes it repeatable: a second statement is refused because the name is held.
    """
    lines = [
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {quote_identifier(compute_pool)}",
        f"NAME = {name.sql()}",
        f"ASYNC = {'TRUE' if asynchronous else 'FALSE'}",
    ]
    if replicas is not None:
        lines.append(f"REPLICAS = {int(replicas)}")
    if query_warehouse:
        lines.append(f"QUERY_WAREHOUSE = {quote_identifier(query_warehouse)}")
    if comment is not None:
        lines.append(f"COMMENT = {literal(comment)}")
    if external_access_integrations:
        names = ", ".join(quote_identifier(item) for item in external_access_integrations)
        lines.append(f"EXTERNAL_ACCESS_INTEGRATIONS = ({names})")
    if spec_file is not None:
        lines.append(f"FROM @{spec_file.stage.sql()}")
        lines.append(f"SPECIFICATION_FILE = {literal(spec_file.path)}")
    else:
        lines.append(f"FROM SPECIFICATION {inline_specification(spec or {})}")
    return Statement("\n".join(lines))


def describe_service(name: QualifiedName) -> Statement:
    """Read one job service, its specification included."""
    return Statement(f"DESCRIBE SERVICE {name.sql()}")


def show_service_containers(name: QualifiedName) -> Statement:
    """List the containers of a job service with status, message and exit code."""
    return Statement(f"SHOW SERVICE CONTAINERS IN SERVICE {name.sql()}")


def show_job_services(database: str, schema: str, *, like: str | None = None) -> Statement:
    """List the job services of a schema."""
    pattern = f" LIKE {literal(like)}" if like else ""
    place = f"{quote_identifier(database)}.{quote_identifier(schema)}"
    return Statement(f"SHOW JOB SERVICES{pattern} IN SCHEMA {place}")


def get_service_logs(
    name: QualifiedName,
    *,
    instance_id: int,
    container: str,
    num_lines: int,
    previous: bool = False,
    since: str | None = None,
) -> Statement:
    """Read the newest lines of one container.

    With *since* the undocumented seven-argument form is used, which prefixes a timestamp to
    every line and starts at *since*, inclusive; an empty string starts at the beginning.
    """
    arguments = [literal(name.sql()), literal(str(instance_id)), literal(container)]
    arguments.append(str(int(num_lines)))
    if previous or since is not None:
        arguments.append(literal(previous))
    if since is not None:
        arguments += [literal(since), literal(True)]
    return Statement(f"SELECT SYSTEM$GET_SERVICE_LOGS({', '.join(arguments)}) AS logs")


def spcs_get_logs(name: QualifiedName, *, start: datetime | None = None) -> Statement:
    """Read persisted log lines, which outlive the node; they arrive with minutes of delay."""
    window = f"START_TIME => {literal(start)}::TIMESTAMP_LTZ" if start else ""
    return Statement(
        f"SELECT * FROM TABLE({name.sql()}!SPCS_GET_LOGS({window})) ORDER BY timestamp"
    )


def event_table_logs(
    name: QualifiedName, *, start: datetime, event_table: str = EVENT_TABLE
) -> Statement:
    """Read log lines from the event table, in the columns of SPCS_GET_LOGS.

    The name is not unique over time, hence *start*; the instance is spelt in two ways.
    """
    attribute = "RESOURCE_ATTRIBUTES"
    return Statement(
        "SELECT timestamp, "
        f'COALESCE({attribute}:"snow.service.instance", '
        f'{attribute}:"snow.service.container.instance")::VARCHAR AS instance_id, '
        f'{attribute}:"snow.service.container.name"::VARCHAR AS container_name, value AS log '
        f"FROM {event_table} "
        f'WHERE {attribute}:"snow.service.name"::VARCHAR = {literal(name.name)} '
        f'AND {attribute}:"snow.database.name"::VARCHAR = {literal(name.database)} '
        f'AND {attribute}:"snow.schema.name"::VARCHAR = {literal(name.schema)} '
        f"AND RECORD_TYPE = 'LOG' AND timestamp >= {literal(start)}::TIMESTAMP_NTZ "
        "ORDER BY timestamp"
    )


def cancel_job_service(name: QualifiedName) -> Statement:
    """End a job service and keep its record."""
    return Statement(f"CALL {name.sql()}!SPCS_CANCEL_JOB()")


def drop_service(name: QualifiedName, *, force: bool = False) -> Statement:
    """Remove a job service and its record."""
    return Statement(f"DROP SERVICE IF EXISTS {name.sql()}{' FORCE' if force else ''}")


def job_history(*, created_after: datetime | None = None, limit: int = 1000) -> Statement:
    """Read the current role's job services of the last 30 days, dropped ones included."""
    arguments = [f"RESULT_LIMIT => {int(limit)}"]
    if created_after is not None:
        arguments.insert(0, f"CREATED_TIME_START => {literal(created_after)}::TIMESTAMP_LTZ")
    return Statement(f"SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY({', '.join(arguments)}))")


def job_in_history(*, name: QualifiedName | None = None, query_id: str | None = None) -> Statement:
    """Find one job service in the history, by its statement's query id or by its name."""
    conditions = []
    if query_id is not None:
        conditions.append(f"query_id = {literal(query_id)}")
    if name is not None:
        conditions.append(
            f"(name = {literal(name.name)} AND database_name = {literal(name.database)} "
            f"AND schema_name = {literal(name.schema)})"
        )
    return Statement(
        f"{job_history(limit=MAX_HISTORY)} WHERE {' OR '.join(conditions) or 'FALSE'} "
        "ORDER BY created_time DESC LIMIT 1"
    )


# --- compute pools ----------------------------------------------------------------------------


def describe_compute_pool(name: str) -> Statement:
    """Read one compute pool, its status message included."""
    return Statement(f"DESCRIBE COMPUTE POOL {quote_identifier(name)}")


def show_instance_families() -> Statement:
    """List the instance families of the account's region."""
    return Statement("SHOW COMPUTE POOL INSTANCE FAMILIES")


def resume_compute_pool(name: str) -> Statement:
    """Start a suspended pool."""
    return Statement(f"ALTER COMPUTE POOL {quote_identifier(name)} RESUME")


# --- stages -----------------------------------------------------------------------------------


def put(local_file: str, target: StagePath, *, parallel: int = 4) -> Statement:
    """Upload one file into a stage directory, uncompressed, replacing what is there.

    The defaults would compress the file and would silently keep an older one.
    """
    source = literal(f"file://{local_file}")
    return Statement(
        f"PUT {source} {target.sql(directory=True)} "
        f"AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE "
        f"PARALLEL = {int(parallel)}"
    )


def get(
    source: StagePath,
    local_directory: str,
    *,
    directory: bool = False,
    pattern: str | None = None,
    parallel: int = 10,
) -> Statement:
    """Download a file, or the files of a directory that match *pattern*."""
    target = literal(f"file://{local_directory.rstrip('/')}/")
    chosen = f" PATTERN = {literal(pattern)}" if pattern else ""
    place = source.sql(directory=directory)
    return Statement(f"GET {place} {target} PARALLEL = {int(parallel)}{chosen}")


def list_stage(path: StagePath, *, directory: bool = True, pattern: str | None = None) -> Statement:
    """List the files below a stage path; *pattern* has to match the whole of a file's path."""
    chosen = f" PATTERN = {literal(pattern)}" if pattern else ""
    return Statement(f"LIST {path.sql(directory=directory and bool(path.path))}{chosen}")


def remove(path: StagePath, *, directory: bool) -> Statement:
    """Remove one file, or a directory's files; a directory ends with a slash.

    REMOVE matches a prefix: without the slash `run1` would take `run10` with it.
    """
    return Statement(f"REMOVE {path.sql(directory=directory)}")


# --- image repositories -----------------------------------------------------------------------


def show_image_repositories(name: QualifiedName) -> Statement:
    """Find an image repository and its registry URL."""
    return Statement(
        f"SHOW IMAGE REPOSITORIES LIKE {like_literal(name.name)} IN SCHEMA {name.schema_name}"
    )


def show_images(name: QualifiedName) -> Statement:
    """List the images of a repository with tags and digests."""
    return Statement(f"SHOW IMAGES IN IMAGE REPOSITORY {name.sql()}")


# --- grants and tables ------------------------------------------------------------------------


def show_grants_to_role(role: str) -> Statement:
    """List what a role may do."""
    return Statement(f"SHOW GRANTS TO ROLE {quote_identifier(role)}")


def show_warehouses(name: str) -> Statement:
    """Find a warehouse the role can see."""
    return Statement(f"SHOW WAREHOUSES LIKE {like_literal(name)}")


def table_facts(database: str, schema: str) -> Statement:
    """Read row counts and last-altered times of a schema's tables."""
    return Statement(
        "SELECT table_name, row_count, last_altered FROM "
        f"{quote_identifier(database)}.INFORMATION_SCHEMA.TABLES "
        f"WHERE table_schema = {literal(schema)} ORDER BY table_name"
    )
