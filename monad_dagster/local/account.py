"""The account: its state directory and everything that lives in it.

Rooms that are not part of the core (job services, registry, compute pools) plug in through
`extensions.py`: their `install(account)` registers routes and open and close hooks here.
"""

import datetime as dt
import itertools
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local import extensions
from monad_dagster.local.catalog.bootstrap import bootstrap
from monad_dagster.local.catalog.catalog import Catalog
from monad_dagster.local.errors import LoginError
from monad_dagster.local.faults.fault_store import Faults
from monad_dagster.local.protocol.access_tokens import check_secret
from monad_dagster.local.protocol.credentials import check_password, load_credentials
from monad_dagster.local.protocol.tokens import Tokens
from monad_dagster.local.session import Session

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

ORGANIZATION = "MONAD"
REGION = "LOCAL"
VERSION = "9.34.0"


def utc_now() -> dt.datetime:
    """Return the current time."""
    return dt.datetime.now(dt.UTC)


class Account:
    """One local account.

    Attributes:
        catalog: Objects, grants, users, documents.
        tokens: Session and job tokens.
        engine: The SQL engine (see engine.py).
        stages: The stage store (see stages.py).
        extensions: Objects of other rooms by name, such as "jobs".
        routes: Extra HTTP routes.
        address: (host, port) once the server listens, and `protocol` http or https.
        executor: Threads that run statements.
        faults: What is made to fail on purpose (see faults.py).
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
        name: str = "LOCAL",
    ) -> None:
        self.state_dir = state_dir
        self.clock = clock
        self.name = name
        self.organization, self.region, self.version = ORGANIZATION, REGION, VERSION
        self.extensions: dict[str, Any] = {}
        self.routes: list[BaseRoute] = []
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self.protocol = "http"
        self.sessions: dict[int, Session] = {}
        # Called with (database, schema or None) before what they hold is dropped.
        self.drop_hooks: list[Callable[[str, str | None], None]] = []
        # Signs the URLs of result chunks.
        self.blob_secret = secrets.token_urlsafe(32)
        self._open_hooks: list[Callable[[], None]] = []
        self._close_hooks: list[Callable[[], None]] = []
        self._session_ids = itertools.count(int(clock().timestamp() * 1000) % 10**12 * 1000)
        self._lock = threading.Lock()
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.catalog = Catalog(state_dir / "account.sqlite", clock)
        self.tokens = Tokens(self.catalog, clock)
        self.faults = Faults(clock)
        self.executor = ThreadPoolExecutor(512, thread_name_prefix="statement")
        self.credentials = load_credentials(state_dir)
        bootstrap(self)
        self._open_stores()
        extensions.install_all(self)

    def _open_stores(self) -> None:
        from monad_dagster.local.engine.engine import Engine
        from monad_dagster.local.protocol.queries import Queries
        from monad_dagster.local.stages.stage_store import StageStore

        self.engine = Engine(self)
        self.stages = StageStore(self.state_dir / "stages")
        self.queries = Queries(self)
        self._discard_leftovers()

    def _discard_leftovers(self) -> None:
        """Remove what belonged to sessions of an earlier process, and what a kill left over."""
        shutil.rmtree(self.state_dir / "results", ignore_errors=True)
        self.stages.keep_only(
            (found.database, found.schema, found.name)
            for found in self.catalog.list_objects("STAGE")
        )
        for kind in ("STAGE", "FILE FORMAT"):
            for found in self.catalog.list_objects(kind):
                if found.properties.get("TEMPORARY"):
                    self.drop_object(kind, found.name, database=found.database, schema=found.schema)

    # Life cycle

    def on_open(self, hook: Callable[[], None]) -> None:
        """Call *hook* once the server listens (`address` is known)."""
        self._open_hooks.append(hook)

    def on_close(self, hook: Callable[[], None]) -> None:
        """Call *hook* when the account closes, last registered first."""
        self._close_hooks.append(hook)

    def open(self, host: str, port: int) -> None:
        """Tell everyone that the server listens."""
        self.address = (host, port)
        for hook in self._open_hooks:
            hook()

    def close(self) -> None:
        """Close everything; the state stays on disk."""
        for hook in reversed(self._close_hooks):
            hook()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.engine.close()
        self.catalog.close()

    # Sessions

    def create_session(self, user: str, role: str, **facts: Any) -> Session:
        """Open a session for an authenticated user."""
        for abandoned in self.tokens.abandoned_sessions():
            self.end_session(abandoned)
        session = Session(self, next(self._session_ids), user, role, **facts)
        with self._lock:
            self.sessions[session.id] = session
        return session

    def end_session(self, session_id: int) -> None:
        """Close a session: its tokens, temporary objects and engine connection."""
        with self._lock:
            session = self.sessions.pop(session_id, None)
        self.tokens.forget(session_id)
        self.extensions["local_uploads"].session_ended(session_id)
        if session is None:
            return
        for kind, database, schema, name in session.temporary:
            self.drop_object(kind, name, database=database, schema=schema)
        self.engine.release(session)

    def drop_object(self, kind: str, name: str, *, database: str, schema: str) -> bool:
        """Drop an object from the catalog, then its files: a kill in between leaves only files."""
        existed = self.catalog.drop(kind, name, database=database, schema=schema)
        if kind == "STAGE":
            self.stages.drop(database, schema, name)
        return existed

    # Credentials

    def check_user(self, user: str, password: str) -> str | None:
        """Return the stored user name when the password is right."""
        found = self.catalog.get("USER", user.upper())
        if found is None or found.properties.get("DISABLED"):
            check_password(password, None)  # the same work for a user that does not exist
            return None
        return found.name if check_password(password, found.properties.get("PASSWORD")) else None

    def check_login(self, user: str, secret: str) -> tuple[str | None, str | None]:
        """Return the user and the only role of a login with a password or an access token.

        Clients may send a programmatic access token where a password goes.
        """
        known = self.check_user(user, secret)
        if known is not None or not user:
            return known, None
        try:
            return check_secret(self, user, secret)
        except LoginError:
            return None, None

    def authenticate_registry(self, username: str, password: str) -> Session | None:
        """Return a session for a registry login, or None.

        Accepted: `0sessiontoken` with a JSON session token, or a user's own name with that
        user's password or programmatic access token.
        """
        if username == "0sessiontoken":
            return self._session_of_json_token(password)
        user, only_role = self.check_login(username, password)
        if user is None:
            return None
        session = Session(self, 0, user, only_role or self.default_role(user))
        session.only_role = only_role
        return session

    def _session_of_json_token(self, password: str) -> Session | None:
        try:
            token = json.loads(password)["token"]
        except (ValueError, KeyError, TypeError):
            return None
        return self.session_of_token(token) if isinstance(token, str) else None

    def session_of_token(self, token: str) -> Session | None:
        """Return the session of a live session token, or None."""
        info = self.tokens.find(token)
        if info is None or info.kind != "session" or self.tokens.is_expired(info):
            return None
        return self.sessions.get(info.session_id)

    def default_role(self, user: str) -> str:
        """Return the user's default role, or PUBLIC while that is not granted."""
        found = self.catalog.get("USER", user)
        wanted = (found.properties.get("DEFAULT_ROLE") if found else None) or "PUBLIC"
        return wanted if wanted in self.catalog.roles_of_user(user) else "PUBLIC"

    # Parameters

    def parameter(self, name: str, scopes: Iterable[str] = ()) -> Any:
        """Return the value of a parameter from the first scope that sets it, or None.

        Scopes are names such as "SCHEMA:DB.S", "DATABASE:DB", "ACCOUNT:".
        """
        for scope in [*scopes, "ACCOUNT:"]:
            value = self.catalog.get_document("parameters", f"{scope}|{name}")
            if value is not None:
                return value
        return None

    def set_parameter(self, scope: str, name: str, value: Any) -> None:
        """Set a parameter in a scope; None unsets it."""
        if value is None:
            self.catalog.delete_document("parameters", f"{scope}|{name}")
        else:
            self.catalog.put_document("parameters", f"{scope}|{name}", value)

    def log_level(self, database: str, schema: str, name: str = "LOG_LEVEL") -> str:
        """Return the LOG_LEVEL or LOG_EVENT_LEVEL that a schema's objects inherit."""
        value = self.parameter(name, [f"SCHEMA:{database}.{schema}", f"DATABASE:{database}"])
        return str(value or "OFF")
