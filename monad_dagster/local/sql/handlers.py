"""The registry of statements, system functions, table functions and methods.

A package registers a handler with a decorator; `dispatch.py` finds it by leading keywords. What is
neither registered nor the SQL engine's business answers "Unsupported feature".

    @statement("SHOW IMAGE REPOSITORIES")
    def show_image_repositories(session: Session, statement: Statement) -> ResultSet: ...

    @function("SYSTEM$GET_SERVICE_LOGS")
    def get_service_logs(session: Session, statement: Statement, args: Arguments) -> str: ...

    @table_function("SNOWFLAKE.SPCS.GET_JOB_HISTORY")
    def get_job_history(session, statement, args) -> ResultSet: ...

    @method("SPCS_CANCEL_JOB")            # CALL db.s.job!SPCS_CANCEL_JOB() and the SELECT form
    def cancel_job(session, statement, name: ObjectName, args) -> str: ...

    @table_method("SPCS_GET_LOGS")        # SELECT ... FROM TABLE(db.s.job!SPCS_GET_LOGS(...))
    def get_logs(session, statement, name: ObjectName, args) -> ResultSet: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monad_dagster.local.protocol.results import ResultSet
from monad_dagster.local.sql.statements import Arguments, ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

StatementHandler = Callable[["Session", Statement], ResultSet]
Function = Callable[["Session", Statement, Arguments], Any]
Method = Callable[["Session", Statement, ObjectName, Arguments], Any]


@dataclass(frozen=True)
class Entry:
    """One registered name, for dispatch and for COVERAGE.md."""

    key: str
    handler: Callable[..., Any]
    note: str = ""


STATEMENTS: dict[tuple[str, ...], Entry] = {}
FUNCTIONS: dict[str, Entry] = {}
TABLE_FUNCTIONS: dict[str, Entry] = {}
METHODS: dict[str, Entry] = {}
TABLE_METHODS: dict[str, Entry] = {}

_SYNONYMS = {"DESC": "DESCRIBE", "LS": "LIST", "RM": "REMOVE"}
_MODIFIERS = frozenset({"TEMP", "TEMPORARY", "TRANSIENT", "VOLATILE", "TERSE", "SECURE"})


def statement(*keys: str, note: str = "") -> Callable[[StatementHandler], StatementHandler]:
    """Register a handler for statements that begin with one of *keys*.

    Keys leave out OR REPLACE, TEMPORARY, TERSE and the like (they arrive in
    `statement.modifiers`), and use DESCRIBE, LIST and REMOVE for their short forms.
    """

    def register(handler: StatementHandler) -> StatementHandler:
        for key in keys:
            STATEMENTS[tuple(key.split())] = Entry(key, handler, note)
        return handler

    return register


def function(*names: str, note: str = "") -> Callable[[Function], Function]:
    """Register a scalar function called by CALL or inside a SELECT with constant arguments."""
    return _registrar(FUNCTIONS, names, note)


def table_function(*names: str, note: str = "") -> Callable[[Function], Function]:
    """Register a table function, fully qualified unless it has no database."""
    return _registrar(TABLE_FUNCTIONS, names, note)


def method(*names: str, note: str = "") -> Callable[[Method], Method]:
    """Register a method of a service, as in `job!NAME()`."""
    return _registrar(METHODS, names, note)


def table_method(*names: str, note: str = "") -> Callable[[Method], Method]:
    """Register a method of a service that returns a table."""
    return _registrar(TABLE_METHODS, names, note)


def _registrar(registry: dict[str, Entry], names: tuple[str, ...], note: str) -> Callable[..., Any]:
    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            registry[name.upper()] = Entry(name.upper(), handler, note)
        return handler

    return register


def find_statement(parsed: Statement) -> StatementHandler | None:
    """Return the handler for *parsed* and set its cursor and modifiers, or None."""
    words, ends, modifiers = _leading_words(parsed)
    for length in range(len(words), 0, -1):
        entry = STATEMENTS.get(tuple(words[:length]))
        if entry is not None:
            parsed.cursor.at = ends[length - 1]
            parsed.modifiers = frozenset(modifiers)
            return entry.handler
    return None


def _leading_words(parsed: Statement) -> tuple[list[str], list[int], set[str]]:
    """Return the keywords, the token index after each, and the modifiers left out."""
    words: list[str] = []
    ends: list[int] = []
    modifiers: set[str] = set()
    index = 0
    while index < len(parsed.tokens) and len(words) < 6:
        token = parsed.tokens[index]
        if token.kind != "word":
            break
        following = parsed.tokens[index + 1] if index + 1 < len(parsed.tokens) else None
        if len(words) == 1 and token.value == "OR" and following and following.is_word("REPLACE"):
            modifiers.add("OR REPLACE")
            index += 2
            continue
        index += 1
        if len(words) == 1 and token.value in _MODIFIERS:
            modifiers.add("TEMPORARY" if token.value == "TEMP" else token.value)
            continue
        words.append(_SYNONYMS.get(token.value, token.value) if not words else token.value)
        ends.append(index)
    return words, ends, modifiers
