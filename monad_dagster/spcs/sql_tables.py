"""SQL text for tables: creating, loading from a stage, facts about sources.

Together with `sql.py` the only place of the production code that holds SQL. Names arrive
resolved and are quoted by their own types.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from monad_dagster.spcs.identifiers import QualifiedName, StagePath, quote_identifier
from monad_dagster.spcs.sql import Statement, literal


def create_table(table: QualifiedName, columns: Sequence[tuple[str, str]]) -> Statement:
    """Create *table*, replacing an earlier one, with (name, type) *columns*."""
    body = ", ".join(f"{quote_identifier(name)} {kind}" for name, kind in columns)
    return Statement(f"CREATE OR REPLACE TABLE {table.sql()} ({body})")


def create_load_stage(stage: QualifiedName) -> Statement:
    """Make the stage that files are loaded from."""
    return Statement(f"CREATE STAGE IF NOT EXISTS {stage.sql()}")


def copy_parquet(table: QualifiedName, folder: StagePath) -> Statement:
    """Copy the Parquet files below *folder* into *table*, matching columns by name."""
    return Statement(
        f"COPY INTO {table.sql()} FROM {folder.sql(directory=True)} "
        "FILE_FORMAT = (TYPE = PARQUET) MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE "
        "ON_ERROR = ABORT_STATEMENT",
        repeatable=False,
    )


def describe_table(table: QualifiedName) -> Statement:
    """List the columns of a table."""
    return Statement(f"DESCRIBE TABLE {table.sql()}")


# --- cost -------------------------------------------------------------------------------------

COST_COLUMNS: tuple[tuple[str, str], ...] = (
    ("day", "DATE"),
    ("asset", "VARCHAR"),
    ("compute_pool", "VARCHAR"),
    ("num_job_services", "NUMBER"),
    ("node_seconds", "FLOAT"),
    ("credits_estimated", "FLOAT"),
    ("credits_billed", "FLOAT"),
    ("is_final", "BOOLEAN"),
)


def pool_usage(*, since: datetime) -> Statement:
    """Read what compute pools were billed by the hour; rows are up to three hours late."""
    return Statement(
        "SELECT start_time, compute_pool_name, credits_used "
        "FROM SNOWFLAKE.ACCOUNT_USAGE.SNOWPARK_CONTAINER_SERVICES_HISTORY "
        f"WHERE start_time >= {literal(since)}::TIMESTAMP_LTZ"
    )


def create_cost_table(table: QualifiedName) -> Statement:
    """Create the table of costs by asset, pool and day."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COST_COLUMNS)
    return Statement(f"CREATE TABLE IF NOT EXISTS {table.sql()} ({columns})")


def delete_costs(table: QualifiedName, *, since: date) -> Statement:
    """Remove the rows of the days that are written again."""
    return Statement(f"DELETE FROM {table.sql()} WHERE day >= {literal(since.isoformat())}::DATE")


def insert_rows(
    table: QualifiedName, columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]
) -> Statement:
    """Insert rows in one statement; what a row lacks of the (name, type) *columns* is NULL."""
    names = [name for name, _ in columns]
    values = ", ".join(
        "(" + ", ".join(literal(row.get(name)) for name in names) + ")" for row in rows
    )
    return Statement(
        f"INSERT INTO {table.sql()} ({', '.join(names)}) VALUES {values}", repeatable=False
    )


def insert_costs(table: QualifiedName, rows: Sequence[Mapping[str, Any]]) -> Statement:
    """Insert costs in one statement."""
    return insert_rows(table, COST_COLUMNS, rows)


def select_costs(table: QualifiedName) -> Statement:
    """Read all costs, oldest first."""
    return Statement(f"SELECT * FROM {table.sql()} ORDER BY day, compute_pool, asset")


def begin() -> Statement:
    """Open a transaction."""
    return Statement("BEGIN", repeatable=False)


def commit() -> Statement:
    """Make a transaction's changes visible at once."""
    return Statement("COMMIT", repeatable=False)
