"""SQL text for tables: creating, loading from a stage, facts about sources.

Together with `sql.py` the only place of the production code that holds SQL. Identifiers arrive
as parts and are quoted here; values are bound.
"""

from collections.abc import Sequence


def quote(identifier: str) -> str:
    """Quote one identifier part; embedded quotes are doubled."""
    return '"' + identifier.replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    """Join identifier parts to a quoted name."""
    return ".".join(quote(part) for part in parts)


def create_table(
    database: str, schema: str, table: str, columns: Sequence[tuple[str, str]]
) -> str:
    """Return CREATE OR REPLACE TABLE with (name, type) *columns*."""
    body = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
    return f"CREATE OR REPLACE TABLE {qualified(database, schema, table)} ({body})"


def create_load_stage(database: str, schema: str, stage: str) -> str:
    """Return the statement that makes the stage files are loaded from."""
    return f"CREATE STAGE IF NOT EXISTS {qualified(database, schema, stage)}"


def copy_parquet(database: str, schema: str, table: str, stage: str, folder: str) -> str:
    """Return COPY INTO for the Parquet files under *folder*/ of the stage."""
    location = "@" + qualified(database, schema, stage) + f"/{folder}/"
    return (
        f"COPY INTO {qualified(database, schema, table)} FROM '{location}' "
        "FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE "
        "ON_ERROR = ABORT_STATEMENT"
    )


def grant_data_access(database: str, schema: str, role: str) -> list[str]:
    """Return the grants a role needs to read every table of a schema, now and later."""
    where = qualified(database, schema)
    to_role = f"TO ROLE {quote(role)}"
    return [
        f"GRANT USAGE ON DATABASE {quote(database)} {to_role}",
        f"GRANT USAGE ON SCHEMA {where} {to_role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {where} {to_role}",
        f"GRANT SELECT ON FUTURE TABLES IN SCHEMA {where} {to_role}",
    ]


def create_database_and_schema(database: str, schema: str) -> list[str]:
    """Return the statements that make the database and schema of the source tables."""
    return [
        f"CREATE DATABASE IF NOT EXISTS {quote(database)}",
        f"CREATE SCHEMA IF NOT EXISTS {qualified(database, schema)}",
    ]


def table_facts(database: str, num_tables: int) -> str:
    """Return the query for row counts and change times; binds: schema, then table names."""
    marks = ", ".join(["%s"] * num_tables)
    return (
        "SELECT TABLE_NAME, ROW_COUNT, LAST_ALTERED "
        f"FROM {quote(database)}.INFORMATION_SCHEMA.TABLES "
        f"WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({marks})"
    )


def describe_table(database: str, schema: str, table: str) -> str:
    """Return DESCRIBE TABLE, which lists the columns."""
    return f"DESCRIBE TABLE {qualified(database, schema, table)}"
