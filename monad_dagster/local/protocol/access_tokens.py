"""Programmatic access tokens: statements of their life and login with them.

Follows https://docs.snowflake.com/en/sql-reference/sql/alter-user-add-programmatic-access-token and
its neighbours. Deviation from Snowflake: network policies are not emulated, so a token needs none.
"""

import datetime as dt
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.errors import LoginError, StatementError
from monad_dagster.local.protocol.results import ResultSet, number, status, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.statements import Cursor, Statement, parse_name, quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

_COLLECTION = "access_tokens"
_NOTE = "network policies are not emulated: a token needs none"
_DEFAULT_DAYS = 15
_MAX_DAYS = 365
_MAX_TOKENS = 15  # of one user, as documented
_LISTED_AFTER_EXPIRY = dt.timedelta(days=30)
_OPTIONS = (
    "ROLE_RESTRICTION", "DAYS_TO_EXPIRY", "MINS_TO_BYPASS_NETWORK_POLICY_REQUIREMENT", "COMMENT",
)  # fmt: skip


def alter_tokens(session: "Session", cursor: Cursor, user: CatalogObject) -> ResultSet:
    """Execute the rest of ALTER USER ... { ADD | MODIFY | ROTATE | REMOVE } PAT."""
    action = cursor.accept_any("ADD", "MODIFY", "ROTATE", "REMOVE")
    if action is None or not _accept_kind(cursor, "TOKEN"):
        raise cursor.error()
    _require_control(session, user)
    if action == "ADD":
        return _add(session, cursor, user)
    name = cursor.identifier()
    token = _tokens_of(session.account, user.name).get(name)
    if token is None:
        raise errors.does_not_exist("Programmatic access token", quote_identifier(name))
    if action == "REMOVE":
        cursor.expect_end()
        session.catalog.delete_document(_COLLECTION, _key(user.name, name))
        return status("Statement executed successfully.")
    return (_rotate if action == "ROTATE" else _modify)(session, cursor, user.name, token)


@statement("SHOW USER PROGRAMMATIC ACCESS TOKENS", "SHOW USER PATS", note=_NOTE)
def show_access_tokens(session: "Session", statement: Statement) -> ResultSet:
    """List a user's programmatic access tokens; secrets are shown only once, when made."""
    cursor = statement.cursor
    name = cursor.name() if cursor.accept("FOR USER") else parse_name(f'"{session.user}"')
    cursor.expect_end()
    user = session.lookup("USER", name)
    _require_control(session, user)
    columns = [
        text("name"), text("user_name"), text("role_restriction"), timestamp("expires_at"),
        text("status"), text("comment"), timestamp("created_on"), text("created_by"),
        number("mins_to_bypass_network_policy_requirement"), text("rotated_to"),
    ]  # fmt: skip
    now = session.now()
    rows = [
        (token["name"], user.name, token["role"], _time(token["expires"]), _status(user, token, now),
         token["comment"], _time(token["created"]), token["created_by"], token["bypass"],
         token.get("rotated_to"))
        for token in _tokens_of(session.account, user.name).values()
        if _time(token["expires"]) + _LISTED_AFTER_EXPIRY > now
    ]  # fmt: skip
    return table(columns, rows)


def check_secret(account: "Account", user: str | None, secret: str) -> tuple[str, str | None]:
    """Return the user and the role restriction that an access token stands for.

    Args:
        account: The account.
        user: The login name, or None to take whomever the token belongs to.
        secret: The token's secret.

    Raises:
        LoginError: 394400 for an unknown token, an expired one or another user's.
    """
    digest = _hash(secret)
    for token in account.catalog.documents(_COLLECTION).values():
        if not hmac.compare_digest(token["hash"], digest):
            continue
        found = account.catalog.get("USER", token["user"])
        if found is None or (user is not None and user.upper() != found.name):
            break
        if _status(found, token, account.clock()) != "ACTIVE":
            break
        if token["role"] and token["role"] not in account.catalog.roles_of_user(found.name):
            break
        return found.name, token["role"]
    raise LoginError(394400, "Programmatic access token is invalid.")


def forget_tokens(account: "Account", user: str) -> None:
    """Delete every access token of a user that is dropped."""
    for token in _tokens_of(account, user).values():
        account.catalog.delete_document(_COLLECTION, _key(user, token["name"]))


def _accept_kind(cursor: Cursor, last: str) -> bool:
    return cursor.accept(f"PROGRAMMATIC ACCESS {last}") or cursor.accept("PAT")


def _require_control(session: "Session", user: CatalogObject) -> None:
    allowed = ("OWNERSHIP", "MODIFY PROGRAMMATIC AUTHENTICATION METHODS")
    if user.name != session.user and not session.has_privilege(user, *allowed):
        raise errors.insufficient_privileges("user", quote_identifier(user.name))


def _add(session: "Session", cursor: Cursor, user: CatalogObject) -> ResultSet:
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.identifier()
    options = cursor.properties(*_OPTIONS, kind="PROGRAMMATIC ACCESS TOKEN")
    held = _tokens_of(session.account, user.name)
    if name in held:
        if if_not_exists:
            return status(f"{name} already exists, statement succeeded.")
        raise errors.already_exists(quote_identifier(name))
    if len(held) >= _MAX_TOKENS:
        raise StatementError(
            394406, "22023", f"Programmatic access token limit of {_MAX_TOKENS} reached."
        )
    role = _restriction(session, user, options.get("ROLE_RESTRICTION"))
    days = _days(options.get("DAYS_TO_EXPIRY", _DEFAULT_DAYS))
    now = session.now()
    token = {
        "name": name, "user": user.name, "role": role, "created": now.timestamp(), "days": days,
        "expires": (now + dt.timedelta(days=days)).timestamp(), "created_by": session.user,
        "comment": options.get("COMMENT"),
        "bypass": options.get("MINS_TO_BYPASS_NETWORK_POLICY_REQUIREMENT"),
    }  # fmt: skip
    secret = _store(session, token)
    return table([text("token_name"), text("token_secret")], [(name, secret)])


def _restriction(session: "Session", user: CatalogObject, written: Any) -> str | None:
    """Return the role a token is restricted to; a service user's token needs one."""
    if written is None:
        if str(user.properties.get("TYPE") or "").upper() == "SERVICE":
            raise errors.missing_property("ROLE_RESTRICTION")
        return None
    role = parse_name(str(written)).name
    if role not in session.catalog.roles_of_user(user.name):
        raise errors.does_not_exist("Role", quote_identifier(role))
    return role


def _days(written: Any) -> int:
    if not isinstance(written, int) or not 1 <= written <= _MAX_DAYS:
        raise errors.invalid_value(written, "DAYS_TO_EXPIRY")
    return written


def _rotate(session: "Session", cursor: Cursor, user: str, token: dict[str, Any]) -> ResultSet:
    """Give a token a new secret; the old one keeps working for a while under another name."""
    options = cursor.properties("EXPIRE_ROTATED_TOKEN_AFTER_HOURS", kind="PAT")
    now = session.now()
    hours = options.get("EXPIRE_ROTATED_TOKEN_AFTER_HOURS", 24)
    if not isinstance(hours, int) or hours < 0:
        raise errors.invalid_value(hours, "EXPIRE_ROTATED_TOKEN_AFTER_HOURS")
    old = f"{token['name']}_ROTATED_{now:%Y%m%d%H%M%S%f}"
    until = min(token["expires"], (now + dt.timedelta(hours=hours)).timestamp())
    rotated = token | {"name": old, "expires": until, "rotated_to": token["name"]}
    session.catalog.put_document(_COLLECTION, _key(user, old), rotated)
    fresh = {
        "created": now.timestamp(),
        "expires": (now + dt.timedelta(days=token["days"])).timestamp(),
    }
    secret = _store(session, token | fresh)
    columns = [text("token_name"), text("token_secret"), text("rotated_token_name")]
    return table(columns, [(token["name"], secret, old)])


def _modify(session: "Session", cursor: Cursor, user: str, token: dict[str, Any]) -> ResultSet:
    if cursor.accept("RENAME TO"):
        new = cursor.identifier()
        cursor.expect_end()
        if new in _tokens_of(session.account, user):
            raise errors.already_exists(quote_identifier(new))
        with session.catalog.transaction():
            session.catalog.delete_document(_COLLECTION, _key(user, token["name"]))
            session.catalog.put_document(_COLLECTION, _key(user, new), token | {"name": new})
        return status("Statement executed successfully.")
    cursor.expect("SET")
    options = cursor.properties("COMMENT", "MINS_TO_BYPASS_NETWORK_POLICY_REQUIREMENT", "DISABLED",
                                kind="PROGRAMMATIC ACCESS TOKEN")  # fmt: skip
    names = {"COMMENT": "comment", "MINS_TO_BYPASS_NETWORK_POLICY_REQUIREMENT": "bypass",
             "DISABLED": "disabled"}  # fmt: skip
    changed = token | {names[key]: value for key, value in options.items()}
    session.catalog.put_document(_COLLECTION, _key(user, token["name"]), changed)
    return status("Statement executed successfully.")


def _store(session: "Session", token: dict[str, Any]) -> str:
    """Store a token with a new secret and return the secret."""
    secret = secrets.token_urlsafe(96)
    document = token | {"hash": _hash(secret)}
    session.catalog.put_document(_COLLECTION, _key(token["user"], token["name"]), document)
    return secret


def _tokens_of(account: "Account", user: str) -> dict[str, dict[str, Any]]:
    found = account.catalog.documents(_COLLECTION).values()
    return {token["name"]: token for token in found if token["user"] == user}


def _status(user: CatalogObject, token: dict[str, Any], now: dt.datetime) -> str:
    if _time(token["expires"]) <= now:
        return "EXPIRED"
    return "DISABLED" if user.properties.get("DISABLED") or token.get("disabled") else "ACTIVE"


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _key(user: str, name: str) -> str:
    return f"{quote_identifier(user)}.{quote_identifier(name)}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
