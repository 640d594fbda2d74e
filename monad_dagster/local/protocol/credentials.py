"""Passwords of the local account: generated once, shown only in DIR/credentials.json (0600)."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

USERS = ("ADMIN", "MONAD_PIPELINE")
_ROUNDS = 1 << 12  # scrypt cost; a local test account, not a vault
_NOBODY = "00" * 16 + "$" + "00" * 32


def credentials_path(state_dir: Path) -> Path:
    """Return where the generated passwords are."""
    return state_dir / "credentials.json"


def load_credentials(state_dir: Path) -> dict[str, Any]:
    """Return the users' passwords, generating the file on first use."""
    path = credentials_path(state_dir)
    if path.exists():
        return json.loads(path.read_text())
    content = {"users": {user: secrets.token_urlsafe(18) for user in USERS}}
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return content


def hash_password(password: str) -> str:
    """Return a salted hash for the catalog."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_derive(password, salt).hex()}"


def check_password(password: str, stored: str | None) -> bool:
    """Compare a password with a stored hash in constant time."""
    salt, _, digest = (stored or _NOBODY).partition("$")
    derived = _derive(password, bytes.fromhex(salt))
    return hmac.compare_digest(derived.hex(), digest) and stored is not None


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_ROUNDS, r=8, p=1)
