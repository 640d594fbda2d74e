"""Land one source in the scratch database: Parquet through DuckDB, Snowflake in Arrow batches."""

import logging
from pathlib import Path
from typing import Any

import duckdb

from monad.config import environment
from monad.config.schema import EVENT, DataSource
from monad.config.support import OTHER_DATABASES, READ_DATABASES
from monad.data import parquet_cache, snowflake
from monad.data.landing import (
    Landed,
    chosen_columns,
    finish,
    fix_lambda_types,
    is_wide,
    kept_lambdas,
    quoted,
    resolve,
    row_filters,
    select_columns,
    warn_of_overrides,
)
from monad.errors import ConfigError, DataError, nearest, problem

logger = logging.getLogger("monad.fit")


def land(
    connection: duckdb.DuckDBPyConnection,
    source: DataSource,
    table: str,
    needed: list[str],
    start: int,
    end: int | None = None,
) -> Landed:
    """Read *source* into *table*; *needed* names columns that must be kept for joins.

    Rows of an attribute source with a date_column are read only when they hold by *end*.
    """
    kind = source.data_location.database_type
    bounds = row_filters(source, start, end)
    if kind == "parquet":
        return _land_parquet(connection, source, table, needed, bounds)
    if kind == "snowflake":
        return _land_snowflake(connection, source, table, needed, bounds)
    known = (*READ_DATABASES, *OTHER_DATABASES)
    raise ConfigError(
        problem(
            f"Data source {source.name} uses database_type `{kind}`", do=nearest(str(kind), known)
        )
    )


def parquet_relation(source: DataSource) -> str:
    """Return the SQL that reads a Parquet source: a file, a directory or a pattern."""
    params = source.data_location.connection_params
    if not params.get("path"):
        raise ConfigError(
            problem(f"Data source {source.name}: data_location.connection_params.path is required")
        )
    text = environment.substitute(str(params["path"]), f"{source.name}.connection_params.path")
    path = Path(text)
    if path.is_dir():
        text = str(path / "**" / "*.parquet")
    return f"read_parquet('{text.replace(chr(39), chr(39) * 2)}')"


def _not_parquet(path: str) -> str:
    """Say what to do with a file of text; nothing about other files."""
    plain = path.lower().removesuffix(".gz")
    if not plain.endswith((".csv", ".tsv", ".txt")):
        return ""
    made = path[: len(plain) - 4] + ".parquet"
    return (
        "database_type parquet reads Parquet only; write the file once, rows in the same order:"
        f""" duckdb.sql("COPY (FROM read_csv('{path}')) TO '{made}'")"""
    )


def _land_parquet(
    connection: duckdb.DuckDBPyConnection,
    source: DataSource,
    table: str,
    needed: list[str],
    bounds: str,
) -> Landed:
    params = source.data_location.connection_params
    relation = parquet_relation(source)
    text = relation.removeprefix("read_parquet('").removesuffix("')")
    for key, value in (params.get("config_overrides") or {}).items():
        _set_option(connection, source, str(key), value)
    cache = parquet_cache.cache_file(source, text, needed, bounds)
    found = parquet_cache.restore(connection, cache, table)
    facts: dict[str, Any] = {"name": text, "last_altered": None}
    if found is not None:
        columns, seen = found["columns"], found["seen"]
        made = finish(connection, source, table, columns, seen, True, facts)
        made.latest = found["latest"]
        return made
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error as error:
        raise DataError(
            problem(
                f"Data source {source.name} cannot be read",
                str(error).splitlines()[0],
                _not_parquet(text) or f"Check the path {text}",
            )
        ) from error
    types = {row[0]: row[1] for row in described}
    kept = chosen_columns(source, list(types), needed)
    # Integers past 64 bits, such as hashes, stay whole as text.
    types |= dict.fromkeys(_past_64_bits(connection, types, kept, relation), "VARCHAR")
    warn_of_overrides(source, list(types))
    expressions, columns = select_columns(source, types, needed, kept, lambdas=True)
    where = f" WHERE {source.where_condition}" if source.where_condition else ""
    try:
        seen = connection.execute(f"SELECT count(*) FROM {relation}{where}").fetchall()[0][0]
        connection.execute(
            f"CREATE TABLE {table} AS SELECT * FROM (SELECT {', '.join(expressions)}"
            f" FROM {relation}{where}){bounds}"
        ).fetchall()
    except duckdb.Error as error:
        raise DataError(
            problem(
                f"Data source {source.name} cannot be queried",
                str(error).splitlines()[0],
                "Check where_condition, sql_lambdas and date_column.format",
                f"path {text}",
            )
        ) from error
    fix_lambda_types(connection, table, columns)
    made = finish(connection, source, table, columns, seen, True, facts)
    made.latest = _latest_dates(connection, source, types, f"{relation}{where}")
    content = {"columns": columns, "seen": seen, "latest": made.latest}
    parquet_cache.save(connection, cache, table, content)
    return made


def _past_64_bits(
    connection: duckdb.DuckDBPyConnection, types: dict[str, str], names: list[str], table: str
) -> list[str]:
    """Return those of the columns *names* that hold an integer of more than 64 bits."""
    asked = [name for name in names if is_wide(types[name])]
    if not asked:
        return []
    parts = ", ".join(
        f"count({quoted(name)}) - count(TRY_CAST({quoted(name)} AS BIGINT))" for name in asked
    )
    row = connection.execute(f"SELECT {parts} FROM {table}").fetchall()[0]
    return [name for name, lost in zip(asked, row, strict=True) if lost]


def _set_option(
    connection: duckdb.DuckDBPyConnection, source: DataSource, key: str, value: Any
) -> None:
    text = str(value).replace("'", "''")
    try:
        connection.execute(f"SET {quoted(key)} = '{text}'").fetchall()
    except duckdb.Error as error:
        raise ConfigError(
            problem(
                f"Data source {source.name}: config_overrides.{key} cannot be set to `{value}`",
                " ".join(str(error).split()),
                "Give settings of DuckDB",
            )
        ) from error


def _latest_dates(
    connection: duckdb.DuckDBPyConnection, source: DataSource, types: dict[str, str], table: str
) -> dict[str, int | None]:
    """Return the latest time of each date column of an attribute source without a date_column."""
    if source.type == EVENT or source.date_column is not None:
        return {}
    dates = [n for n, kind in types.items() if kind.startswith(("DATE", "TIMESTAMP"))]
    if not dates:
        return {}
    parts = ", ".join(f"epoch(CAST(max({quoted(name)}) AS TIMESTAMP))" for name in dates)
    row = connection.execute(f"SELECT {parts} FROM {table}").fetchall()[0]
    return {n: None if x is None else int(x) for n, x in zip(dates, row, strict=True)}


def _land_snowflake(
    connection: duckdb.DuckDBPyConnection,
    source: DataSource,
    table: str,
    needed: list[str],
    bounds: str,
) -> Landed:
    with snowflake.SnowflakeTable(source) as remote:
        names = remote.column_names()
        if source.main_entity_column:
            resolve(source, source.main_entity_column, names, "main_entity_column")
        if source.date_column:
            resolve(source, source.date_column.name, names, "date_column.name")
        reserved = [source.main_entity_column or "", getattr(source.date_column, "name", "")]
        wanted = chosen_columns(source, names, [*needed, *reserved])
        kept = chosen_columns(source, names, needed) + kept_lambdas(source, names, wanted)
        warn_of_overrides(source, names)
        columns: dict[str, str] = {}
        dates: dict[str, int | None] = {}
        seen = 0
        for batch in remote.batches(wanted):
            connection.register("__batch", batch)
            described = connection.execute("DESCRIBE SELECT * FROM __batch").fetchall()
            types = {row[0]: row[1] for row in described}
            spelled = [n for n in types if n.lower() in {k.lower() for k in kept}]
            for name in _past_64_bits(connection, types, spelled, "__batch"):
                logger.warning(
                    "Data source %s: integers of more than 64 bits in %s are read as missing; cast"
                    " the column to VARCHAR in sql_lambdas",
                    source.name,
                    name,
                )
            expressions, found = select_columns(source, types, needed, spelled, lambdas=False)
            inner = f"SELECT {', '.join(expressions)} FROM __batch"
            if not seen:
                columns = found
                empty = f"CREATE TABLE {table} AS SELECT * FROM ({inner}) LIMIT 0"
                connection.execute(empty).fetchall()
            # DuckDB 2 keeps a result open until it is fetched, and allows nothing else meanwhile.
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT * FROM ({inner}){bounds}"
            ).fetchall()
            if source.type != EVENT and source.date_column is None:
                for name, latest in _latest_dates(connection, source, types, "__batch").items():
                    dates[name] = max(latest or 0, dates.get(name) or 0)
            connection.unregister("__batch")
            seen += batch.num_rows
        made = finish(connection, source, table, columns, seen, False, remote.facts())
        made.latest = dates
        return made
