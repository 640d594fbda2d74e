"""The SQL engine: fakesnow as a library over DuckDB files, for SELECT, DML and table DDL.

One `FakeSnow` is shared by the account, one connection belongs to each session and a lock guards
it. Private names of fakesnow are used here and nowhere else, which is why its version is pinned.
Deviation: DuckDB compares identifiers without regard to case, quoted ones too.
"""

import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from monad_dagster.local import errors
from monad_dagster.local.engine import engine_errors
from monad_dagster.local.engine.adjusting import (
    MACROS,
    adjusted,
    adjusted_after,
    is_constant,
)
from monad_dagster.local.engine.databases import EVENT_COLUMNS, DatabaseFiles, ident
from monad_dagster.local.engine.holding import Holding
from monad_dagster.local.engine.variants import compare_as_text
from monad_dagster.local.protocol.arrow_results import BATCH_ROWS, ArrowRows, rowtype_of
from monad_dagster.local.sql.statements import quote_literal

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

warnings.filterwarnings("ignore", message="Arrow output on a DB-API result")

_MEMORY_LIMIT = "1GB"
_CONFLICT_ATTEMPTS = 20  # Snowflake waits for a table's lock where DuckDB reports a conflict


def _relation(duck: Any, transformed: Any, text: str, params: list[Any]) -> Any:
    """Bind a query; sums stay exact numbers wherever their argument is one.

    fakesnow casts the argument of every SUM and AVG to DOUBLE, so that text can be summed.
    """
    from duckdb import BinderException
    from sqlglot import exp

    exact = transformed.copy()
    changed = False
    for node in exact.find_all(exp.Sum):
        if isinstance(node.this, exp.TryCast) and node.this.to.is_type("double"):
            node.set("this", node.this.this)
            changed = True
    if changed:
        try:
            return duck.sql(exact.sql(dialect="duckdb"), params=params or None)
        except BinderException:
            pass  # a sum over text, or a real mistake that the next line reports
    return duck.sql(text, params=params or None)


def _transformed(cursor: Any, expression: Any, params: list[Any]) -> Any:
    """Return a statement as DuckDB takes it."""
    own = cursor._transform(adjusted(expression), params)
    return compare_as_text(adjusted_after(own))


def _adjust_all(cursor: Any) -> None:
    """Let a cursor that executes by itself make our changes, too."""
    own = cursor._transform
    cursor._transform = lambda expression, params: compare_as_text(
        adjusted_after(own(adjusted(expression), params))
    )


def _sync_autocommit(session: "Session") -> None:
    """Let the connection follow the session's AUTOCOMMIT; changing it commits, as on Snowflake."""
    connection = session.connection
    wanted = str(session.parameters.get("AUTOCOMMIT", True)).lower() == "true"
    if connection._autocommit != wanted:
        if connection._in_transaction:
            connection._duck_conn.commit()
            connection._in_transaction = False
        connection._autocommit = wanted


def begin(duck: Any) -> bool:
    """Begin a transaction unless the session has one open; tell whether it began."""
    from duckdb import TransactionException

    try:
        duck.begin()
    except TransactionException:
        return False
    return True


def _is_conflict(connection: Any, error: Exception) -> bool:
    """Tell whether another session's write was in the way and a retry may succeed."""
    text = str(error)
    conflict = "onflict" in text and "ransaction" in text
    return conflict and not connection._in_transaction


class Engine(DatabaseFiles):
    """DuckDB databases of the account, reached through fakesnow."""

    def __init__(self, account: "Account") -> None:
        from fakesnow.instance import FakeSnow
        from fakesnow.transforms.stage import LOCAL_BUCKET_PATH

        # Made by the import for fakesnow's own stages, which nobody uses here, and never removed.
        shutil.rmtree(LOCAL_BUCKET_PATH, ignore_errors=True)
        directory = account.state_dir / "databases"
        directory.mkdir(exist_ok=True)
        scratch = account.state_dir / "scratch"
        scratch.mkdir(exist_ok=True)
        super().__init__(account, FakeSnow(False, False, db_path=directory), directory)
        root = self._fs.duck_conn
        root.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")
        # x / 0 is an error in Snowflake, for floating point too.
        root.execute("SET GLOBAL ieee_floating_point_ops = false")
        for macro in MACROS:
            root.execute(macro)
        root.execute(f"SET temp_directory={quote_literal(str(scratch))}")
        self.attach_all()
        self._confine()
        self.reconcile()

    def _confine(self) -> None:
        """Let the engine open files of the state directory only, whatever it is asked for."""
        root, state = self._fs.duck_conn, str(self.account.state_dir.resolve())
        root.execute(f"SET GLOBAL allowed_directories = [{quote_literal(state)}]")
        root.execute("SET GLOBAL enable_external_access = false")

    def close(self) -> None:
        """Close every connection; DuckDB writes its checkpoint."""
        self._fs.duck_conn.close()

    def session_columns(
        self, session: "Session", key: tuple[str, str, str]
    ) -> list[tuple[Any, ...]]:
        """Return the columns of a session's temporary table."""
        return self.run(
            session,
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
            " WHERE table_name=? AND (database_name='temp' OR (database_name=? AND schema_name=?))"
            " ORDER BY column_index",
            (key[2], key[0], key[1]),
        )

    def append_events(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows of the 13 event table columns; objects are given as JSON text."""
        if not rows:
            return
        names = [column.split()[0] for column in EVENT_COLUMNS.split(", ")]
        columns = zip(names, zip(*rows, strict=True), strict=True)
        batch = pa.table({name: _event_column(name, values) for name, values in columns})
        with self._lock, self._fs.duck_conn.cursor() as cursor:
            cursor.register("_monad_events", batch)
            cursor.execute("INSERT INTO SNOWFLAKE.TELEMETRY.EVENTS SELECT * FROM _monad_events")
            cursor.unregister("_monad_events")

    # Sessions

    @contextmanager
    def connection(self, session: "Session") -> Iterator[Any]:
        """Yield the session's fakesnow connection, locked and at its database and schema."""
        with session.lock, session.holding.by_this_thread():
            if session.connection is None:
                session.connection = self._fs.connect()
            self._sync(session)
            try:
                yield session.connection
            except errors.StatementError:
                raise
            except Exception as error:
                raise engine_errors.translate(error) from error

    def _sync(self, session: "Session") -> None:
        _sync_autocommit(session)
        connection, database, schema = session.connection, session.database, session.schema
        stored = "_FS_INFORMATION_SCHEMA" if schema == "INFORMATION_SCHEMA" else schema
        if (connection.database, connection._schema) == (database, stored):
            return
        if database is None:
            connection._duck_conn.execute("USE memory")
        else:
            target = f"{ident(database)}.{ident(stored or 'main')}".replace("'", "''")
            connection._duck_conn.execute(f"SET schema='{target}'")
        connection.database, connection._schema = database, stored
        connection.database_set = database is not None
        connection.schema_set = stored is not None

    def release(self, session: "Session") -> None:
        """Close a session's connection."""
        with session.lock:
            if session.connection is not None:
                session.connection.close()
                session.connection = None

    def interrupt(self, session: "Session", query_id: str) -> None:
        """Stop what the session's connection executes, if it is that statement."""
        connection = session.connection
        if connection is not None:
            session.holding.interrupt(query_id, connection._duck_conn.interrupt)

    def abandon(self, session: "Session") -> None:
        """Give a session a new connection; the old one ends with what it is executing."""
        session.lock, session.holding, session.connection = threading.RLock(), Holding(), None

    # Execution

    def select(self, session: "Session", expression: Any, params: list[Any]) -> ArrowRows:
        """Run a query and return its rows as a stream of Arrow batches, drained under the lock."""
        with self.connection(session) as connection:
            cursor = connection.cursor()
            cursor.check_db_and_schema(expression)
            transformed = expression
            if not is_constant(expression):
                transformed = _transformed(cursor, expression, params)
            duck = connection._duck_conn
            text = transformed.sql(dialect="duckdb")
            if seed := transformed.args.get("seed"):
                duck.execute(f"SELECT setseed({seed})")
            relation = _relation(duck, transformed, text, params)
            rowtype = rowtype_of(zip(relation.columns, map(str, relation.types), strict=True))
            reader = relation.to_arrow_reader(BATCH_ROWS)
            return ArrowRows.collect(rowtype, reader, self.account.state_dir / "results")

    def describe(self, session: "Session", expression: Any) -> list[dict[str, Any]]:
        """Return the row type of a query without running it."""
        from sqlglot import exp

        with self.connection(session) as connection:
            cursor = connection.cursor()
            plain = expression.transform(
                lambda node: exp.Null() if isinstance(node, exp.Placeholder) else node
            )
            transformed = _transformed(cursor, plain, [])
            relation = connection._duck_conn.sql(transformed.sql(dialect="duckdb"))
            return rowtype_of(zip(relation.columns, map(str, relation.types), strict=True))

    def execute(self, session: "Session", sql: str, params: list[Any]) -> pa.Table:
        """Run DML or DDL through fakesnow's cursor and return its small result."""
        with self.connection(session) as connection:
            cursor = connection.cursor()
            _adjust_all(cursor)
            for attempt in range(_CONFLICT_ATTEMPTS):
                try:
                    cursor.execute(sql, binding_params=params or None, server=True)
                    break
                except Exception as error:
                    if attempt + 1 == _CONFLICT_ATTEMPTS or not _is_conflict(connection, error):
                        raise
                    time.sleep(0.01 * (attempt + 1))
            connection.results_cache.clear()
            return cursor._arrow_table

    @contextmanager
    def atomic(self, session: "Session") -> Iterator[None]:
        """Make several statements one, unless a transaction of the session is open."""
        with self.connection(session) as connection:
            duck = connection._duck_conn
            own = begin(duck)
            try:
                yield
            except BaseException:
                if own:
                    duck.rollback()
                raise
            if own:
                duck.commit()

    def insert_many(self, session: "Session", expression: Any, rows: list[list[Any]]) -> None:
        """Run INSERT ... VALUES with each row of an array binding."""
        with self.connection(session) as connection:
            cursor = connection.cursor()
            cursor.check_db_and_schema(expression)
            text = _transformed(cursor, expression.copy(), []).sql(dialect="duckdb")
            connection._duck_conn.executemany(text, rows)

    def run(
        self, session: "Session", sql: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run DuckDB SQL on the session's connection and return all rows."""
        with self.connection(session) as connection:
            return connection._duck_conn.execute(sql, list(values)).fetchall()

    def register(self, session: "Session", table: str, data: pa.Table) -> None:
        """Make *data* a temporary table of the session's connection."""
        with self.connection(session) as connection:
            duck = connection._duck_conn
            duck.register("_monad_incoming", data)
            try:
                duck.execute(f"CREATE OR REPLACE TEMP TABLE {ident(table)} AS FROM _monad_incoming")
            finally:
                duck.unregister("_monad_incoming")


def _event_column(name: str, values: Sequence[Any]) -> pa.Array:
    return pa.array(values, pa.timestamp("us") if name.endswith("TIMESTAMP") else pa.string())
