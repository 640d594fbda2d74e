"""GRANT, REVOKE and SHOW GRANTS.

Follows https://docs.snowflake.com/en/sql-reference/sql/grant-privilege. Privileges an object kind
does not have are refused, so USAGE on an internal stage fails here as it should on Snowflake.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monad_dagster.local import errors, pool_usage
from monad_dagster.local.catalog import CatalogObject, Grant
from monad_dagster.local.handlers import statement
from monad_dagster.local.privileges import KINDS, NO_FUTURE, PLURALS, PRIVILEGES
from monad_dagster.local.results import ResultSet, status, table, text, timestamp
from monad_dagster.local.statements import Cursor, ObjectName, Statement, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_DONE = "Statement executed successfully."


@dataclass
class Target:
    """What a GRANT or REVOKE is about."""

    kind: str
    objects: list[CatalogObject] = field(default_factory=list)
    future: tuple[str, str] | None = None  # (database, schema or "")
    is_bulk: bool = False


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
    _require_grantor(session, found)
    if not granting:
        session.catalog.revoke("USAGE", "ROLE", found.name, holder.name, grantee_kind=grantee_kind)
        return status(_DONE)
    if grantee_kind == "ROLE" and holder.name in session.catalog.roles_of(found.name) - {"PUBLIC"}:
        raise errors.StatementError(
            3030, "0LP01", f"Role '{found.name}' cannot be granted: the grant would form a cycle."
        )
    session.catalog.grant("USAGE", "ROLE", found.name, holder.name, grantee_kind=grantee_kind,
                          grantor=session.role)  # fmt: skip
    return status(_DONE)


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
    return status(_DONE)


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
    target = _target(session, cursor)
    cursor.expect("TO" if granting else "FROM")
    if cursor.accept("DATABASE ROLE") or cursor.accept("SHARE"):
        raise errors.unsupported("GRANT TO DATABASE ROLE or SHARE")
    cursor.accept("ROLE")
    grantee = session.lookup("ROLE", cursor.name()).name
    option = cursor.accept("WITH GRANT OPTION")
    cursor.accept_any("COPY CURRENT GRANTS", "REVOKE CURRENT GRANTS", "CASCADE", "RESTRICT")
    cursor.expect_end()
    privileges = _validated(privileges, target.kind)
    if option_only:
        return status(_DONE)
    return _change(session, privileges, target, grantee, granting, option)


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


def _target(session: "Session", cursor: Cursor) -> Target:
    if cursor.accept("ACCOUNT"):
        return Target("ACCOUNT")
    bulk = cursor.accept_any("ALL", "FUTURE")
    if bulk is not None:
        return _bulk_target(session, cursor, bulk)
    kind = next((kind for kind in KINDS if cursor.accept(kind)), None)
    if kind is None:
        raise cursor.error()
    return Target(kind, [_find_target(session, kind, cursor.name())])


def _find_target(session: "Session", kind: str, name: ObjectName) -> CatalogObject:
    """Return the object; a role that manages grants need not see it otherwise."""
    database, schema, last = session.locate(kind, name)
    found = session.catalog.get(kind, last, database, schema)
    if found is None and kind == "TABLE":
        found = session.catalog.get("VIEW", last, database, schema)
    if found is not None and session.has_account_privilege("MANAGE GRANTS"):
        return found
    return session.lookup(kind, name)


def _bulk_target(session: "Session", cursor: Cursor, bulk: str) -> Target:
    plural = next((p for p in sorted(PLURALS, key=len, reverse=True) if cursor.accept(p)), None)
    if plural is None:
        raise cursor.error()
    kind = PLURALS[plural]
    cursor.expect("IN")
    if cursor.accept("DATABASE"):
        database, schema = _find_target(session, "DATABASE", cursor.name()).name, ""
    else:
        cursor.accept("SCHEMA")
        found = _find_target(session, "SCHEMA", cursor.name())
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
        return sorted(known - {"OWNERSHIP"})
    for privilege in privileges:
        if privilege in known:
            continue
        if any(privilege in other for other in PRIVILEGES.values()):
            raise errors.invalid_privilege(privilege, kind)
        raise errors.syntax_error(privilege)
    return privileges


def _change(
    session: "Session",
    privileges: list[str],
    target: Target,
    grantee: str,
    granting: bool,
    option: bool,
) -> ResultSet:
    catalog = session.catalog
    if target.kind == "ACCOUNT":
        session.require_account("MANAGE GRANTS")
        for privilege in privileges:
            if granting:
                catalog.grant(privilege, "ACCOUNT", session.account.name, grantee,
                              grantor=session.role, grant_option=option)  # fmt: skip
            else:
                catalog.revoke(privilege, "ACCOUNT", session.account.name, grantee)
        return status(_DONE)
    if target.future is not None:
        return _change_future(session, privileges, target, grantee, granting)
    with catalog.transaction():
        for found in target.objects:
            _require_grantor(session, found, privileges)
            for privilege in privileges:
                _change_one(session, privilege, found, grantee, granting, option)
    if target.is_bulk:
        return status(f"{_DONE} {len(target.objects)} objects affected.")
    return status(_DONE)


def _change_future(
    session: "Session", privileges: list[str], target: Target, grantee: str, granting: bool
) -> ResultSet:
    assert target.future is not None
    database, schema = target.future
    if not session.has_account_privilege("MANAGE GRANTS"):
        scope = session.catalog.get("SCHEMA", schema, database) if schema else None
        found = scope or session.catalog.get("DATABASE", database)
        if found is None or not session.has_privilege(found, "OWNERSHIP"):
            raise errors.insufficient_privileges(
                "schema" if schema else "database", schema or database
            )
    change = session.catalog.grant_future if granting else session.catalog.revoke_future
    for privilege in privileges:
        change(privilege, target.kind, grantee, database=database, schema=schema)
    return status(_DONE)


def _require_grantor(
    session: "Session", found: CatalogObject, privileges: list[str] | None = None
) -> None:
    """Refuse unless the role owns the object, manages grants or holds the grant option."""
    if session.has_account_privilege("MANAGE GRANTS") or session.has_privilege(found, "OWNERSHIP"):
        return
    roles = session.catalog.roles_of(session.role)
    grants = session.catalog.grants_on(
        found.kind, found.name, database=found.database, schema=found.schema
    )
    optional = {g.privilege for g in grants if g.grantee in roles and g.grant_option}
    if privileges is None or not set(privileges) <= optional:
        raise errors.insufficient_privileges(found.kind, quote_identifier(found.name))


def _change_one(
    session: "Session",
    privilege: str,
    found: CatalogObject,
    grantee: str,
    granting: bool,
    option: bool,
) -> None:
    catalog, where = session.catalog, {"database": found.database, "schema": found.schema}
    if privilege == "OWNERSHIP":
        if granting:
            _transfer(session, found, grantee)
        return
    if found.kind == "STAGE":
        _check_stage_order(session, privilege, found, grantee, granting)
    if granting:
        catalog.grant(privilege, found.kind, found.name, grantee, **where, grantor=session.role,
                      grant_option=option)  # fmt: skip
    else:
        catalog.revoke(privilege, found.kind, found.name, grantee, **where)


def _check_stage_order(
    session: "Session", privilege: str, found: CatalogObject, grantee: str, granting: bool
) -> None:
    """WRITE needs READ first, and READ stays while WRITE does (texts are approximate)."""
    grants = session.catalog.grants_on(
        "STAGE", found.name, database=found.database, schema=found.schema
    )
    held = {g.privilege for g in grants if g.grantee == grantee}
    if granting and privilege == "WRITE" and not held & {"READ", "OWNERSHIP"}:
        raise errors.StatementError(
            3150, "42501",
            "SQL access control error:\nThe READ privilege must be granted before the WRITE "
            f"privilege on stage '{found.name}'.",
        )  # fmt: skip
    if not granting and privilege == "READ" and "WRITE" in held:
        raise errors.StatementError(
            3151, "42501",
            "SQL access control error:\nThe WRITE privilege must be revoked before the READ "
            f"privilege on stage '{found.name}'.",
        )  # fmt: skip


def _transfer(session: "Session", found: CatalogObject, grantee: str) -> None:
    if found.kind == "SERVICE":
        raise errors.unsupported("transfer of ownership of a service")
    where = {"database": found.database, "schema": found.schema}
    session.catalog.revoke("OWNERSHIP", found.kind, found.name, found.owner, **where)
    session.catalog.grant("OWNERSHIP", found.kind, found.name, grantee, **where, grantor=session.role,
                          grant_option=True)  # fmt: skip
    session.catalog.update(found.kind, found.name, **where, owner=grantee)


# SHOW GRANTS

_COLUMNS = [
    timestamp("created_on"), text("privilege"), text("granted_on"), text("name"),
    text("granted_to"), text("grantee_name"), text("grant_option"), text("granted_by"),
]  # fmt: skip


@statement("SHOW GRANTS")
def show_grants(session: "Session", statement: Statement) -> ResultSet:
    """List grants of a role or user, on an object, or of a role."""
    cursor = statement.cursor
    if cursor.accept("ON"):
        return _grants_on(session, cursor)
    if cursor.accept("OF ROLE"):
        return _grants_of(session, cursor)
    if cursor.accept("TO"):
        if cursor.accept("USER"):
            return _grants_to_user(session, session.lookup("USER", cursor.name()).name)
        cursor.accept("ROLE")
        role = session.lookup("ROLE", cursor.name()).name
        return table(_COLUMNS, [_row(g) for g in session.catalog.grants_to(role)])
    cursor.expect_end()
    return _grants_to_user(session, session.user)


def _row(grant: Grant) -> tuple[object, ...]:
    return (
        grant.created_on, grant.privilege, grant.kind.replace(" ", "_"), grant.fqn,
        grant.grantee_kind, grant.grantee, str(grant.grant_option).lower(), grant.grantor,
    )  # fmt: skip


def _grants_on(session: "Session", cursor: Cursor) -> ResultSet:
    target = _target(session, cursor)
    cursor.expect_end()
    if target.kind == "ACCOUNT":
        grants = session.catalog.grants_on("ACCOUNT", session.account.name)
    else:
        found = target.objects[0]
        grants = session.catalog.grants_on(
            found.kind, found.name, database=found.database, schema=found.schema
        )
    return table(_COLUMNS, [_row(g) for g in grants])


_ROLE_COLUMNS = [timestamp("created_on"), text("role"), text("granted_to"), text("grantee_name"),
                 text("granted_by")]  # fmt: skip


def _role_row(grant: Grant) -> tuple[object, ...]:
    return (grant.created_on, grant.name, grant.grantee_kind, grant.grantee, grant.grantor)


def _grants_of(session: "Session", cursor: Cursor) -> ResultSet:
    role = session.lookup("ROLE", cursor.name()).name
    grants = [g for g in session.catalog.grants_on("ROLE", role) if g.privilege == "USAGE"]
    return table(_ROLE_COLUMNS, [_role_row(g) for g in grants])


def _grants_to_user(session: "Session", user: str) -> ResultSet:
    grants = [g for g in session.catalog.grants_to(user, "USER") if g.kind == "ROLE"]
    return table(_ROLE_COLUMNS, [_role_row(g) for g in grants])


@statement("SHOW FUTURE GRANTS")
def show_future_grants(session: "Session", statement: Statement) -> ResultSet:
    """List future grants of a schema or database."""
    cursor = statement.cursor
    cursor.expect("IN")
    kind = cursor.accept_any("SCHEMA", "DATABASE") or "SCHEMA"
    found = _find_target(session, kind, cursor.name())
    database, schema = (found.database, found.name) if kind == "SCHEMA" else (found.name, "")
    columns = [timestamp("created_on"), text("privilege"), text("grant_on"), text("name"),
               text("grant_to"), text("grantee_name"), text("grant_option")]  # fmt: skip
    rows = [
        (dt.datetime.fromtimestamp(created, dt.UTC), privilege, on.replace(" ", "_"),
         f"{'.'.join(filter(None, (database, schema)))}.<{on}>", "ROLE", grantee, "false")
        for created, privilege, on, grantee in session.catalog.future_grants(database, schema)
    ]  # fmt: skip
    return table(columns, rows)
