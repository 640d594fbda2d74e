"""Files as answers, sent by the kernel from its cache to the socket.

Reading a file into Python and writing it to a connection copies each byte twice and costs more
than the client's side of a download. Where the connection is a plain socket of uvicorn's, sendfile
does it, on threads: the loop must not wait for a disk. TLS and unusual ranges take Starlette's way.
"""

import asyncio
import contextlib
import os
import re
import select
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from monad_dagster.local.stages.file_transfer import PIECE_BYTES

TURN_BYTES, _TURN_SECONDS = 16 << 20, 0.2  # what a thread sends before others have their turn
_PATIENCE_MS = 20  # for a client that does not read, threads do not wait longer
SENDERS = 4
_THREADS = ThreadPoolExecutor(SENDERS, "senders")
_SIMPLE_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


class LargeFileResponse(FileResponse):
    """A file, whole or a range of it."""

    chunk_size = PIECE_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, by the kernel where that is possible."""
        connection = _Connection.of(receive) if scope["method"] == "GET" else None
        if connection is None:
            await super().__call__(scope, receive, send)
            return
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts, headers = os.fstat(file), Headers(scope=scope)
            span = _span(headers, facts.st_size) if stat.S_ISREG(facts.st_mode) else None
            if span is not None:
                self.set_stat_headers(facts)
                await send(self._start(span, facts.st_size, is_part="range" in headers))
                await connection.send_file(file, span)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(file)
        if span is None:
            await super().__call__(scope, receive, send)

    def _start(self, span: range, size: int, *, is_part: bool) -> Message:
        headers = MutableHeaders(raw=list(self.raw_headers))
        if is_part:
            headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        headers["content-length"] = str(len(span))
        status = 206 if is_part else self.status_code
        return {"type": "http.response.start", "status": status, "headers": headers.raw}


class _Connection:
    """The socket of a request, and uvicorn's account of what was sent on it."""

    def __init__(self, transport: Any, cycle: Any) -> None:
        self._transport = transport
        self._cycle = cycle

    @classmethod
    def of(cls, receive: Receive) -> "_Connection | None":
        """Return the connection of a request; None where it cannot be written to directly."""
        cycle = getattr(receive, "__self__", None)
        transport = getattr(cycle, "transport", None)
        if transport is None or not hasattr(cycle, "expected_content_length"):
            return None
        if transport.get_extra_info("sslcontext") or not transport.get_extra_info("socket"):
            return None
        return cls(transport, cycle)

    async def send_file(self, file: int, span: range) -> None:
        """Send a part of a file; a client that has gone ends it early and without an error.

        Raises:
            OSError: The file cannot be read, or is shorter than it was.
        """
        if self._transport.is_closing():
            self._count(len(span))
            return
        # A duplicate, because the loop may close its descriptor while a thread sends, and the
        # number could be another connection's by then.
        target = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            await self._flush(target)
            place = span.start
            while place < span.stop and not self._transport.is_closing():
                until = min(span.stop, place + TURN_BYTES)
                place = await _on_thread(target, file, place, until)
                if place < until:
                    await _writable(target)
        except ConnectionError:
            self._transport.abort()
        finally:
            os.close(target)
        self._count(len(span))

    async def _flush(self, target: int) -> None:
        """Wait until the headers have left the transport."""
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():
            await _writable(target)
            await asyncio.sleep(0)

    def _count(self, size: int) -> None:
        self._cycle.expected_content_length -= size


def _span(headers: Headers, size: int) -> range | None:
    """Return which bytes a request asks for; None leaves the question to Starlette."""
    wanted = headers.get("range")
    if wanted is None:
        return range(size)
    found = _SIMPLE_RANGE.fullmatch(wanted.strip())
    if found is None or "if-range" in headers:
        return None
    span = range(int(found[1]), min(int(found[2] or size) + 1, size))
    return span if span else None


async def _on_thread(target: int, file: int, place: int, until: int) -> int:
    """Let a thread send; it has ended when this returns, cancelled too: it uses descriptors."""
    loop = asyncio.get_running_loop()
    sending = loop.run_in_executor(_THREADS, _send_some, target, file, place, until)
    try:
        await asyncio.wait([sending])
    finally:
        if not sending.done():
            await asyncio.wait([sending])
    return sending.result()


def _send_some(target: int, file: int, place: int, until: int) -> int:
    """Send until the end, for a turn, or until the client takes nothing; return where it is."""
    ends = time.monotonic() + _TURN_SECONDS
    poller = select.poll()
    poller.register(target, select.POLLOUT)
    while place < until:
        try:
            sent = os.sendfile(target, file, place, until - place)
        except BlockingIOError:
            if not poller.poll(_PATIENCE_MS) or time.monotonic() > ends:
                break
            continue
        if not sent:
            raise OSError(f"A file ended at byte {place} while it was sent; it was longer before.")
        place += sent
    return place


async def _writable(target: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            ready.set_result(None)

    loop.add_writer(target, wake)
    try:
        await ready
    finally:
        loop.remove_writer(target)
