"""Bodies of requests become files in large pieces, written outside of the event loop.

A piece is large because each costs a change of thread; the loop must not write itself, because a
busy disk would stop every other request.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO

from starlette.requests import Request

PIECE_BYTES = 1 << 20
GATHERED_BYTES = 256 << 10  # what uvloop reads at once
# From here on every byte wakes the loop. More than what was received and not read yet (a read of
# the loop, the server's buffer) and what the kernel waits for, so that it never waits for more
# than is still to come.
TAIL_BYTES = 1 << 20


@contextlib.contextmanager
def gathered_body(request: Request) -> Iterator[AsyncIterator[bytes]]:
    """Yield a request's body as a stream that wakes the event loop rarely.

    Clients send 4 to 16 KiB at a time. A loop that wakes for each takes the processor from the
    client that makes the next, so the kernel gathers them first.
    """
    connection = _connection(request)
    length = request.headers.get("content-length", "")
    left = int(length) if length.isdigit() else 0
    if connection is None or left <= TAIL_BYTES:
        yield request.stream()
        return
    _wake_at(connection, GATHERED_BYTES)
    try:
        yield _counted(request.stream(), left, connection)
    finally:
        _wake_at(connection, 1)


async def _counted(
    pieces: AsyncIterator[bytes], left: int, connection: socket.socket
) -> AsyncIterator[bytes]:
    is_gathering = True
    async for piece in pieces:
        left -= len(piece)
        if is_gathering and left <= TAIL_BYTES:
            _wake_at(connection, 1)
            is_gathering = False
        yield piece


def _connection(request: Request) -> Any:
    """Return the socket of a request; None where there is none, or none that can gather.

    Only Linux looks again at what has arrived when the threshold falls.
    """
    transport = getattr(getattr(request.receive, "__self__", None), "transport", None)
    if transport is None or sys.platform != "linux":
        return None
    return transport.get_extra_info("socket")


def _wake_at(connection: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):  # closed
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


async def write_stream(
    pieces: AsyncIterator[bytes], file: BinaryIO, check: Callable[[], None]
) -> None:
    """Write what arrives to a file; *check* is asked before each write and may raise.

    One piece is written while the next one arrives.
    """
    waiting: list[bytes] = []
    size = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= PIECE_BYTES:
                if writing is not None:
                    await writing
                check()
                writing = asyncio.create_task(asyncio.to_thread(file.writelines, waiting))
                waiting, size = [], 0
    finally:
        if writing is not None:  # the file must not be closed under the thread that writes it
            await asyncio.wait([writing])
    if writing is not None:
        writing.result()
    check()
    await asyncio.to_thread(file.writelines, waiting)
