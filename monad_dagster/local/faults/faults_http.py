"""Faults of answers: refused, slow, lost; and the control route that sets every fault.

The control route asks for the token in DIR/control.token, which only the owner of the state
directory can read. A Snowflake session, even the administrator's, does not open it.
"""

import asyncio
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from monad_dagster.local import errors
from monad_dagster.local.errors import LoginError
from monad_dagster.local.faults.fault_store import KINDS, FaultError, Faults
from monad_dagster.local.faults.faults_disk import FullDirectory

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.protocol.queries import Query
    from monad_dagster.local.session import Session

PATH = "/monad/faults"
TOKEN_FILE = "control.token"  # noqa: S105 - a file name
MAX_STATEMENT = 2000  # characters that a statement pattern is compared with
_COLLECTION, _KEY = "faults", "persistent"


def install(account: "Account") -> None:
    """Give the account its faults, the control token and the control route."""
    catalog = account.catalog
    faults = Faults(account.clock, lambda kept: catalog.put_document(_COLLECTION, _KEY, kept))
    faults.restore(catalog.get_document(_COLLECTION, _KEY) or [])
    account.faults = faults
    account.extensions["full_disk"] = FullDirectory(account)
    token = secrets.token_urlsafe(32)
    path = account.state_dir / TOKEN_FILE
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    control = Control(faults, token)
    account.routes += [
        Route(PATH, control.handle, methods=["GET", "POST", "DELETE"]),
        Route(PATH + "/{fault_id:int}", control.handle, methods=["DELETE"]),
    ]


class Control:
    """The control route."""

    def __init__(self, faults: Faults, token: str) -> None:
        self.faults = faults
        self.token = token

    async def handle(self, request: Request) -> Response:
        """List, set or clear faults for whoever holds the control token."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return JSONResponse({"error": "The control token is missing or wrong."}, 401)
        if request.method == "GET":
            return JSONResponse({"faults": self.faults.current()})
        if request.method == "DELETE":
            return JSONResponse({"cleared": self.faults.clear(request.path_params.get("fault_id"))})
        try:
            body = await request.json()
            if not isinstance(body, dict):
                raise FaultError("The request is not a JSON object.")
            fault = self.faults.add(body)
        except ValueError as error:
            return JSONResponse({"error": str(error) or "The request is not JSON."}, 400)
        return JSONResponse(
            {"id": fault.id, "seed": fault.seed, "effect": KINDS[fault.kind].summary}
        )


class DroppedConnection(Response):
    """Ends the connection without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort the transport; where it cannot be reached, break off inside the answer."""
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
            await asyncio.sleep(0.01)  # the server must see the end before this returns
            return
        headers = [(b"content-length", b"1000000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


def subject(session: "Session", sql: str) -> dict[str, str | tuple[str, ...]]:
    """Return what statement faults select by."""
    return {"statement": " ".join(sql[:MAX_STATEMENT].split()), "user": session.user}


def before(account: "Account", session: "Session", sql: str, request_id: str) -> Response | None:
    """Return the answer that replaces executing a statement, or None.

    Raises:
        LoginError: 390112, the session token has expired.
        StatementError: 603.
    """
    faults, what = account.faults, subject(session, sql)
    key = f"{session.id}/{request_id}"
    hit = faults.attempt("expired-token", key, what)
    if hit is not None:
        account.tokens.expire(session.id)
        if hit.fault.option("master"):
            account.tokens.expire(session.id, "master")
        raise LoginError(390112, "Your session has expired. Please login again.")
    hit = faults.attempt("http-before", key, what)
    if hit is not None:
        return _http_error(hit.fault.option("status"))
    if faults.attempt("statement-error", key, what) is not None:
        raise errors.internal_error("300002:0")
    return None


async def after(account: "Account", query: "Query", answer: Response) -> Response:
    """Return what becomes of a statement's answer."""
    if not (query.done.is_set() or query.is_async):
        return answer  # an interim answer; the final one is spoiled
    faults, what = account.faults, subject(query.session, query.sql)
    hit = faults.attempt("slow-answer", query.id, what)
    if hit is not None:
        await asyncio.sleep(hit.fault.delay_seconds)
    if faults.attempt("lost-answer", query.id, what) is not None:
        return DroppedConnection()
    hit = faults.attempt("http-after", query.id, what)
    return answer if hit is None else _http_error(hit.fault.option("status"))


def _http_error(status: Any) -> Response:
    return Response("Service Unavailable", status_code=int(status), media_type="text/plain")
