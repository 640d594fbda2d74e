"""A session that executes statements and speaks the project's errors.

One worker thread executes every statement: the connector installs its own SIGINT handler when it
runs on the main thread, which would turn a signal into a cancelled statement. A session that was
lost is opened again; a statement is repeated only when that is harmless.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from monad_dagster.errors import (
    ConnectionFailedError,
    MonadDagsterError,
    SnowflakeError,
    problem,
)
from monad_dagster.spcs import sql
from monad_dagster.spcs.sql import Statement

# The session or its token is gone; a new login helps. Snowflake's session error numbers.
SESSION_LOST = frozenset({390104, 390110, 390111, 390112, 390114, 390115, 390195})
# Numbers of the connector (ER_* and the login refusals) that mean: no connection was made.
CONNECTION_FAILED = frozenset({250001, 250002, 250003, 250005, 251001, 251005, 251006, 251012})
# The connector's file transfer numbers: an answer, though of the same class as a lost connection.
FILE_TRANSFER = range(253001, 253999)
CANCELLED = 604
LOGIN_REFUSED = frozenset({390100, 390101, 390102, 390144, 390189, 390201})
SQLSTATE_NO_CONNECTION = frozenset({"08001", "08003", "08004", "08006"})


@dataclass(frozen=True)
class Result:
    """The rows of one statement, keyed by lower-case column name.

    Attributes:
        rows: The rows.
        query_id: The statement's query id.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    query_id: str | None = None

    @property
    def first(self) -> dict[str, Any]:
        """The first row, empty when there is none."""
        return self.rows[0] if self.rows else {}

    @property
    def scalar(self) -> Any:
        """The first value of the first row, None when there is none."""
        return next(iter(self.first.values()), None)


class Session:
    """Executes statements over one connection, opened when first needed.

    Safe to use from several threads; statements run one after the other.
    """

    def __init__(
        self,
        open_connection: Callable[[], Any],
        *,
        query_tag: Mapping[str, Any] | None = None,
        attempts: int = 4,
        statement_seconds: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a session.

        Args:
            open_connection: Opens a connection of the Snowflake connector.
            query_tag: Written as JSON into QUERY_TAG of every statement.
            attempts: How often a harmless statement is sent before its error is raised.
            statement_seconds: How long one statement may take; the connector itself sends a
                request whose answer is lost again and again, by default for ever.
            sleep: Waits between attempts.
        """
        self._open_connection = open_connection
        self._query_tag = dict(query_tag or {})
        self._attempts = attempts
        self._statement_seconds = statement_seconds
        self._sleep = sleep
        self._connection: Any = None
        self._worker: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, statement: Statement) -> Result:
        """Execute *statement* and return its rows.

        Raises:
            SnowflakeError: Snowflake refused the statement.
            ConnectionFailedError: The account could not be reached; for a statement that must not
                be repeated its effect is unknown.
        """
        return self._submit(lambda: self._execute_with_retry(statement))

    def tag(self, query_tag: Mapping[str, Any]) -> None:
        """Change the query tag for the statements that follow."""
        self._query_tag = dict(query_tag)
        if self._connection is not None:
            self.execute(sql.set_query_tag(self._query_tag))

    def call(self, function: Callable[[Any], Any]) -> Any:
        """Call *function* with the raw connection, on the session's thread."""
        return self._submit(lambda: function(self._connected()))

    def close(self) -> None:
        """Close the connection; the session can be used again afterwards."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.submit(self._drop_connection)
            worker.shutdown(wait=True)

    def _submit(self, work: Callable[[], Any]) -> Any:
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="snowflake-session")
            future: Future[Any] = self._worker.submit(work)
        return future.result()

    def _execute_with_retry(self, statement: Statement) -> Result:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._execute_once(statement)
            except ConnectionFailedError as error:
                self._drop_connection()
                final = attempt == self._attempts or error.errno in LOGIN_REFUSED
                if final or not (statement.repeatable or error.statement_kind == ""):
                    raise
                self._sleep(min(0.5 * 2**attempt, 10.0))
        raise AssertionError("the last attempt returns or raises")

    def _execute_once(self, statement: Statement) -> Result:
        try:
            connection = self._connected()
            return _fetch(connection, statement, self._statement_seconds)
        except MonadDagsterError:
            raise
        except Exception as error:
            raise translate_error(error, statement) from error

    def _connected(self) -> Any:
        if self._connection is None:
            try:
                self._connection = self._open_connection()
            except MonadDagsterError:
                raise  # a connection that is not configured
            except Exception as error:
                raise _connection_error(error) from error
            if self._statement_seconds is not None:
                bound_network_timeout(self._connection, self._statement_seconds)
            if self._query_tag:
                _fetch(
                    self._connection,
                    sql.set_query_tag(self._query_tag),
                    self._statement_seconds,
                )
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # the connection is given up anyway
                connection.close()


def bound_network_timeout(connection: Any, seconds: int) -> None:
    """Let the connector give up on a request that gets no answer, unless the user said when."""
    if getattr(connection, "network_timeout", seconds) is None:
        connection._network_timeout = seconds  # no public setter; a contract test watches it


def _fetch(connection: Any, statement: Statement, seconds: int | None) -> Result:
    cursor = connection.cursor()
    try:
        cursor.execute(statement.text, timeout=seconds)
        names = [str(column[0]).lower() for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=False)) for row in cursor.fetchall()] if names else []
        return Result(rows, getattr(cursor, "sfqid", None))
    finally:
        cursor.close()


def translate_error(error: Exception, statement: Statement) -> SnowflakeError:
    """Turn an exception of the connector into the project's, with number and query id."""
    errno = _integer(getattr(error, "errno", None))
    sqlstate = getattr(error, "sqlstate", None)
    query_id = getattr(error, "sfqid", None)
    text = _first_line(error)
    lost = errno in SESSION_LOST | CONNECTION_FAILED or sqlstate in SQLSTATE_NO_CONNECTION
    # The connector's own clock ran out, and it has asked the account to cancel the statement.
    lost = lost or (errno == CANCELLED and "due to a timeout" in text)
    if lost or (_is_transport_error(error) and errno not in FILE_TRANSFER):
        return ConnectionFailedError(
            problem(
                f"Statement {statement.kind} got no answer",
                f"{text} (error {errno})",
                "Check that the account is reachable; the statement may have been executed",
                "The command monad-dagster doctor shows what can be reached",
            ),
            errno=errno,
            sqlstate=sqlstate,
            query_id=query_id,
            statement_kind=statement.kind,
        )
    return SnowflakeError(
        problem(
            f"Statement {statement.kind} failed",
            f"{text} (error {errno}, SQL state {sqlstate}, query {query_id})",
            advice_for(errno),
            f"Query history, query id {query_id}" if query_id else "",
        ),
        errno=errno,
        sqlstate=sqlstate,
        query_id=query_id,
        statement_kind=statement.kind,
    )


def advice_for(errno: int | None) -> str:
    """Return the next step for a documented error number."""
    advice = {
        2003: "Check the name, and that the role may see the object: monad-dagster doctor",
        2043: "Check the name, and that the role may see the object: monad-dagster doctor",
        3001: "Grant the missing privilege: monad-dagster doctor names it",
        606: "Set a warehouse on the connection and grant USAGE on it",
        90106: "Set database and schema on the connection",
        395018: "Correct the specification: monad-dagster spec shows what is sent",
    }
    return advice.get(errno or 0, "Correct the statement's cause and run again")


def _connection_error(error: Exception) -> ConnectionFailedError:
    errno = _integer(getattr(error, "errno", None))
    text = _first_line(error)
    refused = errno in LOGIN_REFUSED or "incorrect username or password" in text.lower()
    if refused:
        failed, do = "The account refused the login", "Correct user and password, key or token"
    else:
        failed = "The account cannot be reached"
        do = "Check account, host and network; for the local account: monad-dagster local start"
    return ConnectionFailedError(
        problem(failed, f"{text} (error {errno})", do, "More: monad-dagster doctor"),
        errno=390100 if refused else errno,
        sqlstate=getattr(error, "sqlstate", None),
    )


def _is_transport_error(error: Exception) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"OperationalError", "HttpError", "ConnectionError", "RequestException"})


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "raw_msg", None) or getattr(error, "msg", None) or error)
    return " ".join(text.split())[:500]


def _integer(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
