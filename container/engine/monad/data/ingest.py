"""Build the column store: land every source once, then sort and write typed columns.

The scratch database does the sort and the joins out of core; numbers and codes go straight to
memory-mapped files in batches. The table is never in memory as a whole.
"""

import logging
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monad.config import environment
from monad.config.schema import ATTRIBUTE, ENTITY_ATTRIBUTE, EVENT, FoundationModelConfig
from monad.config.time_range import to_timestamp
from monad.data.landing import BOOLEAN, Landed, as_key, quoted, resolve
from monad.data.leaks import leave_out_leaks, warn_of_snapshot
from monad.data.profile import ColumnPlan, plan_columns
from monad.data.sources import land
from monad.data.store import CATEGORY, NUMBER, AttributeTable, Column, Store, Table
from monad.errors import DataError, problem

logger = logging.getLogger("monad.fit")
Plans = dict[str, list[ColumnPlan]]


def build_store(
    config: FoundationModelConfig, training_end: int | None, plans: Plans | None = None
) -> tuple[Store, Plans]:
    """Read all sources of *config* into a store on scratch.

    Args:
        config: The configuration.
        training_end: Last second of the training range, which bounds profiling.
        plans: Column plans of a checkpoint; when given, nothing is inferred again.

    Returns:
        The store, whose files live as long as it does, and the column plans.
    """
    directory = Path(tempfile.mkdtemp(prefix="monad-store-", dir=environment.scratch_root()))
    try:
        store, plans = _Ingest(config, directory, training_end, plans).run()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    weakref.finalize(store, shutil.rmtree, directory, True)
    return store, plans


class _Ingest:
    """One run of the ingestion; holds the scratch database."""

    def __init__(
        self,
        config: FoundationModelConfig,
        directory: Path,
        training_end: int | None,
        plans: Plans | None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.training_end = training_end
        self.given = plans
        self.plans: Plans = {}
        self.connection = duckdb.connect(str(directory / "landing.duckdb"))
        self.connection.execute("SET enable_progress_bar = false").fetchall()
        self.connection.execute(f"SET temp_directory = '{directory / 'spill'}'").fetchall()
        self.connection.execute("SET TimeZone = 'UTC'").fetchall()
        if config.query_optimization.num_threads:
            self.connection.execute(
                f"SET threads = {int(config.query_optimization.num_threads)}"
            ).fetchall()
        if config.memory_constraining_params.max_memory:
            limit = str(config.memory_constraining_params.max_memory)
            self.connection.execute("SET max_memory = '" + limit.replace("'", "") + "'").fetchall()

    def run(self) -> tuple[Store, Plans]:
        try:
            landed = self._land_all()
            entities = self._entities(landed)
            joined = {
                item.source.name: self._dimension(item)
                for item in landed
                if item.source.type == ATTRIBUTE
            }
            by_name = {item.source.name: item for item in landed}
            tables = [
                self._event_table(item, len(entities), joined, by_name)
                for item in landed
                if item.source.type == EVENT
            ]
            attributes = [
                self._entity_attributes(item)
                for item in landed
                if item.source.type == ENTITY_ATTRIBUTE
            ]
        finally:
            self.connection.close()
            (self.directory / "landing.duckdb").unlink(missing_ok=True)
        facts = {"source_tables": [item.facts for item in landed]}
        return Store(entities, tables, attributes, facts), self.plans

    def _land_all(self) -> list[Landed]:
        keys: dict[str, list[str]] = {source.name: [] for source in self.config.data_sources}
        for source in self.config.data_sources:
            for joined in source.joined_data_sources:
                keys[source.name] += [pair[0] for pair in joined.join_on]
                keys[joined.name] += [pair[1] for pair in joined.join_on]
        start = to_timestamp(self.config.data_params.data_start_date, "data_start_date")
        used = {j.name for s in self.config.data_sources for j in s.joined_data_sources}
        landed = []
        for index, source in enumerate(self.config.data_sources):
            if source.type == ATTRIBUTE and source.name not in used:
                logger.warning("Data source %s is joined to no event source", source.name)
                continue
            item = land(
                self.connection,
                source,
                f"src_{index}",
                keys[source.name],
                start,
                self.training_end,
            )
            logger.info(
                "Read data source %s: %d rows, %d columns",
                source.name,
                item.rows,
                len(item.columns),
            )
            self.plans[source.name] = self._plan(item)
            landed.append(item)
        return landed

    def _plan(self, item: Landed) -> list[ColumnPlan]:
        if self.given is None:
            made = plan_columns(self.connection, item, self.training_end)
            if item.source.type == EVENT:
                leave_out_leaks(self.connection, item, made, self.training_end)
            else:
                warn_of_snapshot(item, self.training_end)
            return made
        plans = self.given.get(item.source.name, [])
        for plan in plans:
            resolve(item.source, plan.name, list(item.columns), "the table")
        return plans

    def _warn_of_strangers(self, item: Landed, others: list[Landed]) -> None:
        """Warn when a source has no main entity in common with the others."""
        union = " UNION ALL ".join(f"SELECT __entity FROM {x.table}" for x in others)
        found = self.connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM {item.table} WHERE __entity IN ({union}))"
        ).fetchall()[0][0]
        if not found:
            logger.warning(
                "Data source %s has no main entity in common with the other sources: check that"
                " main_entity_column %s holds the same ids, written alike",
                item.source.name,
                item.source.main_entity_column,
            )

    def _entities(self, landed: list[Landed]) -> np.ndarray:
        whose = [x for x in landed if x.source.type != ATTRIBUTE]
        for item in whose if len(whose) > 1 else ():
            self._warn_of_strangers(item, [x for x in whose if x is not item])
        union = " UNION ALL ".join(
            f"SELECT __entity FROM {x.table}" for x in landed if x.source.type != ATTRIBUTE
        )
        self.connection.execute(
            "CREATE TABLE entities AS SELECT __entity,"
            " CAST(row_number() OVER (ORDER BY __entity) - 1 AS INTEGER) AS __index"
            f" FROM (SELECT DISTINCT __entity FROM ({union}))"
        ).fetchall()
        found = self.connection.execute("SELECT __entity FROM entities ORDER BY __index")
        return found.fetchnumpy()["__entity"].astype(object)

    def _dictionary(self, table: str, spelled: str) -> pa.Array:
        sql = (
            f"SELECT DISTINCT {quoted(spelled)} AS v FROM {table}"
            f" WHERE {quoted(spelled)} IS NOT NULL ORDER BY v"
        )
        found = self.connection.sql(sql).to_arrow_table().column(0)
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    def _columns(self, item: Landed, rows: int, prefix: str) -> list[tuple[Column, Any]]:
        """Create the column files of a source; returns columns with their Arrow dictionary."""
        made = []
        for plan in self.plans[item.source.name]:
            spelled = resolve(item.source, plan.name, list(item.columns), "the table")
            file = self.directory / f"{prefix}_{len(made)}.npy"
            kind = np.int32 if plan.kind == CATEGORY else np.float32
            data = _mapped(file, kind, rows)
            dictionary, values = None, None
            if plan.kind == CATEGORY:
                dictionary = self._dictionary(item.table, spelled)
                values = dictionary.to_numpy(zero_copy_only=False)
                if values.dtype.kind not in "if":
                    values = values.astype(object)
            boolean = plan.kind == CATEGORY and item.columns[spelled] == BOOLEAN
            column = Column(
                plan.name, plan.kind, plan.override, data, values, None, plan.modelled, boolean
            )
            made.append((column, dictionary))
        return made

    def _fill(self, sql: str, columns: list[tuple[Column, Any]], extra: list[np.ndarray]) -> None:
        """Stream a query: first the *extra* arrays' columns, then the table's columns."""
        rows = self.config.query_optimization.chunk_rows
        reader = self.connection.sql(sql).to_arrow_reader(rows)
        at = 0
        for batch in reader:
            upto = at + batch.num_rows
            for position, array in enumerate(extra):
                array[at:upto] = batch.column(position).to_numpy(zero_copy_only=False)
            for position, (column, dictionary) in enumerate(columns, start=len(extra)):
                column.data[at:upto] = _encoded(batch.column(position), column, dictionary)
            at = upto
        for column, _ in columns:
            if isinstance(column.data, np.memmap):
                column.data.flush()
            column.data = np.asarray(column.data)  # still mapped; a plain view slices faster

    def _event_table(
        self, item: Landed, num_entities: int, joined: dict[str, Any], by_name: dict[str, Landed]
    ) -> Table:
        prefix = item.table
        columns = self._columns(item, item.rows, prefix)
        times = self._array(f"{prefix}_times", np.int64, item.rows)
        owners = self._array(f"{prefix}_entities", np.int32, item.rows)
        extra, selected, joins, indirect = [owners, times], [], "", []
        for number, join in enumerate(item.source.joined_data_sources):
            alias, dimension = f"j{number}", by_name[join.name]
            tests = []
            for left, right in join.join_on:
                ours = resolve(item.source, left, list(item.columns), "joined_data_sources.join_on")
                theirs = resolve(
                    dimension.source, right, list(dimension.columns), "joined_data_sources.join_on"
                )
                mine = as_key(f"t.{quoted(ours)}", item.columns[ours])
                other = as_key(f"{alias}.{quoted(theirs)}", dimension.columns[theirs])
                tests.append(f"{mine} = {other}")
            keys = ", ".join(
                quoted(resolve(dimension.source, r, list(dimension.columns), ""))
                for _, r in join.join_on
            )
            joins += (
                f" LEFT JOIN (SELECT *, rowid AS __at FROM {dimension.table}"
                f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {_newest(dimension)})"
                f" = 1) {alias}"
                f" ON {' AND '.join(tests)}"
            )
            via = self._array(f"{prefix}_via_{number}", np.int32, item.rows)
            extra.append(via)
            selected.append(f"coalesce({alias}.__at, -1)")
            indirect.append((join, np.asarray(via)))
        names = [f"t.{quoted(self._spelled(item, column.name))}" for column, _ in columns]
        ties = "t.rowid" if item.stable_order else ", ".join([*names, "t.rowid"])
        wanted = ", ".join(["e.__index", "t.__time", *selected, *names])
        self._fill(
            f"SELECT {wanted} FROM {item.table} t JOIN entities e ON t.__entity = e.__entity"
            f"{joins} ORDER BY e.__index, t.__time, {ties}",
            columns,
            extra,
        )
        counts = np.bincount(owners, minlength=num_entities)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        made = [column for column, _ in columns]
        for join, via in indirect:
            if len(via) and (via < 0).all():
                logger.warning(
                    "Data source %s: no row of %s has the key of any event; its columns are missing"
                    " everywhere. Check join_on %s",
                    item.source.name,
                    join.name,
                    join.join_on,
                )
            made += _indirect(joined[join.name], via, join, made)
        return Table(item.source.name, offsets, times, made)

    def _spelled(self, item: Landed, name: str) -> str:
        return resolve(item.source, name, list(item.columns), "the table")

    def _array(self, name: str, kind: Any, rows: int) -> np.ndarray:
        file = self.directory / f"{name}.npy"
        return _mapped(file, kind, rows)

    def _dimension(self, item: Landed) -> list[Column]:
        columns = self._columns(item, item.rows, item.table)
        names = [quoted(self._spelled(item, column.name)) for column, _ in columns]
        self._fill(f"SELECT {', '.join(names)} FROM {item.table} ORDER BY rowid", columns, [])
        return [column for column, _ in columns]

    def _entity_attributes(self, item: Landed) -> AttributeTable:
        rows = self.connection.execute("SELECT count(*) FROM entities").fetchall()[0][0]
        columns = self._columns(item, rows, item.table)
        if columns:
            names = [f"a.{quoted(self._spelled(item, column.name))}" for column, _ in columns]
            self._fill(
                f"SELECT {', '.join(names)} FROM entities e LEFT JOIN (SELECT * FROM {item.table}"
                f" QUALIFY row_number() OVER (PARTITION BY __entity ORDER BY {_newest(item)}) = 1) a"
                " ON a.__entity = e.__entity ORDER BY e.__index",
                columns,
                [],
            )
        return AttributeTable(item.source.name, [column for column, _ in columns])


def _newest(item: Landed) -> str:
    """Order the rows of a key: the newest that holds first, else the first in the table."""
    return "__time DESC, rowid" if item.dated else "rowid"


def _mapped(file: Path, kind: Any, rows: int) -> np.ndarray:
    """Create a mapped array; its space is reserved, as a write without space kills the process."""
    made = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=(rows,))
    if not hasattr(os, "posix_fallocate"):  # not on macOS
        return made
    try:
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, max(file.stat().st_size, 1))
    except OSError as error:
        raise DataError(
            problem(
                "Local scratch has no space for the data",
                f"{error.strerror or error}; {rows} rows of {np.dtype(kind).itemsize} bytes wanted",
                "Free space, or set MONAD_SCRATCH_DIR to a larger disk",
                f"See {file.parent}",
            )
        ) from error
    return made


def _indirect(
    dimension: list[Column], via: np.ndarray, join: Any, own: list[Column]
) -> list[Column]:
    """Make columns of a joined table readable per event; the join key itself is not repeated."""
    keys = {pair[1].lower() for pair in join.join_on}
    taken = {column.name.lower() for column in own}
    made = []
    for column in dimension:
        if column.name.lower() in keys:
            continue
        name = f"{join.name}.{column.name}" if column.name.lower() in taken else column.name
        made.append(
            Column(
                name,
                column.kind,
                column.override,
                column.data,
                column.dictionary,
                via,
                column.modelled,
                column.boolean,
            )
        )
    return made


def _encoded(values: Any, column: Column, dictionary: Any) -> np.ndarray:
    if column.kind == NUMBER:
        numbers = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
        limit = float(np.finfo(np.float32).max)
        numbers = np.where(np.isfinite(numbers), np.clip(numbers, -limit, limit), np.nan)
        return numbers.astype(np.float32)
    found = pc.call_function("index_in", [values], pc.SetLookupOptions(value_set=dictionary))
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False)


def check_types(plans: Plans) -> None:
    """Refuse a configuration in which no column can be modelled."""
    if not any(plan.modelled for columns in plans.values() for plan in columns):
        raise DataError(
            problem(
                "No column can be modelled",
                "every column is empty, constant, or an identifier",
                "Check allowed_columns and column_type_overrides",
            )
        )
