"""Which statements use a session's engine connection right now, so that only those are interrupted.

A canceled statement may have ended, and the session's next one begun, before the interruption
comes; it would stop that one instead.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Ids of the statement that this thread executes, and of the script that it is part of.
executing: ContextVar[tuple[str, ...]] = ContextVar("executing", default=())


@contextmanager
def executing_also(query_id: str) -> Iterator[None]:
    """Say that this thread executes *query_id*, as a part of what it executes already."""
    token = executing.set((*executing.get(), query_id))
    try:
        yield
    finally:
        executing.reset(token)


class Holding:
    """Who holds one engine connection."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._by: tuple[str, ...] = ()

    @contextmanager
    def by_this_thread(self) -> Iterator[None]:
        """Hold the connection, whose lock the caller has, for what this thread executes."""
        with self._guard:
            before, self._by = self._by, executing.get()
        try:
            yield
        finally:
            with self._guard:
                self._by = before

    def interrupt(self, query_id: str, stop: Callable[[], None]) -> None:
        """Call *stop* if *query_id* holds the connection; it cannot let go before that returns."""
        with self._guard:
            if query_id in self._by:
                stop()
