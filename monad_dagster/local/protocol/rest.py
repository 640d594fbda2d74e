"""The part of Snowflake's REST API that snowflake-core uses for job services and what they need.

Follows https://docs.snowflake.com/en/developer-guide/snowflake-rest-api. Each call becomes the SQL
statement that does the same, run in the session of the token: one implementation, one set of
privileges. What is not listed in `_routes` is not emulated and answers 404.
"""

import asyncio
import datetime as dt
import decimal
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from monad_dagster.local.errors import StatementError
from monad_dagster.local.protocol import app_requests, login
from monad_dagster.local.protocol.results import ResultSet
from monad_dagster.local.sql.statements import ObjectName, parse_name, quote_literal

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

logger = logging.getLogger("monad_dagster.local")

PREFIX = "/api/v2"
SCHEMA = PREFIX + "/databases/{db}/schemas/{schema}"
DONE = {"status": "Request successfully completed"}
_FLAGS = frozenset(
    {"auto_resume", "is_exclusive", "is_job", "is_async_job", "is_upgrading", "is_public",
     "is_default", "has_credentials", "has_encryption_key", "optimize_for_capacity"}
)  # fmt: skip
_NUMBERS = frozenset({"port", "restart_count"})
_RENAMED = {"port_range": "portRange", "is_public": "isPublic", "ingress_url": "ingressUrl"}
_STATUS = {2003: 404, 2043: 404, 2002: 409, 3001: 403, 2: 501}
_SHOW_IN_SERVICE = {
    "containers": "SHOW SERVICE CONTAINERS IN SERVICE",
    "instances": "SHOW SERVICE INSTANCES IN SERVICE",
    "endpoints": "SHOW ENDPOINTS IN SERVICE",
    "roles": "SHOW ROLES IN SERVICE",
}


def install(account: "Account") -> None:
    """Add the routes."""
    account.routes.extend(Rest(account).routes())


class Rest:
    """The REST routes of one account."""

    def __init__(self, account: "Account") -> None:
        self.account = account

    def routes(self) -> list[Route]:
        """Return every route; `:action` suffixes come before plain names."""
        table: list[tuple[str, str, Callable[[Call], Awaitable[Any]]]] = [
            ("GET", "/compute-pools", _list("COMPUTE POOLS")),
            ("POST", "/compute-pools", _create_pool),
            ("POST", "/compute-pools/{name}:{action}", _pool_action),
            ("GET", "/compute-pools/{name}", _describe("COMPUTE POOL")),
            ("DELETE", "/compute-pools/{name}", _drop("COMPUTE POOL")),
        ]
        inside: list[tuple[str, str, Callable[[Call], Awaitable[Any]]]] = [
            ("GET", "/image-repositories", _list("IMAGE REPOSITORIES")),
            ("POST", "/image-repositories", _create_named("IMAGE REPOSITORY")),
            ("GET", "/image-repositories/{name}", _find("IMAGE REPOSITORIES")),
            ("DELETE", "/image-repositories/{name}", _drop("IMAGE REPOSITORY")),
            ("GET", "/image-repositories/{name}/images", _images),
            ("GET", "/services", _list_services),
            ("POST", "/services:execute-job", _execute_job),
            ("GET", "/services/{name}", _describe("SERVICE")),
            ("DELETE", "/services/{name}", _drop("SERVICE")),
            ("GET", "/services/{name}/status", _service_status),
            ("GET", "/services/{name}/logs", _service_logs),
            ("GET", "/services/{name}/{what}", _service_parts),
            ("GET", "/stages", _list("STAGES")),
            ("POST", "/stages", _create_named("STAGE")),
            ("GET", "/stages/{name}", _find("STAGES")),
            ("DELETE", "/stages/{name}", _drop("STAGE")),
            ("GET", "/stages/{name}/files", _stage_files),
        ]
        entries = [(m, PREFIX + p, h) for m, p, h in table]
        entries += [(m, SCHEMA + p, h) for m, p, h in inside]
        return [Route(path, self._route(handler), methods=[m]) for m, path, handler in entries]

    def _route(self, handler: "Callable[[Call], Awaitable[Any]]") -> Any:
        async def route(request: Request) -> Response:
            try:
                session = login.session_of(self.account, app_requests.session_token(request))
                body: dict[str, Any] = {}
                if request.method in {"POST", "PUT"}:
                    body = await app_requests.read_json(request)
                return JSONResponse(await handler(Call(self.account, session, request, body)))
            except StatementError as error:
                return _failure(error)
            except Exception:
                logger.exception("request %s failed", request.url.path)
                return _failure(StatementError(390400, "08001", "Request could not be understood."))

        return route


class Call:
    """One request in its session."""

    def __init__(
        self, account: "Account", session: "Session", request: Request, body: dict[str, Any]
    ) -> None:
        self.account, self.session = account, session
        self.request, self.body = request, body

    def name(self, text: Any = None) -> str:
        """Return the SQL name of the path's object, or of *text* in the same place."""
        parts = self.request.path_params
        written = parts.get("name", "") if text is None else text
        last = parse_name(str(written)).name
        if "db" not in parts:
            return str(ObjectName((last,)))
        return f"{self.schema()}.{ObjectName((last,))}"

    def schema(self) -> str:
        """Return the SQL name of the path's schema."""
        parts = self.request.path_params
        return str(ObjectName((parse_name(parts["db"]).name, parse_name(parts["schema"]).name)))

    async def run(self, sql: str) -> ResultSet:
        """Run a statement to its end.

        Raises:
            StatementError: As the statement fails.
        """
        query = self.account.queries.submit(self.session, sql)
        await asyncio.to_thread(query.done.wait)
        if query.error is not None:
            raise query.error
        assert isinstance(query.result, ResultSet)
        return query.result

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement and return its rows as JSON objects."""
        result = await self.run(sql)
        names = [column.name.lower() for column in result.columns]
        return [_json_row(dict(zip(names, row, strict=True))) for row in result.rows]


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(key, key): _json_value(key, value) for key, value in row.items()}


def _json_value(key: str, value: Any) -> Any:
    if value is None or value == "null":
        return None
    if key in _FLAGS:
        return str(value).lower() in {"true", "y", "yes"}
    if key in _NUMBERS:
        return int(value)
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value)
    if key == "external_access_integrations":
        return json.loads(value) if isinstance(value, str) and value.startswith("[") else []
    return value


def _failure(error: StatementError) -> JSONResponse:
    status = 401 if 390000 <= error.errno < 390400 else _STATUS.get(error.errno, 400)
    body = {
        "message": error.message, "code": error.code, "error_code": error.code,
        "request_id": str(uuid.uuid4()),
    }  # fmt: skip
    return JSONResponse(body, status)


def _flag(call: Call, name: str) -> bool:
    return call.request.query_params.get(name, "").lower() == "true"


def _like(call: Call) -> str:
    pattern = call.request.query_params.get("like")
    return f" LIKE {quote_literal(pattern)}" if pattern else ""


def _list(kinds: str) -> Any:
    async def handle(call: Call) -> Any:
        place = f" IN SCHEMA {call.schema()}" if "db" in call.request.path_params else ""
        return await call.rows(f"SHOW {kinds}{_like(call)}{place}")

    return handle


def _find(kinds: str) -> Any:
    """Return a handler that finds one object among those SHOW lists."""

    async def handle(call: Call) -> Any:
        wanted = parse_name(call.request.path_params["name"]).name
        for row in await call.rows(f"SHOW {kinds} IN SCHEMA {call.schema()}"):
            if row["name"] == wanted:
                return row
        raise StatementError(2003, "02000", f"'{call.name()}' does not exist or not authorized.")

    return handle


def _describe(kind: str) -> Any:
    async def handle(call: Call) -> Any:
        row = (await call.rows(f"DESCRIBE {kind} {call.name()}"))[0]
        return _with_spec(row) if kind == "SERVICE" else row

    return handle


def _with_spec(row: dict[str, Any]) -> dict[str, Any]:
    """Wrap the specification, which only its owner sees, as the API does."""
    return {**row, "spec": {"spec_type": "from_inline", "spec_text": row.get("spec") or ""}}


async def _list_services(call: Call) -> Any:
    return [_with_spec(row) for row in await _list("SERVICES")(call)]


def _drop(kind: str) -> Any:
    async def handle(call: Call) -> Any:
        if_exists = "IF EXISTS " if _flag(call, "ifExists") else ""
        await call.run(f"DROP {kind} {if_exists}{call.name()}")
        return DONE

    return handle


def _create_clause(call: Call, kind: str) -> str:
    mode = call.request.query_params.get("createMode", "errorIfExists")
    name = call.name(call.body.get("name", ""))
    forms = {
        "errorIfExists": f"CREATE {kind} {name}",
        "ifNotExists": f"CREATE {kind} IF NOT EXISTS {name}",
        "orReplace": f"CREATE OR REPLACE {kind} {name}",
    }
    if mode not in forms:
        raise StatementError(391902, "22023", f"createMode {mode} is unknown.")
    return forms[mode]


def _create_named(kind: str) -> Any:
    async def handle(call: Call) -> Any:
        comment = call.body.get("comment")
        tail = f" COMMENT = {quote_literal(str(comment))}" if comment and kind == "STAGE" else ""
        encryption = (call.body.get("encryption") or {}).get("type") if kind == "STAGE" else None
        if encryption:
            tail += f" ENCRYPTION = (TYPE = {quote_literal(str(encryption))})"
        await call.run(_create_clause(call, kind) + tail)
        return DONE

    return handle


async def _create_pool(call: Call) -> Any:
    body = call.body
    clauses = [
        f"MIN_NODES = {int(body.get('min_nodes', 1))}",
        f"MAX_NODES = {int(body.get('max_nodes', 1))}",
        f"INSTANCE_FAMILY = {quote_literal(str(body.get('instance_family', '')))}",
    ]
    if body.get("auto_resume") is not None:
        clauses.append(f"AUTO_RESUME = {bool(body['auto_resume'])}")
    if body.get("auto_suspend_secs") is not None:
        clauses.append(f"AUTO_SUSPEND_SECS = {int(body['auto_suspend_secs'])}")
    if body.get("comment"):
        clauses.append(f"COMMENT = {quote_literal(str(body['comment']))}")
    if _flag(call, "initiallySuspended"):
        clauses.append("INITIALLY_SUSPENDED = TRUE")
    await call.run(f"{_create_clause(call, 'COMPUTE POOL')} {' '.join(clauses)}")
    return DONE


async def _pool_action(call: Call) -> Any:
    words = {"suspend": "SUSPEND", "resume": "RESUME", "stop-all-services": "STOP ALL"}
    action = words.get(call.request.path_params["action"])
    if action is None:
        raise StatementError(2, "0A000", "Unsupported feature: action on a compute pool.")
    await call.run(f"ALTER COMPUTE POOL {call.name()} {action}")
    return DONE


async def _images(call: Call) -> Any:
    return await call.rows(f"SHOW IMAGES IN IMAGE REPOSITORY {call.name()}")


async def _execute_job(call: Call) -> Any:
    body, spec = call.body, call.body.get("spec") or {}
    pool = ObjectName((parse_name(str(body.get("compute_pool", ""))).name,))
    words = [f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {call.name(body.get('name', ''))}"]
    if body.get("is_async_job"):
        words.append("ASYNC = TRUE")
    if body.get("query_warehouse"):
        words.append(f"QUERY_WAREHOUSE = {parse_name(str(body['query_warehouse']))}")
    if body.get("comment"):
        words.append(f"COMMENT = {quote_literal(str(body['comment']))}")
    if spec.get("spec_type") == "from_file":
        stage, file = str(spec.get("stage", "")), quote_literal(str(spec.get("spec_file", "")))
        words.append(f"FROM {quote_literal('@' + stage.lstrip('@'))} SPECIFICATION_FILE = {file}")
    else:
        words.append(f"FROM SPECIFICATION {quote_literal(str(spec.get('spec_text', '')))}")
    await call.run(" ".join(words))
    return DONE


async def _service_status(call: Call) -> Any:
    sql = f"CALL SYSTEM$GET_SERVICE_STATUS({quote_literal(call.name())})"
    return {"system$get_service_status": (await call.run(sql)).rows[0][0]}


async def _service_logs(call: Call) -> Any:
    query = call.request.query_params
    lines = query.get("numLines", "500")
    values = [
        quote_literal(call.name()), quote_literal(query.get("instanceId", "0")),
        quote_literal(query.get("containerName", "")), lines if lines.isdigit() else "500",
    ]  # fmt: skip
    sql = f"CALL SYSTEM$GET_SERVICE_LOGS({', '.join(values)})"
    return {"system$get_service_logs": (await call.run(sql)).rows[0][0]}


async def _service_parts(call: Call) -> Any:
    statement = _SHOW_IN_SERVICE.get(call.request.path_params["what"])
    if statement is None:
        raise StatementError(2003, "02000", "There is no such resource.")
    return await call.rows(f"{statement} {call.name()}")


async def _stage_files(call: Call) -> Any:
    rows = await call.rows(f"LIST {quote_literal('@' + call.name())}")
    return [{**row, "size": str(row["size"])} for row in rows]
