"""The account's catalog: objects, grants, users and parameters in one SQLite file.

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

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, database TEXT NOT NULL,
  schema TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, created_on REAL NOT NULL,
  updated_on REAL NOT NULL, properties TEXT NOT NULL, UNIQUE (kind, database, schema, name));
CREATE TABLE IF NOT EXISTS grants (
  privilege TEXT NOT NULL, kind TEXT NOT NULL, database TEXT NOT NULL, schema TEXT NOT NULL,
  name TEXT NOT NULL, grantee_kind TEXT NOT NULL, grantee TEXT NOT NULL, grantor TEXT NOT NULL,
  grant_option INTEGER NOT NULL DEFAULT 0, created_on REAL NOT NULL,
  PRIMARY KEY (privilege, kind, database, schema, name, grantee_kind, grantee));
CREATE INDEX IF NOT EXISTS grants_by_grantee ON grants (grantee_kind, grantee);
CREATE TABLE IF NOT EXISTS future_grants (
  privilege TEXT NOT NULL, kind TEXT NOT NULL, database TEXT NOT NULL, schema TEXT NOT NULL,
  grantee TEXT NOT NULL, created_on REAL NOT NULL,
  PRIMARY KEY (privilege, kind, database, schema, grantee));
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


@dataclass(frozen=True)
class Grant:
    """One privilege on one object for one role, or one role for a user or role."""

    privilege: str
    kind: str
    database: str
    schema: str
    name: str
    grantee_kind: str
    grantee: str
    grantor: str
    grant_option: bool
    created_on: dt.datetime

    @property
    def fqn(self) -> str:
        """The dotted name of the object."""
        return ".".join(part for part in (self.database, self.schema, self.name) if part)


class Catalog:
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
        self._db.executescript(_SCHEMA)

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
            self.grant("OWNERSHIP", kind, name, owner, database=database, schema=schema,
                       grant_option=True)  # fmt: skip
            self._apply_future_grants(kind, name, database, schema, owner)
        created = self.get(kind, name, database, schema)
        assert created is not None
        return created

    def _apply_future_grants(
        self, kind: str, name: str, database: str, schema: str, owner: str
    ) -> None:
        rows = self._all(
            "SELECT privilege, grantee FROM future_grants WHERE kind=? AND database=?"
            " AND schema IN ('', ?)",
            (kind, database, schema),
        )
        for privilege, grantee in rows:
            self.grant(privilege, kind, name, grantee, database=database, schema=schema,
                       grantor=owner)  # fmt: skip

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
            elif kind == "SCHEMA":
                _delete_within(db, "database=? AND schema=?", (database, name))
            elif kind == "ROLE":
                db.execute("DELETE FROM grants WHERE grantee_kind='ROLE' AND grantee=?", (name,))
                db.execute("DELETE FROM future_grants WHERE grantee=?", (name,))
            elif kind == "USER":
                db.execute("DELETE FROM grants WHERE grantee_kind='USER' AND grantee=?", (name,))
            return True

    # Grants

    def grant(
        self,
        privilege: str,
        kind: str,
        name: str,
        grantee: str,
        *,
        database: str = "",
        schema: str = "",
        grantee_kind: str = "ROLE",
        grantor: str = "",
        grant_option: bool = False,
    ) -> None:
        """Record a privilege; granting a role is privilege USAGE on kind ROLE."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO grants VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                " grant_option = MAX(grant_option, excluded.grant_option)",
                (privilege, kind, database, schema, name, grantee_kind, grantee, grantor,
                 int(grant_option), self._clock().timestamp()),
            )  # fmt: skip

    def revoke(
        self,
        privilege: str,
        kind: str,
        name: str,
        grantee: str,
        *,
        database: str = "",
        schema: str = "",
        grantee_kind: str = "ROLE",
    ) -> bool:
        """Remove a grant; tell whether it existed."""
        with self.transaction() as db:
            done = db.execute(
                "DELETE FROM grants WHERE privilege=? AND kind=? AND database=? AND schema=?"
                " AND name=? AND grantee_kind=? AND grantee=?",
                (privilege, kind, database, schema, name, grantee_kind, grantee),
            )
            return done.rowcount > 0

    def grant_future(
        self, privilege: str, kind: str, grantee: str, *, database: str, schema: str = ""
    ) -> None:
        """Record a privilege for objects created later in a schema or database."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO future_grants VALUES (?,?,?,?,?,?)",
                (privilege, kind, database, schema, grantee, self._clock().timestamp()),
            )

    def revoke_future(
        self, privilege: str, kind: str, grantee: str, *, database: str, schema: str = ""
    ) -> None:
        """Remove a future grant."""
        with self.transaction() as db:
            db.execute(
                "DELETE FROM future_grants WHERE privilege=? AND kind=? AND database=?"
                " AND schema=? AND grantee=?",
                (privilege, kind, database, schema, grantee),
            )

    def future_grants(self, database: str, schema: str = "") -> list[tuple[Any, ...]]:
        """Return (created_on, privilege, kind, grantee) rows of a schema or database."""
        return self._all(
            "SELECT created_on, privilege, kind, grantee FROM future_grants WHERE database=?"
            " AND schema=?",
            (database, schema),
        )

    def grants_on(
        self, kind: str, name: str, *, database: str = "", schema: str = ""
    ) -> list[Grant]:
        """Return the grants on one object."""
        return self._grants(
            "kind=? AND database=? AND schema=? AND name=?", (kind, database, schema, name)
        )

    def grants_to(self, grantee: str, grantee_kind: str = "ROLE") -> list[Grant]:
        """Return the grants a role or user holds directly."""
        return self._grants("grantee_kind=? AND grantee=?", (grantee_kind, grantee))

    def _grants(self, where: str, values: tuple[Any, ...]) -> list[Grant]:
        rows = self._all(
            "SELECT privilege, kind, database, schema, name, grantee_kind, grantee, grantor,"
            f" grant_option, created_on FROM grants WHERE {where} ORDER BY created_on, privilege",
            values,
        )
        return [_grant(row) for row in rows]

    def roles_of(self, role: str) -> frozenset[str]:
        """Return *role* and every role it inherits, PUBLIC included."""
        rows = self._all(
            "WITH RECURSIVE held(name) AS (SELECT ? UNION SELECT g.name FROM grants g JOIN held"
            " ON g.grantee_kind='ROLE' AND g.grantee = held.name"
            " WHERE g.kind='ROLE' AND g.privilege='USAGE') SELECT name FROM held",
            (role,),
        )
        return frozenset(row[0] for row in rows) | {"PUBLIC"}

    def roles_of_user(self, user: str) -> frozenset[str]:
        """Return every role a user may take, inherited ones included."""
        direct = [g.name for g in self.grants_to(user, "USER") if g.kind == "ROLE"]
        return frozenset().union({"PUBLIC"}, *(self.roles_of(role) for role in direct))

    def privileges(
        self, role: str, kind: str, name: str, *, database: str = "", schema: str = ""
    ) -> frozenset[str]:
        """Return the privileges *role* holds on an object, through inheritance too."""
        roles = self.roles_of(role)
        rows = self._all(
            "SELECT privilege, grantee FROM grants WHERE kind=? AND database=? AND schema=?"
            " AND name=? AND grantee_kind='ROLE'",
            (kind, database, schema, name),
        )
        return frozenset(privilege for privilege, grantee in rows if grantee in roles)

    def has_privilege(
        self,
        role: str,
        privilege: str,
        kind: str,
        name: str,
        *,
        database: str = "",
        schema: str = "",
    ) -> bool:
        """Tell whether *role* holds *privilege* or owns the object."""
        held = self.privileges(role, kind, name, database=database, schema=schema)
        return bool(held & {privilege, "OWNERSHIP", "ALL"})

    # Documents: small JSON values of other rooms (parameters, history, job state)

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


_COLUMNS = "id, kind, database, schema, name, owner, created_on, updated_on, properties"


def _object(row: tuple[Any, ...]) -> CatalogObject:
    identifier, kind, database, schema, name, owner, created, updated, properties = row
    return CatalogObject(
        kind, database, schema, name, owner, _time(created), _time(updated),
        json.loads(properties), identifier,
    )  # fmt: skip


def _grant(row: tuple[Any, ...]) -> Grant:
    privilege, kind, database, schema, name, grantee_kind, grantee, grantor, option, created = row
    return Grant(
        privilege, kind, database, schema, name, grantee_kind, grantee, grantor, bool(option),
        _time(created),
    )  # fmt: skip


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _delete_within(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> None:
    for table in ("objects", "grants", "future_grants"):
        db.execute(f"DELETE FROM {table} WHERE {where}", values)
