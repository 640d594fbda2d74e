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
from monad_dagster.local.engine.variants import compare_as_text
from monad_dagster.local.protocol.arrow_results import BATCH_ROWS, ArrowRows, rowtype_of
from monad_dagster.local.sql.statements import quote_identifier, quote_literal

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

warnings.filterwarnings("ignore", message="Arrow output on a DB-API result")

EVENT_COLUMNS = (
    "TIMESTAMP TIMESTAMP, START_TIMESTAMP TIMESTAMP, OBSERVED_TIMESTAMP TIMESTAMP, TRACE JSON, "
    "RESOURCE JSON, RESOURCE_ATTRIBUTES JSON, SCOPE JSON, SCOPE_ATTRIBUTES JSON, "
    "RECORD_TYPE VARCHAR, RECORD JSON, RECORD_ATTRIBUTES JSON, VALUE JSON, EXEMPLARS JSON"
)
_MEMORY_LIMIT = "1GB"
_CONFLICT_ATTEMPTS = 20  # Snowflake waits for a table's lock where DuckDB reports a conflict


def ident(name: str) -> str:
    """Quote a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


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


class Engine:
    """DuckDB databases of the account, reached through fakesnow."""

    def __init__(self, account: "Account") -> None:
        from fakesnow.instance import FakeSnow
        from fakesnow.transforms.stage import LOCAL_BUCKET_PATH

        # Made by the import for fakesnow's own stages, which nobody uses here, and never removed.
        shutil.rmtree(LOCAL_BUCKET_PATH, ignore_errors=True)
        self.account = account
        self.directory = account.state_dir / "databases"
        self.directory.mkdir(exist_ok=True)
        scratch = account.state_dir / "scratch"
        scratch.mkdir(exist_ok=True)
        self._lock = threading.RLock()
        self._fs = FakeSnow(False, False, db_path=self.directory)
        root = self._fs.duck_conn
        root.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")
        # x / 0 is an error in Snowflake, for floating point too.
        root.execute("SET GLOBAL ieee_floating_point_ops = false")
        for macro in MACROS:
            root.execute(macro)
        root.execute(f"SET temp_directory={quote_literal(str(scratch))}")
        self._attach_all()
        self._confine()
        self.reconcile()

    def _confine(self) -> None:
        """Let the engine open files of the state directory only, whatever it is asked for."""
        root, state = self._fs.duck_conn, str(self.account.state_dir.resolve())
        root.execute(f"SET GLOBAL allowed_directories = [{quote_literal(state)}]")
        root.execute("SET GLOBAL enable_external_access = false")

    def _attach_all(self) -> None:
        names = {found.name for found in self.account.catalog.list_objects("DATABASE")}
        for path in self.directory.glob("*.db"):
            if path.stem not in names:
                self._remove_files(path.stem)  # of a database whose creation or drop was cut short
        for name in sorted(names):
            self._attach(name)
        self._create_event_table()

    def _attach(self, name: str) -> None:
        from fakesnow import info_schema, macros

        path = self.directory / f"{name.replace('/', '_')}.db"
        root = self._fs.duck_conn
        root.execute(f"ATTACH IF NOT EXISTS {quote_literal(str(path))} AS {ident(name)}")
        catalog = ident(name)
        root.execute(info_schema.per_db_creation_sql(name))
        root.execute(macros.creation_sql(name))
        known = {found.name for found in self.account.catalog.list_objects("SCHEMA", name)}
        for schema in self._schemas(name) - known:
            root.execute(f"DROP SCHEMA {catalog}.{ident(schema)} CASCADE")
        for schema in sorted(known):
            root.execute(f"CREATE SCHEMA IF NOT EXISTS {catalog}.{ident(schema)}")

    def _schemas(self, database: str) -> set[str]:
        """Return the schemas that statements made in a database's file."""
        rows = self._fs.duck_conn.execute(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name=? AND NOT internal",
            [database],
        ).fetchall()
        return {name for (name,) in rows if name != "main" and not name.lower().startswith("_fs_")}

    def reconcile(self) -> None:
        """Make the catalog agree with the files, after a kill between two writes."""
        catalog = self.account.catalog
        present = set(self.tables())
        known = {
            (kind, found.database, found.schema, found.name)
            for kind in ("TABLE", "VIEW")
            for found in catalog.list_objects(kind)
            if not found.properties.get("COMPUTED")  # rows are made when they are asked for
        }
        for kind, database, schema, name in sorted(present - known):
            owner = catalog.get("SCHEMA", schema, database)
            if owner is not None:
                catalog.create(kind, name, owner.owner, database=database, schema=schema)
        for kind, database, schema, name in sorted(known - present):
            catalog.drop(kind, name, database=database, schema=schema)

    def _create_event_table(self) -> None:
        root = self._fs.duck_conn
        table = "SNOWFLAKE.TELEMETRY.EVENTS"
        root.execute(f"CREATE TABLE IF NOT EXISTS {table} ({EVENT_COLUMNS})")
        root.execute(f"CREATE OR REPLACE VIEW {table}_VIEW AS SELECT * FROM {table}")

    def close(self) -> None:
        """Close every connection; DuckDB writes its checkpoint."""
        self._fs.duck_conn.close()

    # Databases and schemas, called by the DDL statements

    def create_database(self, name: str) -> None:
        """Create and attach a database file.

        Raises:
            StatementError: The name needs quotes, which fakesnow cannot handle for databases.
        """
        if quote_identifier(name) != name:
            raise errors.unsupported(f"database name {quote_identifier(name)}")
        with self._lock:
            self._remove_files(name)  # of a creation that a kill interrupted
            try:
                self._attach(name)
            except Exception:  # a reserved word
                self._fs.duck_conn.execute(f"DETACH DATABASE IF EXISTS {ident(name)}")
                self._remove_files(name)
                raise errors.syntax_error(name) from None

    def drop_database(self, name: str) -> None:
        """Detach a database and remove its files."""
        with self._lock:
            for session in list(self.account.sessions.values()):
                self._leave(session, name)
            self._fs.duck_conn.execute(f"DETACH DATABASE IF EXISTS {ident(name)}")
        self._remove_files(name)

    def _remove_files(self, name: str) -> None:
        base = self.directory / f"{name.replace('/', '_')}.db"
        for path in (base, base.with_name(base.name + ".wal")):
            path.unlink(missing_ok=True)

    def _leave(self, session: "Session", database: str) -> None:
        """Point a session's connection elsewhere, so that its database can be detached."""
        if session.connection is not None and session.connection.database == database:
            with session.lock:
                session.connection._duck_conn.execute("USE memory")
                session.connection.database = None
                session.connection.database_set = session.connection.schema_set = False

    def create_schema(self, database: str, name: str) -> None:
        """Create a schema.

        Raises:
            StatementError: The name has an apostrophe, which fakesnow cannot handle.
        """
        if "'" in name:
            raise errors.unsupported(f"schema name {quote_identifier(name)}")
        self._root(f"CREATE SCHEMA IF NOT EXISTS {ident(database)}.{ident(name)}")

    def drop_schema(self, database: str, name: str) -> None:
        """Drop a schema with everything in it."""
        self._root(f"DROP SCHEMA IF EXISTS {ident(database)}.{ident(name)} CASCADE")

    def _root(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._fs.duck_conn.cursor() as cursor:
            return cursor.execute(sql, list(values)).fetchall()

    def tables(self) -> list[tuple[str, str, str, str]]:
        """Return (kind, database, schema, name) of every table and view in the files."""
        rows = self._root(
            "SELECT 'TABLE', database_name, schema_name, table_name FROM duckdb_tables()"
            " WHERE NOT internal AND NOT temporary UNION ALL"
            " SELECT 'VIEW', database_name, schema_name, view_name FROM duckdb_views()"
            " WHERE NOT internal AND NOT temporary"
        )
        return [(k, d, s, n) for k, d, s, n in rows if not s.startswith("_fs_")]

    def row_count(self, database: str, schema: str, name: str) -> int:
        """Return the exact number of rows of a table."""
        table = ".".join(ident(part) for part in (database, schema, name))
        return int(self._root(f"SELECT count(*) FROM {table}")[0][0])

    def columns(self, database: str, schema: str, name: str) -> list[tuple[Any, ...]]:
        """Return (name, type, nullable, default) of a table's or view's columns."""
        return self._root(
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
            " WHERE database_name=? AND schema_name=? AND table_name=? ORDER BY column_index",
            (database, schema, name),
        )

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
        with session.lock:
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

    def interrupt(self, session: "Session") -> None:
        """Stop what the session's connection is executing."""
        connection = session.connection
        if connection is not None:
            connection._duck_conn.interrupt()

    def abandon(self, session: "Session") -> None:
        """Give a session a new connection; the old one ends with what it is executing."""
        session.lock, session.connection = threading.RLock(), None

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
