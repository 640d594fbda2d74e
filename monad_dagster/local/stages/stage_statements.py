"""Stage statements: CREATE, ALTER, DROP, DESCRIBE, SHOW, LIST, REMOVE, PUT, GET, COPY FILES.

Follows https://docs.snowflake.com/en/sql-reference/sql/create-stage and its neighbours. Only
internal named stages are emulated.
"""

import email.utils
import hashlib
import shutil
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.faults import faults_disk
from monad_dagster.local.protocol.results import ResultSet, number, status, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.show_options import parse_show, yes_no
from monad_dagster.local.sql.statements import ObjectName, StageLocation, Statement
from monad_dagster.local.stages import directory_tables, transfer
from monad_dagster.local.stages.stage_store import StagedFile

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_ENCRYPTIONS = ("SNOWFLAKE_FULL", "SNOWFLAKE_SSE")
_PROPERTIES = (
    "ENCRYPTION", "DIRECTORY", "COMMENT", "FILE_FORMAT", "COPY_OPTIONS", "TAG", "URL",
    "STORAGE_INTEGRATION", "CREDENTIALS",
)  # fmt: skip


@statement("CREATE STAGE")
def create_stage(session: "Session", statement: Statement) -> ResultSet:
    """Create an internal named stage."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    properties = cursor.properties(*_PROPERTIES, kind="STAGE")
    if {"URL", "STORAGE_INTEGRATION", "CREDENTIALS"} & set(properties):
        raise errors.unsupported("external stage")
    _check_encryption(properties)
    database, schema, last = session.qualify(name)
    temporary = "TEMPORARY" in statement.modifiers
    session.require_schema(database, schema, *(() if temporary else ("CREATE STAGE",)))
    existing = session.catalog.get("STAGE", last, database, schema)
    if existing is not None and if_not_exists:
        return status(f"{last} already exists, statement succeeded.")
    replace = "OR REPLACE" in statement.modifiers
    if existing is not None and replace:
        session.require_ownership("STAGE", ObjectName((database, schema, last)))
        session.account.stages.drop(database, schema, last)
    if existing is None:
        session.account.stages.drop(database, schema, last)  # left by a drop that was cut short
    facts = {key: properties[key] for key in ("COMMENT", "FILE_FORMAT") if key in properties}
    facts["ENCRYPTION"] = properties.get("ENCRYPTION", {}).get("TYPE", "SNOWFLAKE_FULL")
    facts["DIRECTORY"] = bool(properties.get("DIRECTORY", {}).get("ENABLE", False))
    if temporary:
        facts["TEMPORARY"] = True
    session.create_object("STAGE", name, replace=replace, properties=facts)
    session.account.stages.directory(database, schema, last)
    if facts["DIRECTORY"]:
        directory_tables.refresh(session, ObjectName((database, schema, last)))
    if temporary:
        session.temporary.add(("STAGE", database, schema, last))
    return status(f"Stage area {last} successfully created.")


def _check_encryption(properties: dict[str, Any]) -> None:
    encryption = properties.get("ENCRYPTION", {})
    kind = str(encryption.get("TYPE", "SNOWFLAKE_FULL")).upper()
    if kind not in _ENCRYPTIONS:
        raise errors.invalid_value(kind, "ENCRYPTION.TYPE")
    if encryption:
        encryption["TYPE"] = kind


@statement("ALTER STAGE")
def alter_stage(session: "Session", statement: Statement) -> ResultSet:
    """Set the comment or refresh the directory table."""
    cursor = statement.cursor
    if_exists = cursor.accept("IF EXISTS")
    name = cursor.name()
    if if_exists and session.find("STAGE", name) is None:
        return status("Statement executed successfully.")
    found = session.lookup("STAGE", name, "WRITE")
    if cursor.accept("REFRESH"):
        subpath = cursor.properties("SUBPATH", kind="STAGE").get("SUBPATH", "")
        return directory_tables.refresh(session, name, str(subpath))
    cursor.expect("SET")
    properties = cursor.properties("COMMENT", "DIRECTORY", "FILE_FORMAT", kind="STAGE")
    session.require_ownership("STAGE", name)
    if "DIRECTORY" in properties:
        properties["DIRECTORY"] = bool(properties["DIRECTORY"].get("ENABLE", False))
    session.catalog.update(
        "STAGE", found.name, database=found.database, schema=found.schema, **properties
    )
    return status("Statement executed successfully.")


@drop_statement("STAGE")
def drop_stage(session: "Session", found: CatalogObject) -> None:
    """Drop a stage with its files."""
    session.account.drop_object("STAGE", found.name, database=found.database, schema=found.schema)
    session.temporary.discard(("STAGE", found.database, found.schema, found.name))


@statement("DESCRIBE STAGE")
def describe_stage(session: "Session", statement: Statement) -> ResultSet:
    """Describe a stage's properties."""
    name = statement.cursor.name()
    statement.cursor.expect_end()
    found = session.lookup("STAGE", name)
    columns = [text(n) for n in ("parent_property", "property", "property_type", "property_value",
                                 "property_default")]  # fmt: skip
    rows = [
        ("STAGE_LOCATION", "URL", "String", "", ""),
        ("STAGE_ENCRYPTION", "TYPE", "String", found.properties.get("ENCRYPTION", ""), ""),
        (
            "DIRECTORY",
            "ENABLE",
            "Boolean",
            str(found.properties.get("DIRECTORY", False)).lower(),
            "false",
        ),
        ("DIRECTORY", "AUTO_REFRESH", "Boolean", "false", "false"),
    ]
    return table(columns, rows)


@statement("SHOW STAGES")
def show_stages(session: "Session", statement: Statement) -> ResultSet:
    """List visible stages."""
    options = parse_show(session, statement.cursor)
    columns = [
        timestamp("created_on"), text("name"), text("database_name"), text("schema_name"),
        text("url"), text("has_credentials"), text("has_encryption_key"), text("owner"),
        text("comment"), text("region"), text("type"), text("cloud"),
        text("notification_channel"), text("storage_integration"), text("endpoint"),
        text("owner_role_type"), text("directory_enabled"),
    ]  # fmt: skip
    found = session.visible("STAGE", options.database, options.schema)
    rows = [
        (s.created_on, s.name, s.database, s.schema, "", "N", "N", s.owner,
         s.properties.get("COMMENT", ""), None, _stage_type(s), None, None, None, None, "ROLE",
         yes_no(s.properties.get("DIRECTORY")))
        for s in options.select(found, lambda s: s.name)
    ]  # fmt: skip
    return table(columns, rows)


def _stage_type(found: CatalogObject) -> str:
    return (
        "INTERNAL NO CSE" if found.properties.get("ENCRYPTION") == "SNOWFLAKE_SSE" else "INTERNAL"
    )


def staged_files(
    session: "Session", location: StageLocation, *privileges: str, pattern: str | None = None
) -> tuple[CatalogObject, list[StagedFile]]:
    """Return a stage and its files below *location*, after checking *privileges*."""
    found = session.lookup("STAGE", location.stage, *privileges)
    files = session.account.stages.files(
        found.database, found.schema, found.name, location.path, pattern
    )
    return found, list(files)


def _pattern(statement: Statement) -> str | None:
    properties = statement.cursor.properties("PATTERN", kind="STAGE")
    return properties.get("PATTERN")


@statement("LIST")
def list_stage(session: "Session", statement: Statement) -> ResultSet:
    """List a stage's files."""
    location = statement.cursor.stage_location()
    found, files = staged_files(session, location, "READ", pattern=_pattern(statement))
    columns = [text("name"), number("size"), text("md5"), text("sha1"), text("last_modified")]
    rows = [
        (listed_name(found, file.path), file.size_bytes, listed_md5(session, found, file), None,
         email.utils.formatdate(file.modified, usegmt=True))
        for file in files
    ]  # fmt: skip
    return table(columns, rows)


def listed_name(found: CatalogObject, path: str) -> str:
    """Return a file's name as LIST shows it."""
    return f"{found.name.lower()}/{path}"


def listed_md5(session: "Session", found: CatalogObject, file: StagedFile) -> str:
    """Return the md5 column; under SNOWFLAKE_FULL it is not the local file's."""
    digest = session.account.stages.md5(file)
    if found.properties.get("ENCRYPTION") == "SNOWFLAKE_SSE":
        return digest
    return hashlib.md5(f"full:{digest}".encode(), usedforsecurity=False).hexdigest()


@statement("REMOVE")
def remove(session: "Session", statement: Statement) -> ResultSet:
    """Delete files whose path starts with the given one (text prefix, as Snowflake does)."""
    location = statement.cursor.stage_location()
    pattern = _pattern(statement)
    found, files = staged_files(session, location, "WRITE", pattern=pattern)
    for file in files:
        session.account.stages.remove(found.database, found.schema, found.name, file)
    rows = [(listed_name(found, file.path), "removed") for file in files]
    return table([text("name"), text("result")], rows)


@statement("PUT")
def put(session: "Session", statement: Statement) -> ResultSet:
    """Tell the client where to upload."""
    cursor = statement.cursor
    source = _local_path(statement)
    location = cursor.stage_location()
    options = cursor.properties(
        "PARALLEL", "AUTO_COMPRESS", "SOURCE_COMPRESSION", "OVERWRITE", "THRESHOLD", kind="PUT"
    )
    found = session.lookup("STAGE", location.stage, "WRITE")
    return ResultSet(
        [], [], command=transfer.upload(session, statement, found, location.path, source, options)
    )


@statement("GET")
def get(session: "Session", statement: Statement) -> ResultSet:
    """Tell the client what to download."""
    cursor = statement.cursor
    location = cursor.stage_location()
    target = _local_path(statement)
    options = cursor.properties("PARALLEL", "PATTERN", kind="GET")
    found, files = staged_files(session, location, "READ", pattern=options.get("PATTERN"))
    return ResultSet(
        [], [], command=transfer.download(session, statement, found, files, target, options)
    )


def _local_path(statement: Statement) -> str:
    """Read a file:// URL, bare or quoted, and return the path."""
    token = statement.cursor.peek()
    if token is not None and token.kind == "path":
        statement.cursor.next()
        value = token.value
    else:
        value = statement.cursor.string()
    if not value.lower().startswith("file://"):
        raise errors.syntax_error(value)
    return value[len("file://") :]


@statement("COPY FILES")
def copy_files(session: "Session", statement: Statement) -> ResultSet:
    """Copy files from one stage to another."""
    cursor = statement.cursor
    cursor.expect("INTO")
    target = cursor.stage_location()
    cursor.expect("FROM")
    source = cursor.stage_location()
    options = cursor.properties("FILES", "PATTERN", "DETAILED_OUTPUT", kind="COPY FILES")
    into = session.lookup("STAGE", target.stage, "WRITE")
    _, files = staged_files(session, source, "READ", pattern=options.get("PATTERN"))
    base = source.path.rpartition("/")[0]
    wanted = set(options.get("FILES", []))
    rows = []
    for file in files:
        relative = file.path[len(base) :].lstrip("/")
        if wanted and relative not in wanted and file.location.name not in wanted:
            continue
        destination = f"{target.path.rstrip('/')}/{relative}".lstrip("/")
        path = session.account.stages.resolve(into.database, into.schema, into.name, destination)
        faults_disk.check_room(
            session.account.faults, statement.query_id, (into.database, into.schema, into.name),
            statement.text,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".monad-{path.name}")
        shutil.copyfile(file.location, partial)
        partial.replace(path)
        rows.append((listed_name(into, destination),))
    if options.get("DETAILED_OUTPUT") is False:
        return table([number("numOfFilesCopied")], [(len(rows),)])
    return table([text("file")], rows)
