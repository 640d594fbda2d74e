"""Statements about the LINEAGE table: one row for each edge of a materialization."""

from collections.abc import Mapping, Sequence
from typing import Any

from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.sql import Statement, literal
from monad_dagster.spcs.sql_tables import insert_rows

LINEAGE_COLUMNS: tuple[tuple[str, str], ...] = (
    ("recorded_at", "TIMESTAMP_NTZ"),
    ("output_asset", "VARCHAR"),
    ("output_partition", "VARCHAR"),
    ("output_version", "VARCHAR"),
    ("output_location", "VARCHAR"),
    ("input_kind", "VARCHAR"),
    ("input_name", "VARCHAR"),
    ("input_version", "VARCHAR"),
    ("run_id", "VARCHAR"),
    ("job_service", "VARCHAR"),
    ("query_id", "VARCHAR"),
    ("details", "VARCHAR"),
)


def create_lineage_table(name: QualifiedName) -> Statement:
    """Create the table that answers what produced what, one row for each edge."""
    columns = ", ".join(f"{column} {kind}" for column, kind in LINEAGE_COLUMNS)
    return Statement(f"CREATE TABLE IF NOT EXISTS {name.sql()} ({columns})")


def insert_lineage(name: QualifiedName, rows: Sequence[Mapping[str, Any]]) -> Statement:
    """Insert the edges of one materialization in one statement."""
    return insert_rows(name, LINEAGE_COLUMNS, rows)


def select_lineage(name: QualifiedName, *, output_version: str) -> Statement:
    """Read the edges that lead to one version."""
    return Statement(
        f"SELECT * FROM {name.sql()} WHERE output_version = {literal(output_version)} "
        "ORDER BY recorded_at, input_name"
    )
