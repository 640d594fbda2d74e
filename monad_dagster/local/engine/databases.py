"""The engine's databases: one DuckDB file each, in agreement with the catalog."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.sql.statements import quote_identifier, quote_literal

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

EVENT_COLUMNS = (
    "TIMESTAMP TIMESTAMP, START_TIMESTAMP TIMESTAMP, OBSERVED_TIMESTAMP TIMESTAMP, TRACE JSON, "
    "RESOURCE JSON, RESOURCE_ATTRIBUTES JSON, SCOPE JSON, SCOPE_ATTRIBUTES JSON, "
    "RECORD_TYPE VARCHAR, RECORD JSON, RECORD_ATTRIBUTES JSON, VALUE JSON, EXEMPLARS JSON"
)


def ident(name: str) -> str:
    """Quote a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class DatabaseFiles:
    """Attaches, makes and drops database files; knows what tables are in them.

    Args:
        account: The account.
        fake: fakesnow's instance, whose root connection is used.
        directory: Where the files lie.
    """

    def __init__(self, account: "Account", fake: Any, directory: Path) -> None:
        self.account = account
        self.directory = directory
        self._fs = fake
        self._lock = threading.RLock()

    def attach_all(self) -> None:
        """Attach the file of every database, and remove files that belong to none."""
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
