"""DDL of databases, schemas and warehouses, and COMMENT."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.catalog.privileges import KINDS
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import Cursor, ObjectName, Statement, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

DONE = "Statement executed successfully."
_SIZES = frozenset(
    {"XSMALL", "SMALL", "MEDIUM", "LARGE", "XLARGE", "XXLARGE", "XXXLARGE", "X4LARGE",
     "X5LARGE", "X6LARGE"}
)  # fmt: skip
_SIZE_ALIASES = {
    "X-SMALL": "XSMALL",
    "X-LARGE": "XLARGE",
    "2X-LARGE": "XXLARGE",
    "3X-LARGE": "XXXLARGE",
}
_WAREHOUSE = (
    "WAREHOUSE_SIZE", "WAREHOUSE_TYPE", "MAX_CLUSTER_COUNT", "MIN_CLUSTER_COUNT", "SCALING_POLICY",
    "AUTO_SUSPEND", "AUTO_RESUME", "INITIALLY_SUSPENDED", "RESOURCE_MONITOR", "COMMENT",
    "STATEMENT_TIMEOUT_IN_SECONDS", "STATEMENT_QUEUED_TIMEOUT_IN_SECONDS", "MAX_CONCURRENCY_LEVEL",
    "ENABLE_QUERY_ACCELERATION", "QUERY_ACCELERATION_MAX_SCALE_FACTOR", "TAG",
)  # fmt: skip
_LEVELS = frozenset({"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "OFF"})
_CONTAINER_PROPERTIES = (
    "DATA_RETENTION_TIME_IN_DAYS", "MAX_DATA_EXTENSION_TIME_IN_DAYS", "DEFAULT_DDL_COLLATION",
    "COMMENT", "LOG_LEVEL", "LOG_EVENT_LEVEL", "TRACE_LEVEL", "METRIC_LEVEL", "TAG", "EVENT_TABLE",
)  # fmt: skip
_LEVEL_PARAMETERS = ("LOG_LEVEL", "LOG_EVENT_LEVEL", "TRACE_LEVEL", "METRIC_LEVEL", "EVENT_TABLE")


def existing(
    session: "Session", statement: Statement, kind: str, name: ObjectName, if_not_exists: bool
) -> bool:
    """Handle a name that is held: True means the statement is done, by IF NOT EXISTS."""
    database, schema, last = session.locate(kind, name)
    if session.catalog.get(kind, last, database, schema) is None:
        return False
    if if_not_exists:
        return True
    if "OR REPLACE" not in statement.modifiers:
        raise errors.already_exists(quote_identifier(last))
    session.require_ownership(kind, name)
    return False


def exists_text(name: ObjectName) -> ResultSet:
    """Return the answer of IF NOT EXISTS for a name that is held."""
    return status(f"{name.name} already exists, statement succeeded.")


# Databases and schemas


@statement("CREATE DATABASE")
def create_database(session: "Session", statement: Statement) -> ResultSet:
    """Create a database with its PUBLIC schema and make both current."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    _refuse_clone(cursor)
    properties = cursor.properties(*_CONTAINER_PROPERTIES, kind="DATABASE")
    session.require_account("CREATE DATABASE")
    if existing(session, statement, "DATABASE", name, if_not_exists):
        return exists_text(name)
    last = name.name
    if session.catalog.get("DATABASE", last):
        _drop_database(session, last)
    session.account.engine.create_database(last)
    with session.catalog.transaction():
        session.create_object("DATABASE", name, properties=_kept(properties))
        session.catalog.create("SCHEMA", "PUBLIC", session.role, database=last)
    _set_levels(session, f"DATABASE:{last}", properties)
    session.account.engine.create_schema(last, "PUBLIC")
    session.database, session.schema = last, "PUBLIC"
    return status(f"Database {last} successfully created.")


def _refuse_clone(cursor: Cursor) -> None:
    if cursor.looking_at("CLONE"):
        raise errors.unsupported("CLONE")
    for words in ("FROM SHARE", "AS REPLICA OF"):
        if cursor.looking_at(words):
            raise errors.unsupported(words)


def _kept(properties: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in properties.items() if k not in _LEVEL_PARAMETERS and k != "TAG"}


@statement("CREATE SCHEMA")
def create_schema(session: "Session", statement: Statement) -> ResultSet:
    """Create a schema and make it current."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    _refuse_clone(cursor)
    managed = cursor.accept("WITH MANAGED ACCESS")
    properties = cursor.properties(*_CONTAINER_PROPERTIES, kind="SCHEMA")
    database, last = session.qualify_schema(name)
    session.lookup("DATABASE", ObjectName((database,)), "CREATE SCHEMA")
    full = ObjectName((database, last))
    if existing(session, statement, "SCHEMA", full, if_not_exists):
        return exists_text(name)
    if session.catalog.get("SCHEMA", last, database):
        _drop_schema(session, database, last)
    session.account.engine.create_schema(database, last)
    session.create_object(
        "SCHEMA", full, properties=_kept(properties) | ({"MANAGED": True} if managed else {})
    )
    _set_levels(session, f"SCHEMA:{database}.{last}", properties)
    session.database, session.schema = database, last
    return status(f"Schema {last} successfully created.")


@drop_statement("DATABASE")
def drop_database(session: "Session", found: CatalogObject) -> None:
    """Drop a database with everything in it."""
    _drop_database(session, found.name)
    if session.database == found.name:
        session.database = session.schema = None


def _drop_database(session: "Session", name: str) -> None:
    _run_drop_hooks(session, name, None)
    # The catalog first: what a kill leaves of the rest is removed at the next start.
    session.catalog.drop("DATABASE", name)
    session.account.engine.drop_database(name)
    session.account.stages.drop(name)


@drop_statement("SCHEMA")
def drop_schema(session: "Session", found: CatalogObject) -> None:
    """Drop a schema with everything in it."""
    _drop_schema(session, found.database, found.name)
    if (session.database, session.schema) == (found.database, found.name):
        session.schema = None


def _drop_schema(session: "Session", database: str, name: str) -> None:
    _run_drop_hooks(session, database, name)
    session.catalog.drop("SCHEMA", name, database=database)
    session.account.engine.drop_schema(database, name)
    session.account.stages.drop(database, name)


def _run_drop_hooks(session: "Session", database: str, schema: str | None) -> None:
    """Let other packages clean up before a schema or database goes."""
    for hook in session.account.drop_hooks:
        hook(database, schema)


@statement("ALTER DATABASE", "ALTER SCHEMA")
def alter_container(session: "Session", statement: Statement) -> ResultSet:
    """Set or unset parameters and properties of a database or schema."""
    cursor = statement.cursor
    kind = statement.words()[1]
    if_exists = cursor.accept("IF EXISTS")
    name = cursor.name()
    if if_exists and session.find(kind, name) is None:
        return status(DONE)
    found = session.lookup(kind, name, "MODIFY")
    scope = (
        f"DATABASE:{found.name}" if kind == "DATABASE" else f"SCHEMA:{found.database}.{found.name}"
    )
    if cursor.accept("UNSET"):
        while not cursor.at_end():
            key = cursor.identifier()
            session.account.set_parameter(scope, key, None)
            cursor.accept_op(",")
        return status(DONE)
    if not cursor.accept("SET"):
        words = " ".join(
            ["ALTER", kind, *(t.value for t in cursor.tokens[cursor.at : cursor.at + 1])]
        )
        raise errors.unsupported(words)
    properties = cursor.properties(*_CONTAINER_PROPERTIES, kind=kind)
    _set_levels(session, scope, properties)
    session.catalog.update(kind, found.name, database=found.database, **_kept(properties))
    return status(DONE)


def _set_levels(session: "Session", scope: str, properties: dict[str, Any]) -> None:
    for name in _LEVEL_PARAMETERS:
        if name in properties:
            value = str(properties[name]).upper()
            if name.endswith("LOG_LEVEL") and value not in _LEVELS:
                raise errors.invalid_value(properties[name], name)
            if name == "LOG_EVENT_LEVEL" and value not in {"INFO", "ERROR", "OFF", *_LEVELS}:
                raise errors.invalid_value(properties[name], name)
            if name == "METRIC_LEVEL" and value not in {"ALL", "NONE"}:
                raise errors.invalid_value(properties[name], name)
            session.account.set_parameter(scope, name, value)


# Warehouses


@statement("CREATE WAREHOUSE")
def create_warehouse(session: "Session", statement: Statement) -> ResultSet:
    """Create a warehouse; it costs nothing here and is always ready."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    properties = _warehouse_properties(cursor)
    session.require_account("CREATE WAREHOUSE")
    if existing(session, statement, "WAREHOUSE", name, if_not_exists):
        return exists_text(name)
    suspended = bool(properties.pop("INITIALLY_SUSPENDED", False))
    properties["STATE"] = "SUSPENDED" if suspended else "STARTED"
    session.create_object("WAREHOUSE", name, properties=properties,
                          replace="OR REPLACE" in statement.modifiers)  # fmt: skip
    session.warehouse = name.name
    return status(f"Warehouse {name.name} successfully created.")


def _warehouse_properties(cursor: Cursor) -> dict[str, Any]:
    properties = cursor.properties(*_WAREHOUSE, kind="WAREHOUSE")
    if "WAREHOUSE_SIZE" in properties:
        given = str(properties["WAREHOUSE_SIZE"]).upper()
        size = _SIZE_ALIASES.get(given, given)
        if size not in _SIZES:
            raise errors.invalid_value(given, "WAREHOUSE_SIZE")
        properties["WAREHOUSE_SIZE"] = size
    return properties


@statement("ALTER WAREHOUSE")
def alter_warehouse(session: "Session", statement: Statement) -> ResultSet:
    """Suspend, resume or change a warehouse."""
    cursor = statement.cursor
    if_exists = cursor.accept("IF EXISTS")
    name = cursor.name()
    if if_exists and session.find("WAREHOUSE", name) is None:
        return status(DONE)
    if cursor.accept_any("SUSPEND", "RESUME IF SUSPENDED", "RESUME") or cursor.looking_at("ABORT"):
        found = session.lookup("WAREHOUSE", name, "OPERATE")
        suspend = "SUSPEND" in statement.words(12) and "RESUME" not in statement.words(12)
        session.catalog.update("WAREHOUSE", found.name, STATE="SUSPENDED" if suspend else "STARTED")
        return status(DONE)
    cursor.expect("SET")
    found = session.lookup("WAREHOUSE", name, "MODIFY")
    session.catalog.update("WAREHOUSE", found.name, **_warehouse_properties(cursor))
    return status(DONE)


@drop_statement("WAREHOUSE")
def drop_warehouse(session: "Session", found: CatalogObject) -> None:
    """Drop a warehouse."""
    session.catalog.drop("WAREHOUSE", found.name)
    if session.warehouse == found.name:
        session.warehouse = None


@statement("COMMENT")
def comment(session: "Session", statement: Statement) -> ResultSet:
    """Set an object's comment."""
    cursor = statement.cursor
    if_exists = cursor.accept("IF EXISTS")
    cursor.expect("ON")
    kind = next((kind for kind in KINDS if cursor.accept(kind)), None)
    if kind is None:
        raise errors.unsupported("COMMENT ON " + " ".join(statement.words()[2:3]))
    name = cursor.name()
    cursor.expect("IS")
    text = cursor.string()
    cursor.expect_end()
    if if_exists and session.find(kind, name) is None:
        return status(DONE)
    found = session.require_ownership(kind, name)
    where = {"database": found.database, "schema": found.schema}
    session.catalog.update(kind, found.name, **where, COMMENT=text)
    return status(DONE)
