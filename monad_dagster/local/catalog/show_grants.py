"""SHOW GRANTS and SHOW FUTURE GRANTS."""

from typing import TYPE_CHECKING

from monad_dagster.local.catalog.catalog import Grant
from monad_dagster.local.catalog.grants import find_target, read_target
from monad_dagster.local.protocol.results import ResultSet, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import Cursor, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_COLUMNS = [
    timestamp("created_on"), text("privilege"), text("granted_on"), text("name"),
    text("granted_to"), text("grantee_name"), text("grant_option"), text("granted_by"),
    text("granted_by_role_type"),
]  # fmt: skip


@statement("SHOW GRANTS")
def show_grants(session: "Session", statement: Statement) -> ResultSet:
    """List grants of a role or user, on an object, or of a role."""
    cursor = statement.cursor
    if cursor.accept("ON"):
        result = _grants_on(session, cursor)
    elif cursor.accept("OF ROLE"):
        result = _grants_of(session, cursor)
    elif cursor.accept("TO USER"):
        result = _grants_to_user(session, session.lookup("USER", cursor.name()).name)
    elif cursor.accept("TO"):
        cursor.accept("ROLE")
        role = session.lookup("ROLE", cursor.name()).name
        result = table(_COLUMNS, [_row(g) for g in session.catalog.grants_to(role)])
    else:
        result = _grants_to_user(session, session.user)
    return _limited(cursor, result)


def _row(grant: Grant) -> tuple[object, ...]:
    return (
        grant.created_on, grant.privilege, grant.kind.replace(" ", "_"), grant.fqn,
        grant.grantee_kind, grant.grantee, str(grant.grant_option).lower(), grant.grantor,
        "ROLE" if grant.grantor else "",
    )  # fmt: skip


def _grants_on(session: "Session", cursor: Cursor) -> ResultSet:
    target = read_target(session, cursor)
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
    """List the future grants of a schema or database, or those to a role."""
    cursor = statement.cursor
    columns = [timestamp("created_on"), text("privilege"), text("grant_on"), text("name"),
               text("grant_to"), text("grantee_name"), text("grant_option")]  # fmt: skip
    if cursor.accept("TO ROLE"):
        found = session.catalog.future_grants_to(session.lookup("ROLE", cursor.name()).name)
    else:
        cursor.expect("IN")
        kind = cursor.accept_any("SCHEMA", "DATABASE") or "SCHEMA"
        scope = find_target(session, kind, cursor.name())
        where = (scope.database, scope.name) if kind == "SCHEMA" else (scope.name, "")
        found = session.catalog.future_grants(*where)
    rows = [
        (g.created_on, g.privilege, g.kind.replace(" ", "_"),
         f"{'.'.join(filter(None, (g.database, g.schema)))}.<{g.kind}>", "ROLE", g.grantee,
         str(g.grant_option).lower())
        for g in found
    ]  # fmt: skip
    return _limited(cursor, table(columns, rows))


def _limited(cursor: Cursor, result: ResultSet) -> ResultSet:
    """Read [LIMIT n] to the end and apply it."""
    if cursor.accept("LIMIT"):
        result.rows = list(result.rows)[: cursor.integer()]
    cursor.expect_end()
    return result
