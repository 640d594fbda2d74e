"""Key-pair login: a user's RSA public keys and the JSON web tokens signed with their other half.

Follows https://docs.snowflake.com/en/user-guide/key-pair-auth: issuer
`ACCOUNT.USER.SHA256:<fingerprint>`, subject `ACCOUNT.USER`, RS256, valid for an hour at most.
"""

import base64
import hashlib
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from monad_dagster.local.errors import LoginError, StatementError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from monad_dagster.local.account import Account

KEY_PROPERTIES = ("RSA_PUBLIC_KEY", "RSA_PUBLIC_KEY_2")
_MIN_KEY_BITS = 2048
_MAX_VALIDITY_SECONDS = 3600
_LEEWAY_SECONDS = 60  # clocks of the two sides may differ a little


def read_public_key(text: str) -> str:
    """Return a public key as stored: base64 of its DER form, without PEM delimiters.

    Raises:
        StatementError: 390405 when the text is no RSA public key of 2048 bits or more.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    body = "".join(line for line in lines if not line.startswith("-----"))
    try:
        key = _load(body)
    except ValueError:
        raise _invalid_key() from None
    if key.key_size < _MIN_KEY_BITS:
        raise _invalid_key()
    return body


def fingerprint(stored: str) -> str:
    """Return `SHA256:<base64>` of a stored key, as DESCRIBE USER shows it."""
    digest = hashlib.sha256(base64.b64decode(stored)).digest()
    return f"SHA256:{base64.b64encode(digest).decode()}"


def check_token(account: "Account", token: str) -> str:
    """Return the user that *token* was signed by.

    Raises:
        LoginError: 390144 for whatever is wrong with it; the text tells nothing more.
    """
    import jwt

    try:
        claims = jwt.decode(token, options={"verify_signature": False}, algorithms=["RS256"])
        issuer = str(claims["iss"])
        account_name, user, key_print = issuer.split(".", maxsplit=2)
        _check_times(claims, account.clock())
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        raise _invalid_token() from None
    if account_name != account.name or claims.get("sub") != f"{account_name}.{user}":
        raise _invalid_token()
    found = account.catalog.get("USER", user)
    if found is None or found.properties.get("DISABLED"):
        raise _invalid_token()
    for name in KEY_PROPERTIES:
        stored = found.properties.get(name)
        if stored and fingerprint(stored) == key_print and _is_signed_by(token, stored):
            return found.name
    raise _invalid_token()


def _is_signed_by(token: str, stored: str) -> bool:
    import jwt

    # Times were judged by the account's own clock.
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    try:
        jwt.decode(token, _load(stored), algorithms=["RS256"], options=options)
    except jwt.PyJWTError:
        return False
    return True


def _check_times(claims: dict[str, Any], now: datetime) -> None:
    issued, expires, present = float(claims["iat"]), float(claims["exp"]), now.timestamp()
    if not issued - _LEEWAY_SECONDS <= present < expires:
        raise ValueError("outside of its validity")
    if expires - issued > _MAX_VALIDITY_SECONDS:
        raise ValueError("valid for too long")


def _load(body: str) -> "RSAPublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(body, validate=True))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    return key


def _invalid_key() -> StatementError:
    return StatementError(390405, "22023", "New public key rejected by current policy. Reason: "
                          "'Invalid public key'")  # fmt: skip


def _invalid_token() -> LoginError:
    return LoginError(390144, f"JWT token is invalid. [{uuid.uuid4()}]")
