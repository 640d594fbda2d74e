"""The HTTP side of Snowflake's client protocol, on Starlette.

Login, tokens, sessions, queries with long-poll and asynchronous submission, result chunks. SQL
failures are answers with HTTP 200; an HTTP 500 would make clients retry.
"""

import asyncio
import hmac
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from monad_dagster.local.account import Account
from monad_dagster.local.errors import StatementError
from monad_dagster.local.faults import faults_http
from monad_dagster.local.protocol import describing, login
from monad_dagster.local.protocol.app_requests import MAX_LOGIN_BYTES, read_json, session_token
from monad_dagster.local.protocol.arrow_results import ArrowRows
from monad_dagster.local.protocol.queries import Query
from monad_dagster.local.protocol.results import ResultSet
from monad_dagster.local.session import Session
from monad_dagster.local.stages.file_sending import LargeFileResponse

logger = logging.getLogger("monad_dagster.local")

POLL_SECONDS = 20.0
_SMALL_BYTES, _SMALL_ROWS = 64 * 1024, 100
IN_PROGRESS = "333333"
IN_PROGRESS_ASYNC = "333334"
Handler = Callable[[Request], Awaitable[Response]]


def create_app(account: Account) -> Starlette:
    """Assemble the application for *account*, other rooms' routes included."""
    http = Protocol(account)
    routes = [
        Route("/session/v1/login-request", http.login, methods=["POST"]),
        Route("/session/token-request", http.token_request, methods=["POST"]),
        Route("/session/heartbeat", http.heartbeat, methods=["POST"]),
        Route("/session", http.session, methods=["POST"]),
        Route("/telemetry/send", http.telemetry, methods=["POST"]),
        Route("/telemetry/send/sessionless", http.telemetry, methods=["POST"]),
        Route("/queries/v1/query-request", http.query_request, methods=["POST"]),
        Route("/queries/v1/abort-request", http.abort_by_request, methods=["POST"]),
        Route("/queries/{query_id}/abort-request", http.abort_by_id, methods=["POST"]),
        Route("/queries/{query_id}/result", http.query_result, methods=["GET"]),
        Route("/monitoring/queries/{query_id}", http.monitoring, methods=["GET"]),
        Route("/monitoring/queries//{query_id}", http.monitoring, methods=["GET"]),
        Route("/monad/results/{token}/{query_id}/{index:int}", http.chunk, methods=["GET"]),
        Route("/monad/ready", http.ready, methods=["GET"]),
        *account.routes,
    ]
    app = Starlette(routes=routes)
    app.state.account = account
    return app


def envelope(
    data: Any = None, *, code: str | None = None, message: str | None = None
) -> JSONResponse:
    """Return a successful answer."""
    return JSONResponse({"data": data, "code": code, "message": message, "success": True})


def failure(error: StatementError, query_id: str | None = None, **data: Any) -> JSONResponse:
    """Return a failed answer; the HTTP status is 200 as clients expect."""
    code = str(error.errno) if error.errno > 99999 and error.errno < 400000 else error.code
    body = {"errorCode": code, "sqlState": error.sqlstate, "queryId": query_id, **data}
    return JSONResponse({"data": body, "code": code, "message": error.message, "success": False})


def guarded(handler: Callable[["Protocol", Request], Awaitable[Response]]) -> Any:
    """Turn every failure of a route into an answer of the protocol."""

    async def route(self: "Protocol", request: Request) -> Response:
        try:
            return await handler(self, request)
        except StatementError as error:
            return failure(error)
        except ClientDisconnect:
            raise
        except Exception:
            logger.exception("request %s failed", request.url.path)
            return failure(StatementError(390400, "08001", "Request could not be understood."))

    return route


class Protocol:
    """The routes of one account."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def authenticate(self, request: Request) -> Session:
        """Return the session of the request's token.

        Raises:
            LoginError: 390104 unknown, 390112 expired, 390103 missing.
        """
        return login.session_of(self.account, session_token(request))

    @guarded
    async def ready(self, request: Request) -> Response:
        """Answer that the account is up."""
        return JSONResponse({"account": self.account.name})

    @guarded
    async def login(self, request: Request) -> Response:
        """Check credentials and open a session."""
        body = await read_json(request, MAX_LOGIN_BYTES)
        query = dict(request.query_params)
        data = await asyncio.to_thread(login.log_in, self.account, body.get("data") or {}, query)
        return envelope(data)

    @guarded
    async def token_request(self, request: Request) -> Response:
        """Issue or renew tokens for the holder of a master token."""
        body = await read_json(request, MAX_LOGIN_BYTES)
        return envelope(login.renew(self.account, session_token(request), body))

    @guarded
    async def heartbeat(self, request: Request) -> Response:
        """Keep a session alive."""
        self.account.tokens.touch(self.authenticate(request).id)
        return envelope()

    @guarded
    async def session(self, request: Request) -> Response:
        """End a session."""
        session = self.authenticate(request)
        if request.query_params.get("delete") == "true":
            self.account.queries.cancel_session(session.id)
            await asyncio.to_thread(self.account.end_session, session.id)
        return envelope()

    @guarded
    async def telemetry(self, request: Request) -> Response:
        """Accept telemetry and keep none of it."""
        async for _ in request.stream():
            pass
        return envelope({})

    @guarded
    async def query_request(self, request: Request) -> Response:
        """Run a statement; slow ones answer with a URL to poll."""
        session = self.authenticate(request)
        body = await read_json(request)
        sql = body.get("sqlText")
        if not isinstance(sql, str):
            raise StatementError(390400, "08001", "sqlText is missing.")
        _check_shapes(body)
        is_async = bool(body.get("asyncExec"))
        request_id = request.query_params.get("requestId", "")
        if self.account.faults.armed:
            spoiled = faults_http.before(self.account, session, sql, request_id)
            if spoiled is not None:
                return spoiled
        query = self.account.queries.submit(
            session,
            sql,
            request_id=request_id,
            bindings=body.get("bindings"),
            describe_only=bool(body.get("describeOnly")),
            parameters=body.get("parameters"),
            is_async=is_async,
        )
        if is_async:
            return await self._sent(query, self._in_progress(query, IN_PROGRESS_ASYNC))
        return await self._answer(query, request)

    @guarded
    async def query_result(self, request: Request) -> Response:
        """Answer a poll for a statement's result."""
        query = self._query(self.authenticate(request), request.path_params["query_id"])
        return await self._answer(query, request)

    @guarded
    async def monitoring(self, request: Request) -> Response:
        """Report the status of a statement."""
        session = self.authenticate(request)
        query = self.account.queries.get(request.path_params["query_id"])
        if query is None or query.session.user != session.user:
            return envelope({"queries": []})
        error = query.error
        row = {
            "id": query.id, "status": query.status, "state": query.status, "sqlText": query.sql,
            "errorCode": error.code if error else "", "errorMessage": error.message if error else "",
            "sessionId": query.session.id, "startTime": int(query.started_at.timestamp() * 1000),
        }  # fmt: skip
        return envelope({"queries": [row]})

    @guarded
    async def abort_by_request(self, request: Request) -> Response:
        """Cancel the statement that a request id started."""
        session = self.authenticate(request)
        body = await read_json(request)
        candidates = (body.get("requestId"), request.query_params.get("requestId"))
        for request_id in candidates:
            query = (
                self.account.queries.by_request(session, str(request_id)) if request_id else None
            )
            if query is not None:
                await asyncio.to_thread(self.account.queries.cancel, query)
        return envelope()

    @guarded
    async def abort_by_id(self, request: Request) -> Response:
        """Cancel a statement by its query id."""
        query = self._query(self.authenticate(request), request.path_params["query_id"])
        await asyncio.to_thread(self.account.queries.cancel, query)
        return envelope()

    @guarded
    async def chunk(self, request: Request) -> Response:
        """Send one spooled chunk of a result."""
        parameters = request.path_params
        query = self.account.queries.get(parameters["query_id"])
        expected = self._chunk_token(parameters["query_id"]).encode()
        allowed = hmac.compare_digest(parameters["token"].encode("utf-8", "replace"), expected)
        if not allowed or query is None or not isinstance(query.result, ArrowRows):
            return Response(status_code=404)
        index = parameters["index"]
        if not 0 <= index < len(query.result.chunks):
            return Response(status_code=404)
        path = query.result.chunks[index].path
        return LargeFileResponse(path, media_type="application/octet-stream")

    def _chunk_token(self, query_id: str) -> str:
        """Return what opens the chunks of this one result."""
        secret = self.account.blob_secret.encode()
        return hmac.new(secret, query_id.encode(), "sha256").hexdigest()

    def _query(self, session: Session, query_id: str) -> Query:
        query = self.account.queries.get(query_id)
        if query is None or query.session.user != session.user:
            raise StatementError(709, "02000", f"Statement {query_id} not found")
        return query

    async def _answer(self, query: Query, request: Request) -> Response:
        if not await _wait(query, POLL_SECONDS):
            return self._in_progress(query, IN_PROGRESS)
        url = str(request.base_url)
        is_small = _is_small(query.result)  # not worth another thread
        answer = (
            self.respond(query, url)
            if is_small
            else await asyncio.to_thread(self.respond, query, url)
        )
        return await self._sent(query, answer)

    async def _sent(self, query: Query, answer: Response) -> Response:
        """Return an answer, or what a fault makes of it."""
        if not self.account.faults.armed:
            return answer
        return await faults_http.after(self.account, query, answer)

    def _in_progress(self, query: Query, code: str) -> Response:
        data = {
            "queryId": query.id,
            "getResultUrl": f"/queries/{query.id}/result",
            "queryAbortsAfterSecs": 172800,
            "progressDesc": None,
        }
        return envelope(data, code=code, message="Query execution in progress.")

    def respond(self, query: Query, base_url: str) -> Response:
        """Return the final answer of a statement."""
        if query.error is not None:
            return failure(query.error, query.id, **query.final)
        result = query.result
        assert result is not None
        data: dict[str, Any] = {
            "queryId": query.id,
            "sqlState": "00000",
            "statementTypeId": query.statement_type_id,
            "version": 1,
            "parameters": login.session_parameters(query.session),
            **query.final,
        }
        if query.statement is not None and query.statement.describe_only:
            data |= describing.bind_facts(query.statement)
        if isinstance(result, ArrowRows):
            data |= self._arrow(query.id, result, base_url)
        elif result.command is not None:
            data |= result.command
        else:
            rowset = result.rowset()
            data |= {
                "rowtype": [column.rowtype() for column in result.columns],
                "rowset": rowset,
                "total": len(rowset),
                "returned": len(rowset),
                "queryResultFormat": "json",
            }
        return envelope(data)

    def _arrow(self, query_id: str, rows: ArrowRows, base_url: str) -> dict[str, Any]:
        prefix = f"{base_url}monad/results/{self._chunk_token(query_id)}/{query_id}"
        data: dict[str, Any] = {
            "rowtype": rows.rowtype,
            # Without rows clients build the table from the row type.
            "rowsetBase64": b64encode(rows.inline).decode() if rows.total else "",
            "total": rows.total,
            "returned": rows.total,
            "queryResultFormat": "arrow",
        }
        if rows.chunks:
            data["chunks"] = [
                {
                    "url": f"{prefix}/{index}",
                    "rowCount": chunk.row_count,
                    "uncompressedSize": chunk.size_bytes,
                    "compressedSize": chunk.size_bytes,
                }
                for index, chunk in enumerate(rows.chunks)
            ]
            data["chunkHeaders"] = {"x-monad-chunk": "1"}
        return data


def _check_shapes(body: dict[str, Any]) -> None:
    """Refuse bind variables and parameters that are no dictionaries."""
    bindings, parameters = body.get("bindings") or {}, body.get("parameters") or {}
    are_shaped = isinstance(bindings, dict) and isinstance(parameters, dict)
    if not are_shaped or not all(isinstance(bind, dict) for bind in bindings.values()):
        raise StatementError(390400, "08001", "bindings or parameters are not understood.")
    values = [value for bind in bindings.values() for value in _listed(bind.get("value"))]
    if not all(isinstance(value, str | int | float | None) for value in values):
        raise StatementError(390400, "08001", "A bind variable has no plain value.")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_small(result: ResultSet | ArrowRows | None) -> bool:
    if isinstance(result, ArrowRows):
        return len(result.inline) < _SMALL_BYTES
    return result is None or len(result.rows) < _SMALL_ROWS


async def _wait(query: Query, seconds: float) -> bool:
    """Wait without a thread until *query* has ended."""
    if query.done.is_set():
        return True
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    query.watch(lambda: loop.call_soon_threadsafe(ended.set))
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        return query.done.is_set()
    return True
