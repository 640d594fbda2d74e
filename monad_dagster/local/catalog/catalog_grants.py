"""Who may do what: grants on objects, of roles, and on objects that are made later.

The SQLite tables and the questions asked of them. Which statements may change them is decided in
grants.py.
"""

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

GRANTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS grants (
  privilege TEXT NOT NULL, kind TEXT NOT NULL, database TEXT NOT NULL, schema TEXT NOT NULL,
  name TEXT NOT NULL, grantee_kind TEXT NOT NULL, grantee TEXT NOT NULL, grantor TEXT NOT NULL,
  grant_option INTEGER NOT NULL DEFAULT 0, created_on REAL NOT NULL,
  PRIMARY KEY (privilege, kind, database, schema, name, grantee_kind, grantee));
CREATE INDEX IF NOT EXISTS grants_by_grantee ON grants (grantee_kind, grantee);
CREATE TABLE IF NOT EXISTS future_grants (
  privilege TEXT NOT NULL, kind TEXT NOT NULL, database TEXT NOT NULL, schema TEXT NOT NULL,
  grantee TEXT NOT NULL, created_on REAL NOT NULL, grant_option INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (privilege, kind, database, schema, grantee));
"""
_OBJECT = "kind=? AND database=? AND schema=? AND name=?"


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables of an earlier version up to date."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(future_grants)")}
    if "grant_option" not in columns:
        db.execute("ALTER TABLE future_grants ADD COLUMN grant_option INTEGER NOT NULL DEFAULT 0")


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


@dataclass(frozen=True)
class FutureGrant:
    """One privilege on every object of a kind that is made later in a schema or database."""

    created_on: dt.datetime
    privilege: str
    kind: str
    database: str
    schema: str
    grantee: str
    grant_option: bool


class GrantStore:
    """The catalog's grants."""

    _clock: Callable[[], dt.datetime]
    transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]
    _all: Callable[..., list[tuple[Any, ...]]]

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

    def revoke_option(
        self, privilege: str, kind: str, name: str, grantee: str, *, database: str = "",
        schema: str = "",
    ) -> None:  # fmt: skip
        """Take the grant option of a privilege away and leave the privilege."""
        with self.transaction() as db:
            db.execute(
                f"UPDATE grants SET grant_option=0 WHERE privilege=? AND {_OBJECT}"
                " AND grantee_kind='ROLE' AND grantee=?",
                (privilege, kind, database, schema, name, grantee),
            )

    def regrant(
        self, kind: str, name: str, grantor: str, *, database: str = "", schema: str = ""
    ) -> None:
        """Make *grantor* the one who granted everything on an object but its ownership."""
        with self.transaction() as db:
            db.execute(
                f"UPDATE grants SET grantor=? WHERE {_OBJECT} AND privilege<>'OWNERSHIP'",
                (grantor, kind, database, schema, name),
            )

    def grant_future(
        self,
        privilege: str,
        kind: str,
        grantee: str,
        *,
        database: str,
        schema: str = "",
        grant_option: bool = False,
    ) -> None:
        """Record a privilege for objects created later in a schema or database."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO future_grants (privilege, kind, database, schema, grantee, created_on,"
                " grant_option) VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                " grant_option = MAX(grant_option, excluded.grant_option)",
                (privilege, kind, database, schema, grantee, self._clock().timestamp(),
                 int(grant_option)),
            )  # fmt: skip

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

    def future_grants(self, database: str, schema: str = "") -> list[FutureGrant]:
        """Return the future grants of a schema or database."""
        return self._futures("database=? AND schema=?", (database, schema))

    def future_grants_to(self, grantee: str) -> list[FutureGrant]:
        """Return the future grants that a role will hold."""
        return self._futures("grantee=?", (grantee,))

    def _futures(self, where: str, values: Iterable[Any]) -> list[FutureGrant]:
        rows = self._all(
            "SELECT created_on, privilege, kind, database, schema, grantee, grant_option"
            f" FROM future_grants WHERE {where} ORDER BY created_on, privilege", values,
        )  # fmt: skip
        return [
            FutureGrant(
                dt.datetime.fromtimestamp(created, dt.UTC), privilege, kind, database, schema,
                grantee, bool(option),
            )
            for created, privilege, kind, database, schema, grantee, option in rows
        ]  # fmt: skip

    def applicable_future_grants(self, kind: str, database: str, schema: str) -> list[FutureGrant]:
        """Return what a new object gets; a schema's future grants replace its database's."""
        found = [
            grant
            for grant in self._futures("database=? AND schema IN ('', ?)", (database, schema))
            if grant.kind == kind
        ]
        in_schema = [grant for grant in found if grant.schema]
        return in_schema or found

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


def _grant(row: tuple[Any, ...]) -> Grant:
    privilege, kind, database, schema, name, grantee_kind, grantee, grantor, option, created = row
    return Grant(
        privilege, kind, database, schema, name, grantee_kind, grantee, grantor, bool(option),
        dt.datetime.fromtimestamp(created, dt.UTC),
    )  # fmt: skip
