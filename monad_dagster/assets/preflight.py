"""What is checked before a job service is paid for, and the versions of the source tables.

Tables and columns are looked up in Snowflake with the workload role's own rights, so that a missing
grant shows here and not after the image was pulled on a GPU node.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monad_dagster.assets.model_config import ModelConfig, SourceTable
from monad_dagster.errors import ConfigError, SnowflakeError, StageError, problem
from monad_dagster.spcs import sql, sql_tables
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.stage import StageClient


@dataclass(frozen=True)
class TableFacts:
    """What Snowflake says about one source table.

    Attributes:
        version: Changes when the table does; derived from row count and last-altered time.
    """

    table: SourceTable
    row_count: int | None
    last_altered: str
    version: str


def check_staged(session: Session, paths: Sequence[tuple[StagePath, str]]) -> None:
    """Refuse a launch whose files are not on the stage.

    Args:
        session: Of the role that will run the job service.
        paths: Each path that must be there, with the asset that puts it there.

    Raises:
        StageError: A path is empty.
    """
    client = StageClient(session)
    for path, asset in paths:
        if not client.exists(path):
            raise StageError(
                problem(
                    f"Stage path {path} is empty",
                    "the job service would not find what it reads",
                    f"Materialize {asset} first",
                )
            )


def check_sources(session: Session, config: ModelConfig) -> tuple[TableFacts, ...]:
    """Look up every table of *config* and the columns it cannot do without.

    Raises:
        ConfigError: A table or column does not exist or the role may not see it, or it is empty.
    """
    facts = read_table_facts(session, config.tables)
    for fact in facts:
        if fact.row_count == 0:
            raise ConfigError(
                problem(
                    f"Source table {fact.table.fqn} is empty",
                    "it has 0 rows",
                    "Load it: monad-dagster load --data DIR",
                )
            )
        _check_columns(session, config, fact.table)
    return facts


def read_table_facts(session: Session, tables: Sequence[SourceTable]) -> tuple[TableFacts, ...]:
    """Read row count and change time of each table."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for database, schema in sorted({(table.database, table.schema) for table in tables}):
        try:
            rows = session.execute(sql.table_facts(database, schema)).rows
        except SnowflakeError as error:
            if error.errno not in (2003, 2043):
                raise
            rows = []
        found |= {(database, schema, str(row["table_name"]).upper()): row for row in rows}
    return tuple(_facts(table, found) for table in tables)


def _facts(table: SourceTable, found: dict[tuple[str, str, str], dict[str, Any]]) -> TableFacts:
    row = found.get((table.database, table.schema, table.table))
    if row is None:
        raise ConfigError(
            problem(
                f"Source table {table.fqn} does not exist or the role may not see it",
                f"data source {table.source_name} names it",
                "Correct data_location, load the table, or grant USAGE and SELECT",
                "monad-dagster doctor",
            )
        )
    count = None if row["row_count"] is None else int(row["row_count"])
    altered = str(row["last_altered"])
    text = f"{table.fqn}\0{count}\0{altered}"
    return TableFacts(table, count, altered, hashlib.sha256(text.encode()).hexdigest())


def _check_columns(session: Session, config: ModelConfig, table: SourceTable) -> None:
    """Refuse a source whose key columns are missing, naming the ones there are."""
    name = QualifiedName(table.database, table.schema, table.table)
    rows = session.execute(sql_tables.describe_table(name)).rows
    present = [str(row["name"]) for row in rows]
    lowered = {column.lower() for column in present}
    missing = [column for column in table.required_columns if column.lower() not in lowered]
    if missing:
        raise ConfigError(
            problem(
                f"Column {', '.join(missing)} not found in {table.fqn}",
                f"it has {', '.join(present)}",
                f"Correct data source {table.source_name} in {config.path.name}",
            )
        )
