"""SQL text for tables: creating, loading from a stage, facts about sources.

Together with `sql.py` the only place of the production code that holds SQL. Names arrive
resolved and are quoted by their own types.
"""

from collections.abc import Sequence

from monad_dagster.spcs.identifiers import QualifiedName, StagePath, quote_identifier
from monad_dagster.spcs.sql import Statement


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
