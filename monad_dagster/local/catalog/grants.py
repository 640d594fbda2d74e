"""GRANT and REVOKE; SHOW GRANTS is in show_grants.py.

Follows https://docs.snowflake.com/en/sql-reference/sql/grant-privilege. Privileges an object kind
does not have are refused, so USAGE on an internal stage fails here as it should on Snowflake.
"""

from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.grant_changes import (
    DONE,
    Change,
    Target,
    apply_change,
    decides,
    require_grantor,
)
from monad_dagster.local.catalog.privileges import IMPORTED, KINDS, NO_FUTURE, PLURALS, PRIVILEGES
from monad_dagster.local.pools import pool_usage
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import Cursor, ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@statement("GRANT ROLE", "REVOKE ROLE")
def grant_role(session: "Session", statement: Statement) -> ResultSet:
    """Give a role to a role or user, or take it away."""
    cursor = statement.cursor
    granting = statement.words()[0] == "GRANT"
    role = cursor.name()
    cursor.expect("TO" if granting else "FROM")
    grantee_kind = cursor.accept_any("ROLE", "USER")
    if grantee_kind is None:
        raise cursor.error()
    grantee = cursor.name()
    cursor.expect_end()
    found = session.lookup("ROLE", role)
    holder = session.lookup(grantee_kind, grantee)
    require_grantor(session, found)
    if not granting:
        session.catalog.revoke("USAGE", "ROLE", found.name, holder.name, grantee_kind=grantee_kind)
        return status(DONE)
    if grantee_kind == "ROLE" and holder.name in session.catalog.roles_of(found.name) - {"PUBLIC"}:
        raise errors.StatementError(
            3030, "0LP01", f"Role '{found.name}' cannot be granted: the grant would form a cycle."
        )
    session.catalog.grant("USAGE", "ROLE", found.name, holder.name, grantee_kind=grantee_kind,
                          grantor=session.role)  # fmt: skip
    return status(DONE)


@statement("GRANT APPLICATION ROLE", "REVOKE APPLICATION ROLE")
def grant_application_role(session: "Session", statement: Statement) -> ResultSet:
    """Give or take an application role of the SNOWFLAKE database."""
    return _grant_system_role(session, statement, "Application role", _APPLICATION_ROLES)


@statement("GRANT DATABASE ROLE", "REVOKE DATABASE ROLE", note="SNOWFLAKE.USAGE_VIEWER only")
def grant_database_role(session: "Session", statement: Statement) -> ResultSet:
    """Give or take a database role of the SNOWFLAKE database."""
    return _grant_system_role(session, statement, "Database role", _DATABASE_ROLES)


_Privilege = tuple[str, str, str, str]


def _grant_system_role(
    session: "Session", statement: Statement, kind: str, known: dict[str, tuple[_Privilege, ...]]
) -> ResultSet:
    cursor = statement.cursor
    granting = statement.words()[0] == "GRANT"
    name = str(cursor.name())
    cursor.expect("TO ROLE" if granting else "FROM ROLE")
    grantee = session.lookup("ROLE", cursor.name())
    cursor.expect_end()
    if name not in known:
        raise errors.does_not_exist(kind, name)
    session.require_account("MANAGE GRANTS")
    change = session.catalog.grant if granting else session.catalog.revoke
    for privilege, what, schema, view in known[name]:
        change(privilege, what, view, grantee.name, database="SNOWFLAKE", schema=schema)
    return status(DONE)


_APPLICATION_ROLES: dict[str, tuple[_Privilege, ...]] = {
    "SNOWFLAKE.EVENTS_VIEWER": (("SELECT", "VIEW", "TELEMETRY", "EVENTS_VIEW"),),
    "SNOWFLAKE.EVENTS_ADMIN": (
        ("SELECT", "VIEW", "TELEMETRY", "EVENTS_VIEW"),
        ("SELECT", "TABLE", "TELEMETRY", "EVENTS"),
        ("DELETE", "TABLE", "TELEMETRY", "EVENTS"),
        ("TRUNCATE", "TABLE", "TELEMETRY", "EVENTS"),
    ),
}
_DATABASE_ROLES: dict[str, tuple[_Privilege, ...]] = {
    "SNOWFLAKE.USAGE_VIEWER": (("SELECT", "VIEW", pool_usage.SCHEMA, pool_usage.VIEW),),
}


@statement("GRANT", "REVOKE")
def grant_privileges(session: "Session", statement: Statement) -> ResultSet:
    """Grant or revoke privileges on objects, all objects or future objects."""
    cursor = statement.cursor
    granting = statement.words()[0] == "GRANT"
    option_only = not granting and cursor.accept("GRANT OPTION FOR")
    privileges = _privileges(cursor)
    cursor.expect("ON")
    target = read_target(session, cursor)
    cursor.expect("TO" if granting else "FROM")
    other = cursor.accept_any("DATABASE ROLE", "APPLICATION", "SHARE", "USER")
    if other is not None:
        raise errors.unsupported(f"GRANT TO {other}")
    cursor.accept("ROLE")
    grantee = session.lookup("ROLE", cursor.name()).name
    change = Change(
        session, _validated(privileges, target.kind), target, grantee,
        granting=granting, option=option_only or cursor.accept("WITH GRANT OPTION"),
    )  # fmt: skip
    change.mode = cursor.accept_any(
        "COPY CURRENT GRANTS", "REVOKE CURRENT GRANTS", "CASCADE", "RESTRICT"
    )
    cursor.expect_end()
    return apply_change(change)


def _privileges(cursor: Cursor) -> list[str]:
    """Read the comma-separated privileges before ON."""
    out, words = [], []
    while not cursor.looking_at("ON"):
        if cursor.accept_op(","):
            out.append(" ".join(words))
            words = []
            continue
        words.append(cursor.identifier().upper())
    out.append(" ".join(words))
    if "" in out:
        raise cursor.error()
    return out


def read_target(session: "Session", cursor: Cursor) -> Target:
    """Read what follows ON: the account, an object, all objects or future objects."""
    if cursor.accept("ACCOUNT"):
        return Target("ACCOUNT")
    bulk = cursor.accept_any("ALL", "FUTURE")
    if bulk is not None:
        return _bulk_target(session, cursor, bulk)
    kind = next((kind for kind in KINDS if cursor.accept(kind)), None)
    if kind is None:
        raise cursor.error()
    return Target(kind, [find_target(session, kind, cursor.name())])


def find_target(session: "Session", kind: str, name: ObjectName) -> CatalogObject:
    """Return the object; a role that decides about its grants need not see it otherwise."""
    database, schema, last = session.locate(kind, name)
    found = session.catalog.get(kind, last, database, schema)
    if found is None and kind == "TABLE":
        found = session.catalog.get("VIEW", last, database, schema)
    if found is not None and decides(session, found):
        return found
    return session.lookup(kind, name)


def _bulk_target(session: "Session", cursor: Cursor, bulk: str) -> Target:
    plural = next((p for p in sorted(PLURALS, key=len, reverse=True) if cursor.accept(p)), None)
    if plural is None:
        raise cursor.error()
    kind = PLURALS[plural]
    cursor.expect("IN")
    if cursor.accept("DATABASE"):
        database, schema = find_target(session, "DATABASE", cursor.name()).name, ""
    else:
        cursor.accept("SCHEMA")
        found = find_target(session, "SCHEMA", cursor.name())
        database, schema = found.database, found.name
    if bulk == "FUTURE":
        if kind in NO_FUTURE:
            raise errors.unsupported(f"GRANT ON FUTURE {plural}")
        return Target(kind, future=(database, schema))
    objects = session.catalog.list_objects(kind, database, schema or None)
    return Target(kind, objects, is_bulk=True)


def _validated(privileges: list[str], kind: str) -> list[str]:
    known = PRIVILEGES[kind]
    if privileges in (["ALL"], ["ALL PRIVILEGES"]):
        return sorted(known - {"OWNERSHIP", IMPORTED})
    if privileges == [IMPORTED] and kind == "DATABASE":
        return ["USAGE"]
    for privilege in privileges:
        if privilege in known:
            continue
        if any(privilege in other for other in PRIVILEGES.values()):
            raise errors.invalid_privilege(privilege, kind)
        raise errors.syntax_error(privilege)
    return privileges
