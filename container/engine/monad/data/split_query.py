"""Which main entities are held out for validation: by percentage, by a file, or by a query.

A query runs once on the data, and the first column of its result holds the ids. With Parquet
sources it runs on DuckDB, where each source is a view of its name; with a Snowflake event source it
runs there, as the user of that source.
"""

import zlib

import duckdb
import numpy as np

from monad.config.params import EntityIds
from monad.config.schema import EVENT, FoundationModelConfig
from monad.data.landing import quoted
from monad.data.snowflake import SnowflakeTable
from monad.data.sources import parquet_relation
from monad.data.store import Store
from monad.errors import DataError, problem


def held_out_entities(config: FoundationModelConfig, store: Store) -> np.ndarray:
    """Return a mask of the entities held out for validation; the same in every run.

    Raises:
        DataError: No entity, or every entity, would be held out by the ids given.
    """
    split = config.data_params.split
    if split.file is not None:
        return _chosen(store, _ids_of_file(split.file), f"data_params.split.file {split.file}")
    if split.query is not None:
        return _chosen(store, _ids_of_query(config, split.query), "data_params.split.query")
    limit = split.percentage * 100
    hashed = [zlib.crc32(str(n).encode()) % 10_000 < limit for n in store.entity_ids.tolist()]
    made = np.array(hashed, dtype=bool)
    if made.all() and len(made):
        made[:] = False
    return made


def _chosen(store: Store, ids: set[str], what: str) -> np.ndarray:
    made = np.array([str(name) in ids for name in store.entity_ids.tolist()], dtype=bool)
    if not made.any() or made.all():
        raise DataError(
            problem(
                f"{what} holds out {'every' if made.all() else 'no'} main entity",
                f"{len(ids)} ids, {int(made.sum())} of {len(made)} main entities",
                "Give ids of some of the entities, as main_entity_column has them",
            )
        )
    return made


def _ids_of_file(file: str) -> set[str]:
    return set(EntityIds(file=file).resolve("data_params.split.file"))


def _ids_of_query(config: FoundationModelConfig, query: str) -> set[str]:
    event = config.sources(EVENT)[0]
    if event.data_location.database_type == "snowflake":
        with SnowflakeTable(event) as table:
            return {str(row[0]) for row in table.rows(query) if row[0] is not None}
    connection = duckdb.connect()
    try:
        for source in config.data_sources:
            if source.data_location.database_type == "parquet":
                relation = parquet_relation(source)
                view = f"CREATE VIEW {quoted(source.name)} AS SELECT * FROM {relation}"
                connection.execute(view).fetchall()
        rows = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise DataError(
            problem(
                "data_params.split.query failed",
                str(error).splitlines()[0],
                "Each Parquet source is a view of its name; select the ids in the first column",
            )
        ) from error
    finally:
        connection.close()
    return {str(row[0]) for row in rows if row[0] is not None}
