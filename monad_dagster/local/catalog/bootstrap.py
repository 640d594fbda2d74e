"""What a fresh account holds: system roles, the two users, the SNOWFLAKE database."""

from typing import TYPE_CHECKING

from monad_dagster.local.protocol.credentials import check_password, hash_password

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

# role -> roles it inherits, as Snowflake's system roles do
_HIERARCHY = {
    "ACCOUNTADMIN": ("SYSADMIN", "SECURITYADMIN"),
    "SECURITYADMIN": ("USERADMIN",),
    "USERADMIN": (),
    "SYSADMIN": (),
    "ORGADMIN": (),
    "PUBLIC": (),
}
_ACCOUNT_PRIVILEGES = {
    "ACCOUNTADMIN": ("ALL",),
    "SECURITYADMIN": ("MANAGE GRANTS",),
    "USERADMIN": ("CREATE USER", "CREATE ROLE"),
    "SYSADMIN": (
        "CREATE DATABASE",
        "CREATE WAREHOUSE",
        "CREATE COMPUTE POOL",
        "CREATE INTEGRATION",
    ),
}
_DEFAULT_ROLES = {"ADMIN": "ACCOUNTADMIN", "MONAD_PIPELINE": "MONAD_ROLE"}


def bootstrap(account: "Account") -> None:
    """Create what is missing; passwords follow credentials.json."""
    catalog = account.catalog
    with catalog.transaction():
        if catalog.get("ROLE", "ACCOUNTADMIN") is None:
            _create_roles(account)
            _create_system_database(account)
        for user, password in account.credentials["users"].items():
            _ensure_user(account, user, password)


def _create_roles(account: "Account") -> None:
    catalog = account.catalog
    for role in _HIERARCHY:
        catalog.create("ROLE", role, "", properties={"COMMENT": "System role."})
    for role, inherited in _HIERARCHY.items():
        for child in inherited:
            catalog.grant("USAGE", "ROLE", child, role)
    for role, privileges in _ACCOUNT_PRIVILEGES.items():
        for privilege in privileges:
            catalog.grant(privilege, "ACCOUNT", account.name, role)


def _create_system_database(account: "Account") -> None:
    catalog = account.catalog
    catalog.create("DATABASE", "SNOWFLAKE", "ACCOUNTADMIN", properties={"SYSTEM": True})
    catalog.grant("USAGE", "DATABASE", "SNOWFLAKE", "PUBLIC")
    for schema in ("TELEMETRY", "SPCS", "IMAGES", "CORE"):
        catalog.create(
            "SCHEMA", schema, "ACCOUNTADMIN", database="SNOWFLAKE", properties={"SYSTEM": True}
        )
        catalog.grant("USAGE", "SCHEMA", schema, "PUBLIC", database="SNOWFLAKE")
    for kind, name in (("TABLE", "EVENTS"), ("VIEW", "EVENTS_VIEW")):
        catalog.create(kind, name, "ACCOUNTADMIN", database="SNOWFLAKE", schema="TELEMETRY")


def _ensure_user(account: "Account", user: str, password: str) -> None:
    catalog = account.catalog
    found = catalog.get("USER", user)
    if found is None:
        role = _DEFAULT_ROLES.get(user)
        catalog.create(
            "USER", user, "USERADMIN",
            properties={"PASSWORD": hash_password(password), "DEFAULT_ROLE": role},
        )  # fmt: skip
        if user == "ADMIN":
            catalog.grant("USAGE", "ROLE", "ACCOUNTADMIN", user, grantee_kind="USER")
    elif not check_password(password, found.properties.get("PASSWORD")):
        catalog.update("USER", user, PASSWORD=hash_password(password))
