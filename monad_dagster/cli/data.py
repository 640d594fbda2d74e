"""Load tables into an account: generated sample data, or the user's own files.

Every table goes the same way: Parquet parts, PUT to a stage, COPY INTO. So `load` also works on a
real account.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.output import note, reports_errors, step
from monad_dagster.errors import ConfigError, problem
from monad_dagster.settings import Settings

if TYPE_CHECKING:
    from monad_dagster.sample_data.tables import TableSource
    from monad_dagster.spcs.connection import Session
    from monad_dagster.spcs.identifiers import StagePath

LOAD_STAGE = "MONAD_LOAD_STAGE"
_MAX_ROWS_PER_FILE = 2_000_000


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of CSV or Parquet files."
)
@click.option("--database", help="Target database (default: MONAD_DATA_DATABASE).")
@click.option("--schema", help="Target schema (default: MONAD_DATA_SCHEMA).")
@reports_errors
def load(data: Path, database: str | None, schema: str | None) -> None:
    """Load every CSV or Parquet table of a folder into the account.

    Example: monad-dagster load --data ./exports --database SHOP
    """
    overrides = {}
    if database:
        overrides["MONAD_DATA_DATABASE"] = database.upper()
    if schema:
        overrides["MONAD_DATA_SCHEMA"] = schema.upper()
    settings = ctx.current_settings(overrides)
    load_user_tables(settings, data, force=True)


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--customers", default=20_000, show_default=True, help="Rows of CUSTOMERS.")
@click.option(
    "--transactions", default=500_000, show_default=True, help="About so many rows of TRANSACTIONS."
)
@click.option("--articles", type=int, help="Default: scaled to the number of customers.")
@click.option("--seed", type=int, help="Default: the seed of make pipeline.")
@reports_errors
def sample(
    output: Path, customers: int, transactions: int, articles: int | None, seed: int | None
) -> None:
    """Generate H&M-shaped sample data as Parquet files.

    Example: monad-dagster sample ./sample --customers 1371980 --transactions 31800000
    """
    from monad_dagster.sample_data.generate import DEFAULT_SEED, generate_sample

    with step(f"Generating {transactions:,} transactions of {customers:,} customers") as detail:
        generate_sample(
            output,
            num_customers=customers,
            num_transactions=transactions,
            num_articles=articles,
            seed=DEFAULT_SEED if seed is None else seed,
            progress=lambda done, total: detail(f"{done:,} of {total:,} rows"),
        )
    note(f"Sample data in {output}")


def prepare_sample(settings: Settings, *, customers: int, transactions: int) -> None:
    """Generate the sample once and load it once into the local account."""
    from monad_dagster.sample_data import generate_sample

    folder = settings.home.absolute() / "sample" / f"{customers}-{transactions}"
    with step(f"Sample data: {transactions:,} transactions of {customers:,} customers"):
        generate_sample(folder, num_customers=customers, num_transactions=transactions)
    load_user_tables(settings, folder)


def load_user_tables(settings: Settings, folder: Path, *, force: bool = False) -> None:
    """Load the tables of *folder*, unless exactly these files were loaded before."""
    from monad_dagster.sample_data.tables import discover_tables

    if not folder.is_dir():
        raise ConfigError(problem("The data folder does not exist", f"looked for {folder}"))
    fingerprint = _fingerprint(folder)
    marker = settings.local_state_dir / "loaded.json"
    loaded = json.loads(marker.read_text()) if marker.is_file() else {}
    target = f"{settings.data_database}.{settings.data_schema}"
    if not force and settings.deployment == "local" and loaded.get(target) == fingerprint:
        note(f"{target} already holds the tables of {folder.name}")
        return
    tables = discover_tables(folder)
    with ctx.open_session(settings, admin=True) as session:
        _prepare_target(session, settings)
        for table in tables:
            with step(f"Loading {target}.{table.name}"):
                _load_table(session, settings, table)
    if settings.deployment == "local":
        marker.write_text(json.dumps(loaded | {target: fingerprint}))


def _load_stage(settings: Settings) -> "StagePath":
    from monad_dagster.spcs.identifiers import QualifiedName, StagePath

    return StagePath(QualifiedName(settings.data_database, settings.data_schema, LOAD_STAGE))


def _prepare_target(session: "Session", settings: Settings) -> None:
    """Make database, schema and load stage, and let the workload role read."""
    from monad_dagster.spcs import sql_setup, sql_tables
    from monad_dagster.spcs.account_setup import data_grant_statements

    database, schema = settings.data_database, settings.data_schema
    for statement in (
        sql_setup.create_database(database),
        sql_setup.create_schema(database, schema),
        *data_grant_statements(database, schema, settings.role),
        sql_tables.create_load_stage(_load_stage(settings).stage),
    ):
        session.execute(statement)


def _load_table(session: "Session", settings: Settings, table: "TableSource") -> None:
    """Create one table and copy its Parquet parts into it."""
    from monad_dagster.spcs import sql_tables
    from monad_dagster.spcs.scratch import scratch_directory
    from monad_dagster.spcs.stage import StageClient

    folder = _load_stage(settings) / table.name
    stage = StageClient(session)
    columns = [(column.name, column.sql_type) for column in table.columns]
    name = folder.stage.sibling(table.name)
    with scratch_directory("load") as scratch:
        parts = table.write_parquet(scratch, max_rows_per_file=_MAX_ROWS_PER_FILE)
        session.execute(sql_tables.create_table(name, columns))
        for part in parts:
            stage.put_file(part, folder / part.name)
    session.execute(sql_tables.copy_parquet(name, folder))
    stage.remove_directory(folder)


def _fingerprint(folder: Path) -> str:
    """Identify the files of a folder by name, size and change time."""
    facts = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
