"""What a GRANT or REVOKE of privileges changes, and who may do it.

Follows https://docs.snowflake.com/en/sql-reference/sql/grant-privilege, revoke-privilege and
grant-ownership. Texts marked approximate were not found in public material.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject, Grant
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.statements import quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

DONE = "Statement executed successfully."


@dataclass
class Target:
    """What a GRANT or REVOKE is about."""

    kind: str
    objects: list[CatalogObject] = field(default_factory=list)
    future: tuple[str, str] | None = None  # (database, schema or "")
    is_bulk: bool = False


@dataclass
class Change:
    """A GRANT or REVOKE of privileges.

    Attributes:
        option: WITH GRANT OPTION; in a REVOKE, GRANT OPTION FOR.
        mode: COPY or REVOKE CURRENT GRANTS of an ownership, CASCADE or RESTRICT of a REVOKE.
    """

    session: "Session"
    privileges: list[str]
    target: Target
    grantee: str
    granting: bool
    option: bool = False
    mode: str | None = None


def apply_change(change: Change) -> ResultSet:
    """Grant or revoke, all of it or nothing.

    Raises:
        StatementError: 3001 when the role may not, 3150 and its neighbours for the order.
    """
    session, target = change.session, change.target
    with session.catalog.transaction():
        if target.kind == "ACCOUNT":
            _change_account(change)
        elif target.future is not None:
            _change_future(change)
        else:
            for found in target.objects:
                require_grantor(session, found, change.privileges)
                for privilege in change.privileges:
                    _change_one(change, privilege, found)
    if target.is_bulk:
        return status(f"{DONE} {len(target.objects)} objects affected.")
    return status(DONE)


def _change_account(change: Change) -> None:
    session = change.session
    held = [
        grant
        for grant in session.catalog.grants_on("ACCOUNT", session.account.name)
        if grant.grant_option and grant.grantee in session.catalog.roles_of(session.role)
    ]
    if not set(change.privileges) <= {grant.privilege for grant in held}:
        session.require_account("MANAGE GRANTS")
    for privilege in change.privileges:
        name = session.account.name
        if change.granting:
            session.catalog.grant(privilege, "ACCOUNT", name, change.grantee,
                                  grantor=session.role, grant_option=change.option)  # fmt: skip
        elif change.option:
            session.catalog.revoke_option(privilege, "ACCOUNT", name, change.grantee)
        else:
            session.catalog.revoke(privilege, "ACCOUNT", name, change.grantee)


def _change_future(change: Change) -> None:
    session = change.session
    assert change.target.future is not None
    database, schema = change.target.future
    if not session.has_account_privilege("MANAGE GRANTS"):
        scope = session.catalog.get("SCHEMA", schema, database) if schema else None
        found = scope or session.catalog.get("DATABASE", database)
        if found is None or not session.has_privilege(found, "OWNERSHIP"):
            raise errors.insufficient_privileges(
                "schema" if schema else "database", schema or database
            )
    for privilege in change.privileges:
        where = {"database": database, "schema": schema}
        if change.granting:
            session.catalog.grant_future(privilege, change.target.kind, change.grantee, **where,
                                         grant_option=change.option)  # fmt: skip
        else:
            session.catalog.revoke_future(privilege, change.target.kind, change.grantee, **where)


def require_grantor(
    session: "Session", found: CatalogObject, privileges: list[str] | None = None
) -> None:
    """Refuse unless the role decides about the object's grants or holds the grant option."""
    if decides(session, found):
        return
    if privileges is None or not set(privileges) <= _grantable(session, found):
        raise errors.insufficient_privileges(found.kind, quote_identifier(found.name))


def decides(session: "Session", found: CatalogObject) -> bool:
    """Tell whether the role owns the object or manages grants.

    In a schema with managed access the schema's owner stands in for the objects' owners.
    """
    if session.has_account_privilege("MANAGE GRANTS"):
        return True
    return session.has_privilege(_managing_schema(session, found) or found, "OWNERSHIP")


def _managing_schema(session: "Session", found: CatalogObject) -> CatalogObject | None:
    schema = session.catalog.get("SCHEMA", found.schema, found.database) if found.schema else None
    return schema if schema is not None and schema.properties.get("MANAGED") else None


def _grantable(session: "Session", found: CatalogObject) -> set[str]:
    """Return the privileges that the role holds with the grant option."""
    roles = session.catalog.roles_of(session.role)
    return {
        g.privilege for g in _grants_on(session, found) if g.grantee in roles and g.grant_option
    }


def _grants_on(session: "Session", found: CatalogObject) -> list[Grant]:
    return session.catalog.grants_on(
        found.kind, found.name, database=found.database, schema=found.schema
    )


def _change_one(change: Change, privilege: str, found: CatalogObject) -> None:
    session = change.session
    catalog, where = session.catalog, {"database": found.database, "schema": found.schema}
    if privilege == "OWNERSHIP":
        if change.granting:
            _transfer(change, found)
        return
    if found.kind == "STAGE":
        _check_stage_order(change, privilege, found)
    if change.granting:
        catalog.grant(privilege, found.kind, found.name, change.grantee, **where,
                      grantor=session.role, grant_option=change.option)  # fmt: skip
        return
    _revoke_dependents(change, privilege, found, change.grantee)
    if change.option:
        catalog.revoke_option(privilege, found.kind, found.name, change.grantee, **where)
    else:
        catalog.revoke(privilege, found.kind, found.name, change.grantee, **where)


def _revoke_dependents(change: Change, privilege: str, found: CatalogObject, grantor: str) -> None:
    """Take back, with CASCADE, what the grantee granted on; without it refuse (approximate)."""
    catalog, where = change.session.catalog, {"database": found.database, "schema": found.schema}
    dependents = [
        grant
        for grant in _grants_on(change.session, found)
        if grant.privilege == privilege and grant.grantor == grantor and grant.grantee != grantor
    ]
    if dependents and change.mode != "CASCADE":
        raise _dependent_grant(dependents[0])
    for grant in dependents:
        _revoke_dependents(change, privilege, found, grant.grantee)
        catalog.revoke(privilege, found.kind, found.name, grant.grantee, **where)


def _dependent_grant(grant: Grant) -> errors.StatementError:
    """Return the error for a grant that must go first (its number is approximate)."""
    return errors.StatementError(
        3036, "42501",
        "SQL access control error:\n"
        f"Dependent grant of privilege '{grant.privilege}' on securable '{grant.fqn}' to role "
        f"'{grant.grantee}' exists. It must be revoked first. More than one dependent grant may "
        "exist: use 'SHOW GRANTS' command to view them. To revoke all dependent grants while "
        "transferring object ownership, use convenience command 'GRANT OWNERSHIP ON "
        "<target_objects> TO <target_role> REVOKE CURRENT GRANTS'.",
    )  # fmt: skip


def _check_stage_order(change: Change, privilege: str, found: CatalogObject) -> None:
    """WRITE needs READ first, and READ stays while WRITE does (texts are approximate)."""
    held = {g.privilege for g in _grants_on(change.session, found) if g.grantee == change.grantee}
    if change.granting and privilege == "WRITE" and not held & {"READ", "OWNERSHIP"}:
        raise errors.StatementError(
            3150, "42501",
            "SQL access control error:\nThe READ privilege must be granted before the WRITE "
            f"privilege on stage '{found.name}'.",
        )  # fmt: skip
    if not change.granting and privilege == "READ" and "WRITE" in held:
        raise errors.StatementError(
            3151, "42501",
            "SQL access control error:\nThe WRITE privilege must be revoked before the READ "
            f"privilege on stage '{found.name}'.",
        )  # fmt: skip


def _transfer(change: Change, found: CatalogObject) -> None:
    """Make another role the owner; grants on the object are copied or revoked as asked."""
    session = change.session
    if found.kind == "SERVICE":
        raise errors.unsupported("transfer of ownership of a service")
    where = {"database": found.database, "schema": found.schema}
    others = [g for g in _grants_on(session, found) if g.privilege != "OWNERSHIP"]
    if others and change.mode is None:
        raise _dependent_grant(others[0])
    if change.mode == "REVOKE CURRENT GRANTS":
        for grant in others:
            session.catalog.revoke(grant.privilege, found.kind, found.name, grant.grantee, **where,
                                   grantee_kind=grant.grantee_kind)  # fmt: skip
    else:
        session.catalog.regrant(found.kind, found.name, change.grantee, **where)
    session.catalog.revoke("OWNERSHIP", found.kind, found.name, found.owner, **where)
    session.catalog.grant("OWNERSHIP", found.kind, found.name, change.grantee, **where,
                          grantor=session.role, grant_option=True)  # fmt: skip
    session.catalog.update(found.kind, found.name, **where, owner=change.grantee)
