"""Login with real credential checks, token renewal and the parameters a login returns."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local.errors import LoginError
from monad_dagster.local.protocol import key_pairs
from monad_dagster.local.protocol.access_tokens import check_secret
from monad_dagster.local.protocol.tokens import MASTER_SECONDS, SESSION_SECONDS
from monad_dagster.local.session import Session
from monad_dagster.local.sql.statements import parse_name

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

_BAD_PASSWORD = "Incorrect username or password was specified."  # noqa: S105 - an error text
_PASSWORD_AUTHENTICATORS = frozenset({"", "SNOWFLAKE", "DEFAULT"})


def log_in(account: "Account", data: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    """Check a login request and return the new session's tokens.

    Raises:
        LoginError: As Snowflake refuses: 390100 credentials, 390201 objects, 390189 role.
    """
    _check_account_name(account, str(data.get("ACCOUNT_NAME") or ""))
    authenticator = str(data.get("AUTHENTICATOR") or "").upper()
    facts = {
        "client": str(data.get("CLIENT_APP_ID") or ""),
        "client_version": str(data.get("CLIENT_APP_VERSION") or ""),
    }
    if authenticator in _PASSWORD_AUTHENTICATORS:
        session = _password_login(account, data, query, facts)
    elif authenticator == "SNOWFLAKE_JWT":
        user = key_pairs.check_token(account, str(data.get("TOKEN") or ""))
        session = _user_session(account, user, query, facts)
    elif authenticator == "PROGRAMMATIC_ACCESS_TOKEN":
        login_name = str(data.get("LOGIN_NAME") or "") or None
        user, role = check_secret(account, login_name, str(data.get("TOKEN") or ""))
        session = _user_session(account, user, query, facts, only_role=role)
    elif authenticator == "OAUTH":
        session = _job_login(account, str(data.get("TOKEN") or ""), query, facts)
    else:
        raise LoginError(
            390107, f"Authenticator {authenticator} is not emulated by the local account."
        )
    _set_context(session, query)
    session.parameters.update(
        {str(k).upper(): v for k, v in (data.get("SESSION_PARAMETERS") or {}).items()}
    )
    return _login_answer(session)


def _check_account_name(account: "Account", name: str) -> None:
    accepted = {account.name, f"{account.organization}-{account.name}"}
    if name.upper().split(".")[0] not in accepted:
        raise LoginError(390100, _BAD_PASSWORD)


def _password_login(
    account: "Account", data: dict[str, Any], query: dict[str, str], facts: dict[str, str]
) -> Session:
    user, only_role = account.check_login(
        str(data.get("LOGIN_NAME") or ""), str(data.get("PASSWORD") or "")
    )
    if user is None:
        raise LoginError(390100, _BAD_PASSWORD)
    return _user_session(account, user, query, facts, only_role=only_role)


def _user_session(
    account: "Account",
    user: str,
    query: dict[str, str],
    facts: dict[str, str],
    *,
    only_role: str | None = None,
) -> Session:
    """Open a session with the role asked for, the user's default one or the token's only one."""
    role = _requested(query.get("roleName"))
    if role is None:
        role = only_role or account.default_role(user)
    elif role not in account.catalog.roles_of_user(user) or role not in {only_role or role}:
        _refuse_role(account, user, role)
    session = account.create_session(user, role, **facts)
    session.only_role = only_role
    return session


def _refuse_role(account: "Account", user: str, role: str) -> None:
    if account.catalog.get("ROLE", role) is None:
        raise LoginError(
            390189,
            f"Role '{role}' specified in the connect string does not exist or not authorized. "
            "Contact your local system administrator, or attempt to login with another role, "
            "e.g. PUBLIC.",
        )
    raise LoginError(
        390186,
        f"Role '{role}' specified in the connect string is not granted to this user. Contact your "
        "local system administrator, or attempt to login with another role, e.g. PUBLIC.",
    )


def _job_login(
    account: "Account", token: str, query: dict[str, str], facts: dict[str, str]
) -> Session:
    principal = account.tokens.find_job_token(token)
    if principal is None:
        raise LoginError(390303, "Invalid OAuth access token. ")
    role = _requested(query.get("roleName"))
    if role is not None and role not in {principal.role, "PUBLIC"}:
        _refuse_role(account, principal.service_fqn, role)
    user = principal.service_fqn.rsplit(".", maxsplit=1)[-1]
    session = account.create_session(user, role or principal.role, is_job=True, **facts)
    session.only_role = principal.role
    jobs = account.extensions.get("jobs")
    session.warehouse = jobs.query_warehouse(principal.service_fqn) if jobs else None
    return session


def _requested(text: str | None) -> str | None:
    return parse_name(text).name if text else None


def _set_context(session: Session, query: dict[str, str]) -> None:
    """Set database, schema and warehouse; what is missing or invisible is left unset."""
    catalog = session.catalog
    database, schema = _requested(query.get("databaseName")), _requested(query.get("schemaName"))
    if database is not None:
        found = catalog.get("DATABASE", database)
        if found is not None and session.can_see(found):
            session.database = database
            wanted = schema or "PUBLIC"
            inner = catalog.get("SCHEMA", wanted, database)
            visible = inner is not None and session.can_see(inner)
            session.schema = wanted if visible or wanted == "INFORMATION_SCHEMA" else None
    warehouse = _requested(query.get("warehouse"))
    if warehouse is not None:
        found = catalog.get("WAREHOUSE", warehouse)
        if found is not None and session.can_see(found):
            session.warehouse = warehouse


def _login_answer(session: Session) -> dict[str, Any]:
    tokens = session.account.tokens
    return {
        "token": tokens.issue("session", session.id, session.user),
        "masterToken": tokens.issue("master", session.id, session.user),
        "validityInSeconds": SESSION_SECONDS,
        "masterValidityInSeconds": MASTER_SECONDS,
        "sessionId": session.id,
        "displayUserName": session.user,
        "serverVersion": session.account.version,
        "firstLogin": False,
        "parameters": session_parameters(session),
        "sessionInfo": {
            "databaseName": session.database,
            "schemaName": session.schema,
            "warehouseName": session.warehouse,
            "roleName": session.role,
        },
    }


_DEFAULTS: dict[str, Any] = {
    "AUTOCOMMIT": True,
    "TIMEZONE": "Etc/UTC",
    "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY": 3600,
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
    "CLIENT_PREFETCH_THREADS": 4,
    "CLIENT_TELEMETRY_ENABLED": False,
    "SERVICE_NAME": "",
}


def session_parameters(session: Session) -> list[dict[str, Any]]:
    """Return the parameters that clients read from answers."""
    known = {name: session.parameters.get(name, value) for name, value in _DEFAULTS.items()}
    return [{"name": name, "value": value} for name, value in known.items()]


def session_of(account: "Account", token: str) -> Session:
    """Return the session of a live session token.

    Raises:
        LoginError: 390104 when unknown, 390112 when expired (clients then renew).
    """
    info = account.tokens.find(token)
    if info is None or info.kind != "session" or info.session_id not in account.sessions:
        raise LoginError(390104, "User must login again to access the service.")
    if account.tokens.is_expired(info):
        raise LoginError(390112, "Your session has expired. Please login again.")
    return account.sessions[info.session_id]


def renew(account: "Account", master: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answer a token request made with a master token.

    Raises:
        LoginError: 390104 when the token is not a master token, 390114 when it has expired.
    """
    info = account.tokens.find(master)
    if info is None or info.kind != "master" or info.session_id not in account.sessions:
        raise LoginError(390104, "User must login again to access the service.")
    if account.tokens.is_expired(info):
        raise LoginError(
            390114, "Authentication token has expired. The user must authenticate again."
        )
    kind = str(body.get("requestType") or "").upper()
    if kind not in {"ISSUE", "RENEW", "CLONE"}:
        raise LoginError(390400, "requestType is not ISSUE, RENEW or CLONE.")
    return {
        "sessionToken": account.tokens.issue("session", info.session_id, info.user),
        "validityInSecondsST": SESSION_SECONDS,
        "masterToken": account.tokens.issue("master", info.session_id, info.user),
        "validityInSecondsMT": MASTER_SECONDS,
        "sessionId": info.session_id,
    }
