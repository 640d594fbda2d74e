"""A connection of the Snowflake connector that answers from a function instead of a server.

Only the surface the session uses: `cursor`, `execute`, `description`, `fetchall`, `sfqid`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snowflake.connector.errors import OperationalError, ProgrammingError

from monad_dagster.spcs.connection import Session

Answer = Sequence[Mapping[str, Any]] | Exception


class ScriptedCursor:
    """Answers one statement."""

    def __init__(self, connection: "ScriptedConnection") -> None:
        self._connection = connection
        self._rows: list[Mapping[str, Any]] = []
        self.description: list[tuple[str]] | None = None
        self.sfqid: str | None = None

    def execute(self, text: str, timeout: int | None = None) -> None:
        """Ask the script for the answer."""
        self._connection.statements.append(text)
        self._connection.timeouts.append(timeout)
        self.sfqid = f"query-{len(self._connection.statements)}"
        answer = self._connection.answer(text)
        if isinstance(answer, Exception):
            raise answer
        self._rows = list(answer)
        self.description = [(name,) for name in (self._rows[0] if self._rows else {"status": ""})]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples."""
        return [tuple(row.values()) for row in self._rows]

    def close(self) -> None:
        """Nothing to close."""


class ScriptedConnection:
    """Records statements and answers them."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.statements: list[str] = []
        self.timeouts: list[int | None] = []
        self.closed = False

    def cursor(self) -> ScriptedCursor:
        """Open a cursor."""
        return ScriptedCursor(self)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


def scripted_session(answer: Callable[[str], Answer]) -> tuple[Session, ScriptedConnection]:
    """Return a session over one scripted connection, which never sleeps."""
    connection = ScriptedConnection(answer)
    return Session(lambda: connection, sleep=lambda _: None), connection


def refused(errno: int, text: str = "refused", sqlstate: str = "42000") -> ProgrammingError:
    """Build the connector's error for a refused statement."""
    return ProgrammingError(msg=text, errno=errno, sqlstate=sqlstate, sfqid="q-refused")


def lost_answer() -> OperationalError:
    """Build the connector's error for an answer that never came."""
    return OperationalError(msg="connection reset", errno=250003)


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self, start: float = 1_000.0) -> None:
        self.time = start
        self.on_sleep: Callable[[float], None] = lambda _: None

    def now(self) -> float:
        """Return the time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Move the time on."""
        self.time += seconds
        self.on_sleep(seconds)
