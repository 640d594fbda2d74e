"""Files over HTTP in large pieces, written and read outside of the event loop.

A piece is large because each costs a change of thread; the loop must not write itself, because a
busy disk would stop every other request.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from starlette.responses import FileResponse

PIECE_BYTES = 1 << 20


class LargeFileResponse(FileResponse):
    """A file, whole or a range of it."""

    chunk_size = PIECE_BYTES


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
