"""The statements of the one-time account set-up, as functions that return text.

A second module with SQL beside `sql`, for statements that only an administrator sends. All are
idempotent: objects are created if they do not exist, grants are repeated without harm.
"""

from collections.abc import Sequence

from monad_dagster.spcs.identifiers import QualifiedName, quote_identifier
from monad_dagster.spcs.sql import Statement, literal


def create_role(role: str) -> Statement:
    """Create the role that runs the pipeline."""
    return Statement(f"CREATE ROLE IF NOT EXISTS {quote_identifier(role)}")


def grant_role_to_role(role: str, parent: str) -> Statement:
    """Put *role* below *parent* in the hierarchy."""
    return Statement(f"GRANT ROLE {quote_identifier(role)} TO ROLE {quote_identifier(parent)}")


def grant_role_to_user(role: str, user: str) -> Statement:
    """Let *user* take *role*."""
    return Statement(f"GRANT ROLE {quote_identifier(role)} TO USER {quote_identifier(user)}")


def create_database(database: str) -> Statement:
    """Create a database."""
    return Statement(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(database)}")


def create_schema(database: str, schema: str) -> Statement:
    """Create a schema."""
    return Statement(f"CREATE SCHEMA IF NOT EXISTS {_schema(database, schema)}")


def create_stage(name: QualifiedName) -> Statement:
    """Create the stage.

    Server-side encryption cannot be chosen later, and makes LIST's md5 and directory tables useful.
    """
    return Statement(
        f"CREATE STAGE IF NOT EXISTS {name.sql()} "
        "ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE') DIRECTORY = (ENABLE = TRUE)"
    )


def create_image_repository(name: QualifiedName) -> Statement:
    """Create the image repository."""
    return Statement(f"CREATE IMAGE REPOSITORY IF NOT EXISTS {name.sql()}")


def create_warehouse(warehouse: str) -> Statement:
    """Create a small warehouse that starts suspended."""
    return Statement(
        f"CREATE WAREHOUSE IF NOT EXISTS {quote_identifier(warehouse)} WAREHOUSE_SIZE = XSMALL "
        "AUTO_SUSPEND = 60 AUTO_RESUME = TRUE INITIALLY_SUSPENDED = TRUE"
    )


def create_compute_pool(
    pool: str,
    *,
    instance_family: str,
    min_nodes: int,
    max_nodes: int,
    auto_suspend_seconds: int,
    backup_instance_families: Sequence[str] = (),
) -> Statement:
    """Create the compute pool, suspended."""
    backup = ""
    if backup_instance_families:
        names = ", ".join(literal(name) for name in backup_instance_families)
        backup = f" BACKUP_INSTANCE_FAMILIES = ({names})"
    return Statement(
        f"CREATE COMPUTE POOL IF NOT EXISTS {quote_identifier(pool)} MIN_NODES = {int(min_nodes)} "
        f"MAX_NODES = {int(max_nodes)} INSTANCE_FAMILY = {quote_identifier(instance_family)} "
        f"INITIALLY_SUSPENDED = TRUE AUTO_SUSPEND_SECS = {int(auto_suspend_seconds)} "
        f"AUTO_RESUME = TRUE{backup}"
    )


def grant_on_database(privilege: str, database: str, role: str) -> Statement:
    """Grant on a database."""
    return _grant(privilege, f"DATABASE {quote_identifier(database)}", role)


def grant_on_schema(privilege: str, database: str, schema: str, role: str) -> Statement:
    """Grant on a schema."""
    return _grant(privilege, f"SCHEMA {_schema(database, schema)}", role)


def grant_on_stage(privilege: str, name: QualifiedName, role: str) -> Statement:
    """Grant on a stage; an internal stage knows READ and WRITE only."""
    return _grant(privilege, f"STAGE {name.sql()}", role)


def grant_on_image_repository(privilege: str, name: QualifiedName, role: str) -> Statement:
    """Grant on an image repository; future grants do not exist for them."""
    return _grant(privilege, f"IMAGE REPOSITORY {name.sql()}", role)


def grant_on_compute_pool(privilege: str, pool: str, role: str) -> Statement:
    """Grant on a compute pool; future grants do not exist for them."""
    return _grant(privilege, f"COMPUTE POOL {quote_identifier(pool)}", role)


def grant_on_warehouse(privilege: str, warehouse: str, role: str) -> Statement:
    """Grant on a warehouse."""
    return _grant(privilege, f"WAREHOUSE {quote_identifier(warehouse)}", role)


def grant_on_table(privilege: str, name: QualifiedName, role: str) -> Statement:
    """Grant on one table."""
    return _grant(privilege, f"TABLE {name.sql()}", role)


def grant_on_all_tables(privilege: str, database: str, schema: str, role: str) -> Statement:
    """Grant on the tables a schema has now."""
    return _grant(privilege, f"ALL TABLES IN SCHEMA {_schema(database, schema)}", role)


def grant_on_future_tables(privilege: str, database: str, schema: str, role: str) -> Statement:
    """Grant on the tables a schema will have."""
    return _grant(privilege, f"FUTURE TABLES IN SCHEMA {_schema(database, schema)}", role)


def set_log_level(database: str, schema: str) -> Statement:
    """Keep container logs: a job service takes the level of its schema."""
    return Statement(f"ALTER SCHEMA {_schema(database, schema)} SET LOG_LEVEL = INFO")


def set_log_event_level(database: str, schema: str) -> Statement:
    """Keep platform events, which bundle 2026_02 separated from the logs."""
    return Statement(f"ALTER SCHEMA {_schema(database, schema)} SET LOG_EVENT_LEVEL = INFO")


def grant_events_viewer(role: str) -> Statement:
    """Let *role* read the default event table."""
    return Statement(
        f"GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO ROLE {quote_identifier(role)}"
    )


def grant_usage_viewer(role: str) -> Statement:
    """Let *role* read what compute pools cost."""
    return Statement(f"GRANT DATABASE ROLE SNOWFLAKE.USAGE_VIEWER TO ROLE {quote_identifier(role)}")


def _grant(privilege: str, target: str, role: str) -> Statement:
    return Statement(f"GRANT {privilege} ON {target} TO ROLE {quote_identifier(role)}")


def _schema(database: str, schema: str) -> str:
    return f"{quote_identifier(database)}.{quote_identifier(schema)}"
