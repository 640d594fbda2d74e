"""DDL of roles and users."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.ddl import DONE, existing, exists_text
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.protocol import access_tokens
from monad_dagster.local.protocol.credentials import hash_password
from monad_dagster.local.protocol.key_pairs import KEY_PROPERTIES, fingerprint, read_public_key
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import Cursor, ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


@statement("CREATE ROLE")
def create_role(session: "Session", statement: Statement) -> ResultSet:
    """Create an account role."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    properties = cursor.properties("COMMENT", "TAG", kind="ROLE")
    session.require_account("CREATE ROLE")
    if existing(session, statement, "ROLE", name, if_not_exists):
        return exists_text(name)
    session.create_object("ROLE", name, properties=properties,
                          replace="OR REPLACE" in statement.modifiers)  # fmt: skip
    return status(f"Role {name.name} successfully created.")


@drop_statement("ROLE")
def drop_role(session: "Session", found: CatalogObject) -> None:
    """Drop a role; what it owned passes to the role that drops it."""
    held = [g for g in session.catalog.grants_to(found.name) if g.privilege == "OWNERSHIP"]
    with session.catalog.transaction():
        for grant in held:
            target = {"database": grant.database, "schema": grant.schema}
            session.catalog.update(grant.kind, grant.name, **target, owner=session.role)
            session.catalog.grant("OWNERSHIP", grant.kind, grant.name, session.role, **target)
        session.catalog.drop("ROLE", found.name)


_USER = (
    "PASSWORD", "LOGIN_NAME", "DISPLAY_NAME", "FIRST_NAME", "LAST_NAME", "EMAIL", "TYPE", "COMMENT",
    "DEFAULT_ROLE", "DEFAULT_WAREHOUSE", "DEFAULT_NAMESPACE", "DEFAULT_SECONDARY_ROLES", "DISABLED",
    "MUST_CHANGE_PASSWORD", "RSA_PUBLIC_KEY", "RSA_PUBLIC_KEY_2", "TAG",
)  # fmt: skip


@statement("CREATE USER")
def create_user(session: "Session", statement: Statement) -> ResultSet:
    """Create a user, who logs in with a password, a key pair or an access token."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    properties = _user_properties(cursor)
    session.require_account("CREATE USER")
    if existing(session, statement, "USER", name, if_not_exists):
        return exists_text(name)
    session.create_object("USER", name, properties=properties,
                          replace="OR REPLACE" in statement.modifiers)  # fmt: skip
    return status(f"User {name.name} successfully created.")


def _user_properties(cursor: Cursor) -> dict[str, Any]:
    properties = cursor.properties(*_USER, kind="USER")
    if properties.get("PASSWORD"):
        properties["PASSWORD"] = hash_password(str(properties["PASSWORD"]))
    for key in KEY_PROPERTIES:
        if key in properties:
            properties |= _public_key(key, properties[key])
    if properties.get("DEFAULT_ROLE"):
        properties["DEFAULT_ROLE"] = str(properties["DEFAULT_ROLE"]).upper()
    return properties


def _public_key(name: str, written: Any) -> dict[str, Any]:
    """Return a key and its fingerprint as stored; both None when it is unset."""
    stored = read_public_key(str(written)) if written else None
    return {name: stored, f"{name}_FP": fingerprint(stored) if stored else None}


@statement("ALTER USER")
def alter_user(session: "Session", statement: Statement) -> ResultSet:
    """Change a user's properties or programmatic access tokens."""
    cursor = statement.cursor
    if_exists = cursor.accept("IF EXISTS")
    # Without a name the statement is about the user of the session.
    unnamed = any(map(cursor.looking_at, ("ADD", "MODIFY", "ROTATE", "REMOVE")))
    name = ObjectName((session.user,)) if unnamed else cursor.name()
    if if_exists and session.find("USER", name) is None:
        return status(DONE)
    if not cursor.looking_at("SET") and not cursor.looking_at("UNSET"):
        return access_tokens.alter_tokens(session, cursor, session.lookup("USER", name))
    properties = _user_properties(cursor) if cursor.accept("SET") else _unset(cursor)
    found = session.require_ownership("USER", name)
    session.catalog.update("USER", found.name, **properties)
    return status(DONE)


def _unset(cursor: Cursor) -> dict[str, Any]:
    cursor.expect("UNSET")
    names = [cursor.identifier()]
    while cursor.accept_op(","):
        names.append(cursor.identifier())
    cursor.expect_end()
    unknown = set(names) - set(_USER)
    if unknown:
        raise errors.invalid_property(min(unknown), "USER")
    fingerprints = [f"{name}_FP" for name in names if name in KEY_PROPERTIES]
    return dict.fromkeys([*names, *fingerprints])


@drop_statement("USER")
def drop_user(session: "Session", found: CatalogObject) -> None:
    """Drop a user."""
    access_tokens.forget_tokens(session.account, found.name)
    session.catalog.drop("USER", found.name)
