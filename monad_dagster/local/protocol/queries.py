"""Statements in flight and their results: run, wait, cancel, fetch again.

Each statement runs on a thread of its own; the HTTP side waits a while and then lets the client
poll. Results are kept for a bounded time and number.
"""

import datetime as dt
import logging
import re
import threading
import traceback
import uuid
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.engine.holding import executing_also
from monad_dagster.local.errors import StatementError
from monad_dagster.local.protocol.arrow_results import ArrowRows
from monad_dagster.local.protocol.results import ResultSet, status
from monad_dagster.local.sql.statements import Statement, split_statements

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

logger = logging.getLogger("monad_dagster.local")

_MULTI_STATEMENT = 0xA000  # connector 5.x fetches the children of a result of this type
_KEEP_RESULTS = 2_000
_KEEP_SPOOLED = 64
_KEEP_BYTES = 256 * 1024 * 1024  # of results in memory
_KEEP_LATEST = 64
_TRIM_STEP = 100  # how many are forgotten at once, so that most statements do no such work
_CANCEL_GRACE_SECONDS = 2.0


class Query:
    """One statement from submission to result."""

    def __init__(self, query_id: str, session: "Session", sql: str, request_id: str) -> None:
        self.id = query_id
        self.session = session
        self.sql = sql
        self.request_id = request_id
        self.status = "RUNNING"
        self.started_at: dt.datetime = session.now()
        self.ended_at: dt.datetime | None = None
        self.statement: Statement | None = None
        self.result: ResultSet | ArrowRows | None = None
        self.statement_type_id = 0
        self.error: StatementError | None = None
        self.final: dict[str, Any] = {}
        self.role = session.role
        self.done = threading.Event()
        self.canceled = False
        self.kept_bytes = 0
        self.is_async = False
        self._watchers: list[Any] = []
        self._lock = threading.Lock()

    def watch(self, callback: Any) -> None:
        """Call *callback* once the statement has ended."""
        with self._lock:
            if not self.done.is_set():
                self._watchers.append(callback)
                return
        callback()

    def finish(self) -> None:
        """Mark the statement ended and tell whoever waits."""
        with self._lock:
            self.done.set()
            watchers, self._watchers = self._watchers, []
        for callback in watchers:
            callback()


class Queries:
    """Every statement the account knows."""

    def __init__(self, account: "Account") -> None:
        self._account = account
        self._lock = threading.Lock()
        self._by_id: OrderedDict[str, Query] = OrderedDict()
        self._by_request: dict[tuple[int, str], str] = {}
        self._spooled: deque[Query] = deque()
        self._bytes = 0

    def submit(
        self,
        session: "Session",
        sql: str,
        *,
        request_id: str = "",
        bindings: dict[str, Any] | None = None,
        describe_only: bool = False,
        parameters: dict[str, Any] | None = None,
        is_async: bool = False,
    ) -> Query:
        """Start a statement; a request id seen before returns the same statement."""
        with self._lock:
            known = self._by_request.get((session.id, request_id)) if request_id else None
            if known is not None and known in self._by_id:
                return self._by_id[known]
            query = Query(new_query_id(), session, sql, request_id)
            query.is_async = is_async
            self._by_id[query.id] = query
            if request_id:
                self._by_request[(session.id, request_id)] = query.id
        self._trim()
        options = {"describe_only": describe_only, "parameters": parameters or {}}
        self._account.executor.submit(self._run, query, bindings, options)
        return query

    def _run(self, query: Query, bindings: dict[str, Any] | None, options: dict[str, Any]) -> None:
        with executing_also(query.id):
            self._execute(query, bindings, options)
        self._conclude(query)

    def _execute(
        self, query: Query, bindings: dict[str, Any] | None, options: dict[str, Any]
    ) -> None:
        from monad_dagster.local.sql.dispatch import execute

        session = query.session
        try:
            if query.canceled:
                raise errors.canceled()
            pieces = _pieces(query, options)
            if len(pieces) > 1:
                query.result = self._run_script(query, pieces, options)
                query.statement_type_id = _MULTI_STATEMENT
            else:
                statement = Statement.parse(query.sql, bindings, query_id=query.id, **options)
                query.statement = statement
                query.result, query.statement_type_id = execute(session, statement)
            if query.canceled:
                raise errors.canceled()
            query.status = "SUCCESS"
        except StatementError as error:
            query.error = errors.canceled() if query.canceled else error
        except RecursionError:
            query.error = errors.compilation_error(1003, "42000", "statement is nested too deeply")
        except Exception as error:
            incident = uuid.uuid4().hex[:8]
            logger.error("incident %s: %s", incident, "".join(traceback.format_exception(error)))
            query.error = errors.internal_error(incident)

    def _run_script(self, query: Query, pieces: list[str], options: dict[str, Any]) -> ResultSet:
        """Run several statements one after the other; each keeps its own result."""
        children = []
        single = options | {"parameters": options["parameters"] | {"MULTI_STATEMENT_COUNT": 1}}
        for piece in pieces:
            child = Query(new_query_id(), query.session, piece, "")
            with self._lock:
                self._by_id[child.id] = child
            self._run(child, None, single)
            if child.error is not None:
                raise child.error
            children.append(child)
        result = status("Multiple statements executed successfully.")
        result.command = {
            "rowtype": [column.rowtype() for column in result.columns],
            "rowset": result.rowset(),
            "total": 1,
            "returned": 1,
            "queryResultFormat": "json",
            "resultIds": ",".join(child.id for child in children),
            "resultTypes": ",".join(str(child.statement_type_id) for child in children),
        }
        return result

    def _conclude(self, query: Query) -> None:
        if query.done.is_set():  # given up by cancel() meanwhile
            if isinstance(query.result, ArrowRows):
                query.result.discard()
            return
        session = query.session
        if query.error is not None:
            query.status = "ABORTED" if query.error.errno == 604 else "FAILED_WITH_ERROR"
        query.ended_at = session.now()
        session.query_ids.append(query.id)
        query.final = {
            "finalDatabaseName": session.database,
            "finalSchemaName": session.schema,
            "finalWarehouseName": session.warehouse,
            "finalRoleName": session.role,
        }
        self._keep(query)
        query.finish()

    def _keep(self, query: Query) -> None:
        """Account for what a result holds, on disk and in memory."""
        if isinstance(query.result, ArrowRows):
            query.kept_bytes = len(query.result.inline)
            with self._lock:
                self._bytes += query.kept_bytes
                if query.result.chunks:
                    self._spooled.append(query)

    def get(self, query_id: str) -> Query | None:
        """Return a statement by its query id."""
        return self._by_id.get(query_id)

    def by_request(self, session: "Session", request_id: str) -> Query | None:
        """Return a statement by the request that sent it."""
        query_id = self._by_request.get((session.id, request_id))
        return self._by_id.get(query_id) if query_id else None

    def cancel(self, query: Query) -> bool:
        """Cancel a running statement; tell whether it was running."""
        if query.done.is_set():
            return False
        query.canceled = True
        if query.statement is not None:
            query.statement.cancel()
        self._account.engine.interrupt(query.session, query.id)
        self._account.executor.submit(self._give_up, query)
        return True

    def _give_up(self, query: Query) -> None:
        """End a canceled statement even when the engine does not notice the interruption."""
        if not query.done.wait(_CANCEL_GRACE_SECONDS):
            query.error = errors.canceled()
            self._conclude(query)
            self._account.engine.abandon(query.session)

    def cancel_session(self, session_id: int) -> int:
        """Cancel every running statement of a session."""
        running = [q for q in list(self._by_id.values()) if q.session.id == session_id]
        return sum(self.cancel(query) for query in running)

    def recent(self) -> list[Query]:
        """Return the statements still known, oldest first."""
        return list(self._by_id.values())

    def _trim(self) -> None:
        with self._lock:
            while len(self._spooled) > _KEEP_SPOOLED:
                self._forget(self._spooled.popleft())
            if len(self._by_id) <= _KEEP_RESULTS and self._bytes <= _KEEP_BYTES:
                return
            # A statement that runs for hours stays, and must not keep the later ones.
            ended = [query for query in self._by_id.values() if query.done.is_set()]
            for query in ended[:-_KEEP_LATEST]:
                if len(self._by_id) <= _KEEP_RESULTS - _TRIM_STEP and self._bytes <= _KEEP_BYTES:
                    return
                self._forget(query)

    def _forget(self, query: Query) -> None:
        if self._by_id.pop(query.id, None) is not None:
            self._bytes -= query.kept_bytes
        self._by_request.pop((query.session.id, query.request_id), None)
        if isinstance(query.result, ArrowRows):
            query.result.discard()


# A block; BEGIN [TRANSACTION | WORK] [NAME x] by itself begins a transaction.
_SCRIPT = re.compile(
    r"\s*(?:DECLARE\b|BEGIN\s+(?!TRANSACTION\b|WORK\b|NAME\b)[^\s;])", re.IGNORECASE
)


def _pieces(query: Query, options: dict[str, Any]) -> list[str]:
    """Split a script when the client asked for more than one statement.

    Raises:
        StatementError: 8 when the number of statements is not the one asked for.
    """
    if ";" not in query.sql:
        return [query.sql]
    if _SCRIPT.match(query.sql):
        raise errors.unsupported("Snowflake Scripting")
    pieces = split_statements(query.sql)
    given = options["parameters"].get("MULTI_STATEMENT_COUNT")
    if given is None:
        given = query.session.parameters.get("MULTI_STATEMENT_COUNT", 1)
    if not str(given).isdigit():
        raise errors.invalid_value(given, "MULTI_STATEMENT_COUNT")
    wanted = int(given)
    if wanted and len(pieces) > 1 and len(pieces) != wanted:
        raise StatementError(
            8,
            "0A000",
            f"Actual statement count {len(pieces)} did not match the desired statement count "
            f"{wanted}.",
        )
    return pieces


def new_query_id() -> str:
    """Return a query id in Snowflake's shape."""
    return "01" + str(uuid.uuid4())[2:]
