"""USE and ALTER SESSION, ALTER ACCOUNT: what is current and what is set."""

from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.catalog.ddl import DONE
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_USE = 0x4300


def _used() -> ResultSet:
    result = status(DONE)
    result.statement_type_id = _USE
    return result


@statement("USE ROLE")
def use_role(session: "Session", statement: Statement) -> ResultSet:
    """Make another granted role current."""
    name = statement.cursor.name()
    statement.cursor.expect_end()
    if session.catalog.get("ROLE", name.name) is None:
        raise errors.cannot_operate()
    allowed = (
        session.catalog.roles_of(session.only_role) & {session.only_role, "PUBLIC"}
        if session.only_role
        else session.catalog.roles_of_user(session.user)
    )
    if name.name not in allowed:
        raise errors.StatementError(
            3013,
            "42501",
            "SQL access control error:\n"
            f"Requested role '{name.name}' is not assigned to the executing user. "
            "Specify another role to activate.",
        )
    session.role = name.name
    return _used()


@statement("USE SECONDARY ROLES")
def use_secondary_roles(session: "Session", statement: Statement) -> ResultSet:
    """Accept NONE only: secondary roles are off."""
    if not statement.cursor.accept("NONE"):
        raise errors.unsupported("USE SECONDARY ROLES")
    return _used()


@statement("USE WAREHOUSE")
def use_warehouse(session: "Session", statement: Statement) -> ResultSet:
    """Make a warehouse current."""
    name = statement.cursor.name()
    statement.cursor.expect_end()
    found = session.find("WAREHOUSE", name)
    if found is None or not session.has_privilege(found, "USAGE", "OPERATE", "MODIFY"):
        raise errors.cannot_operate()
    session.warehouse = found.name
    return _used()


@statement("USE SCHEMA")
def use_schema(session: "Session", statement: Statement) -> ResultSet:
    """Make a schema, and its database, current."""
    name = statement.cursor.name()
    statement.cursor.expect_end()
    _use_schema(session, name)
    return _used()


def _use_schema(session: "Session", name: ObjectName) -> None:
    database, schema = session.qualify_schema(name)
    if schema == "INFORMATION_SCHEMA" and session.find("DATABASE", ObjectName((database,))):
        session.database, session.schema = database, schema
        return
    found = session.find("SCHEMA", ObjectName((database, schema)))
    if found is None:
        raise errors.cannot_operate()
    session.database, session.schema = found.database, found.name


@statement("USE DATABASE", "USE")
def use_database(session: "Session", statement: Statement) -> ResultSet:
    """Make a database current, and its PUBLIC schema where it is visible."""
    name = statement.cursor.name()
    statement.cursor.expect_end()
    if len(name.parts) == 2:
        _use_schema(session, name)
        return _used()
    found = session.find("DATABASE", name)
    if found is None:
        raise errors.cannot_operate()
    public = session.find("SCHEMA", ObjectName((found.name, "PUBLIC")))
    session.database, session.schema = found.name, "PUBLIC" if public else None
    return _used()


@statement("ALTER SESSION")
def alter_session(session: "Session", statement: Statement) -> ResultSet:
    """Set or unset session parameters."""
    cursor = statement.cursor
    if cursor.accept("UNSET"):
        while not cursor.at_end():
            session.parameters.pop(cursor.identifier(), None)
            cursor.accept_op(",")
        return status(DONE)
    cursor.expect("SET")
    session.parameters.update(cursor.properties())
    return status(DONE)


@statement("ALTER ACCOUNT")
def alter_account(session: "Session", statement: Statement) -> ResultSet:
    """Set or unset account parameters."""
    cursor = statement.cursor
    session.require_account("MODIFY")
    if cursor.accept("UNSET"):
        session.account.set_parameter("ACCOUNT:", cursor.identifier(), None)
        return status(DONE)
    cursor.expect("SET")
    for key, value in cursor.properties().items():
        session.account.set_parameter("ACCOUNT:", key, value)
    return status(DONE)
