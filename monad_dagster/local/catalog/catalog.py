"""The account's catalog: objects, users and parameters in one SQLite file, grants beside them.

Every acknowledged write is on disk (WAL, synchronous=FULL), so a killed process loses nothing.
The catalog stores and answers; it decides nothing about SQL. Names are as stored (upper case
unless quoted); account-level objects have empty database and schema.
"""

import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monad_dagster.local.catalog.catalog_grants import GRANTS_SCHEMA, Grant, GrantStore, migrate

__all__ = ["Catalog", "CatalogObject", "Grant"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, database TEXT NOT NULL,
  schema TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, created_on REAL NOT NULL,
  updated_on REAL NOT NULL, properties TEXT NOT NULL, UNIQUE (kind, database, schema, name));
CREATE TABLE IF NOT EXISTS documents (
  collection TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (collection, key));
"""


@dataclass
class CatalogObject:
    """One object of the account."""

    kind: str
    database: str
    schema: str
    name: str
    owner: str
    created_on: dt.datetime
    updated_on: dt.datetime
    properties: dict[str, Any] = field(default_factory=dict)
    id: int = 0

    @property
    def fqn(self) -> str:
        """The dotted name, without quotes."""
        return ".".join(part for part in (self.database, self.schema, self.name) if part)


class Catalog(GrantStore):
    """Thread-safe access to the catalog file.

    Args:
        path: The SQLite file; created if missing.
        clock: Returns the current time as an aware datetime.
    """

    def __init__(self, path: Path, clock: Callable[[], dt.datetime]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA + GRANTS_SCHEMA)
        migrate(self._db)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run several writes as one; nested use joins the outer one."""
        with self._lock:
            if self._depth:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            else:
                self._db.execute("COMMIT")
            finally:
                self._depth = 0

    def _all(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, tuple(values)).fetchall()

    # Objects

    def get(
        self, kind: str, name: str, database: str = "", schema: str = ""
    ) -> CatalogObject | None:
        """Return an object or None."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM objects WHERE kind=? AND database=? AND schema=? AND name=?",
            (kind, database, schema, name),
        )
        return _object(rows[0]) if rows else None

    def list_objects(
        self, kind: str, database: str | None = None, schema: str | None = None
    ) -> list[CatalogObject]:
        """Return objects of *kind*, optionally within a database or schema, ordered by name."""
        sql, values = f"SELECT {_COLUMNS} FROM objects WHERE kind=?", [kind]
        if database is not None:
            sql, values = sql + " AND database=?", [*values, database]
        if schema is not None:
            sql, values = sql + " AND schema=?", [*values, schema]
        return [_object(row) for row in self._all(sql + " ORDER BY database, schema, name", values)]

    def create(
        self,
        kind: str,
        name: str,
        owner: str,
        *,
        database: str = "",
        schema: str = "",
        properties: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> CatalogObject:
        """Add an object with its ownership grant and the future grants that apply.

        Raises:
            KeyError: The name is held and *replace* is false.
        """
        now = self._clock()
        with self.transaction() as db:
            if self.get(kind, name, database, schema) is not None:
                if not replace:
                    raise KeyError(name)
                self.drop(kind, name, database=database, schema=schema)
            db.execute(
                "INSERT INTO objects (kind, database, schema, name, owner, created_on, updated_on,"
                " properties) VALUES (?,?,?,?,?,?,?,?)",
                (kind, database, schema, name, owner, now.timestamp(), now.timestamp(),
                 json.dumps(properties or {})),
            )  # fmt: skip
            where = {"database": database, "schema": schema}
            futures = self.applicable_future_grants(kind, database, schema)
            owner = next((g.grantee for g in futures if g.privilege == "OWNERSHIP"), owner)
            self.grant("OWNERSHIP", kind, name, owner, **where, grant_option=True)
            db.execute(f"UPDATE objects SET owner=? WHERE {_OBJECT}",
                       (owner, kind, database, schema, name))  # fmt: skip
            for future in futures:
                if future.privilege != "OWNERSHIP":
                    self.grant(future.privilege, kind, name, future.grantee, **where,
                               grantor=owner, grant_option=future.grant_option)  # fmt: skip
        created = self.get(kind, name, database, schema)
        assert created is not None
        return created

    def update(
        self,
        kind: str,
        name: str,
        *,
        database: str = "",
        schema: str = "",
        owner: str | None = None,
        touch: bool = True,
        **properties: Any,
    ) -> None:
        """Merge *properties* into an object; a value of None removes the key."""
        with self.transaction() as db:
            found = self.get(kind, name, database, schema)
            if found is None:
                raise KeyError(name)
            merged = {**found.properties, **properties}
            merged = {key: value for key, value in merged.items() if value is not None}
            updated = self._clock() if touch else found.updated_on
            db.execute(
                "UPDATE objects SET properties=?, updated_on=?, owner=? WHERE id=?",
                (json.dumps(merged), updated.timestamp(), owner or found.owner, found.id),
            )

    def drop(self, kind: str, name: str, *, database: str = "", schema: str = "") -> bool:
        """Remove an object, what it contains, and every grant on them; tell whether it existed."""
        with self.transaction() as db:
            if self.get(kind, name, database, schema) is None:
                return False
            where, values = "kind=? AND database=? AND schema=? AND name=?", (
                kind, database, schema, name)  # fmt: skip
            db.execute(f"DELETE FROM objects WHERE {where}", values)
            db.execute(f"DELETE FROM grants WHERE {where}", values)
            if kind == "DATABASE":
                _delete_within(db, "database=?", (name,))
                _delete_parameters(db, f"DATABASE:{name}|", f"SCHEMA:{name}.")
            elif kind == "SCHEMA":
                _delete_within(db, "database=? AND schema=?", (database, name))
                _delete_parameters(db, f"SCHEMA:{database}.{name}|")
            elif kind == "ROLE":
                db.execute("DELETE FROM grants WHERE grantee_kind='ROLE' AND grantee=?", (name,))
                db.execute("DELETE FROM future_grants WHERE grantee=?", (name,))
            elif kind == "USER":
                db.execute("DELETE FROM grants WHERE grantee_kind='USER' AND grantee=?", (name,))
            return True

    # Documents: small JSON values of other packages (parameters, history, job state)

    def put_document(self, collection: str, key: str, value: Any) -> None:
        """Store a JSON value."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO documents VALUES (?,?,?) ON CONFLICT DO UPDATE SET value=excluded.value",
                (collection, key, json.dumps(value)),
            )

    def get_document(self, collection: str, key: str) -> Any:
        """Return a stored JSON value or None."""
        rows = self._all(
            "SELECT value FROM documents WHERE collection=? AND key=?", (collection, key)
        )
        return json.loads(rows[0][0]) if rows else None

    def documents(self, collection: str) -> dict[str, Any]:
        """Return every value of a collection by key."""
        rows = self._all(
            "SELECT key, value FROM documents WHERE collection=? ORDER BY key", (collection,)
        )
        return {key: json.loads(value) for key, value in rows}

    def delete_document(self, collection: str, key: str) -> None:
        """Remove a stored value."""
        with self.transaction() as db:
            db.execute("DELETE FROM documents WHERE collection=? AND key=?", (collection, key))


_OBJECT = "kind=? AND database=? AND schema=? AND name=?"
_COLUMNS = "id, kind, database, schema, name, owner, created_on, updated_on, properties"


def _object(row: tuple[Any, ...]) -> CatalogObject:
    identifier, kind, database, schema, name, owner, created, updated, properties = row
    return CatalogObject(
        kind, database, schema, name, owner, _time(created), _time(updated),
        json.loads(properties), identifier,
    )  # fmt: skip


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _delete_within(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> None:
    for table in ("objects", "grants", "future_grants"):
        db.execute(f"DELETE FROM {table} WHERE {where}", values)


def _delete_parameters(db: sqlite3.Connection, *beginnings: str) -> None:
    """Forget the parameters of a scope that is gone, so that no later namesake has them."""
    for beginning in beginnings:
        db.execute(
            "DELETE FROM documents WHERE collection='parameters' AND substr(key, 1, ?) = ?",
            (len(beginning), beginning),
        )
