"""Session, master, registry and job tokens: issue, renew, expire, revoke.

Session tokens live in memory: a restarted account makes clients log in again. Job tokens are
stored, because a job service may outlive a restart of the account.
"""

import datetime as dt
import hashlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from monad_dagster.local.catalog.catalog import Catalog

SESSION_SECONDS = 3600
MASTER_SECONDS = 14400


@dataclass(frozen=True)
class TokenInfo:
    """What a token stands for."""

    kind: str  # session or master
    session_id: int
    user: str
    expires_at: dt.datetime


@dataclass(frozen=True)
class JobPrincipal:
    """Who logs in with a job token: the job service's owner role and nothing else."""

    service_fqn: str
    role: str
    user: str


class Tokens:
    """Every token of the account, kept as hashes."""

    def __init__(self, catalog: Catalog, clock: Callable[[], dt.datetime]) -> None:
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._live: dict[str, TokenInfo] = {}

    def issue(self, kind: str, session_id: int, user: str) -> str:
        """Return a new session or master token."""
        seconds = SESSION_SECONDS if kind == "session" else MASTER_SECONDS
        token = f"ver:3-hint:{session_id}-{secrets.token_urlsafe(32)}"
        info = TokenInfo(kind, session_id, user, self._clock() + dt.timedelta(seconds=seconds))
        with self._lock:
            self._live[_hash(token)] = info
        return token

    def find(self, token: str) -> TokenInfo | None:
        """Return what *token* stands for, expired or not; None if unknown."""
        return self._live.get(_hash(token))

    def is_expired(self, info: TokenInfo) -> bool:
        """Tell whether a token has run out."""
        return info.expires_at <= self._clock()

    def touch(self, session_id: int) -> None:
        """Extend a session's tokens (heartbeat)."""
        now = self._clock()
        with self._lock:
            for key, info in self._live.items():
                if info.session_id == session_id:
                    seconds = SESSION_SECONDS if info.kind == "session" else MASTER_SECONDS
                    self._live[key] = replace(info, expires_at=now + dt.timedelta(seconds=seconds))

    def abandoned_sessions(self) -> set[int]:
        """Return the sessions whose every token has run out."""
        now = self._clock()
        with self._lock:
            alive = {i.session_id for i in self._live.values() if i.expires_at > now}
            return {i.session_id for i in self._live.values()} - alive

    def expire(self, session_id: int, kind: str = "session") -> None:
        """Make a session's tokens expired, so that clients renew them (for fault tests)."""
        with self._lock:
            for key, info in self._live.items():
                if info.session_id == session_id and info.kind == kind:
                    self._live[key] = replace(info, expires_at=self._clock())

    def forget(self, session_id: int) -> None:
        """Drop every token of a session."""
        with self._lock:
            self._live = {k: v for k, v in self._live.items() if v.session_id != session_id}

    def issue_job_token(self, service_fqn: str, role: str, user: str = "") -> str:
        """Return a token that a job service's containers log in with (AUTHENTICATOR=OAUTH)."""
        token = f"job-{secrets.token_urlsafe(32)}"
        self._catalog.put_document(
            "job_tokens", _hash(token), {"service": service_fqn, "role": role, "user": user}
        )
        return token

    def find_job_token(self, token: str) -> JobPrincipal | None:
        """Return the job service that *token* belongs to."""
        found = self._catalog.get_document("job_tokens", _hash(token))
        return JobPrincipal(found["service"], found["role"], found["user"]) if found else None

    def revoke_job_tokens(self, service_fqn: str) -> None:
        """Revoke every token of a job service."""
        for key, value in self._catalog.documents("job_tokens").items():
            if value["service"] == service_fqn:
                self._catalog.delete_document("job_tokens", key)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
