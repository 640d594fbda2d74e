"""What every route of the client protocol reads from a request: its JSON body and its token."""

import asyncio
import gzip
import json
import zlib
from typing import Any

from starlette.requests import Request

from monad_dagster.local.errors import LoginError, StatementError

MAX_BODY_BYTES = 64 * 1024 * 1024  # of a decompressed request
MAX_LOGIN_BYTES = 1024 * 1024  # of a request that needs no session


async def read_json(request: Request, limit: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Read a JSON body, gzip or plain, of at most *limit* bytes."""
    body = await _read_body(request, limit)
    if request.headers.get("content-encoding", "").lower() == "gzip" and body:
        body = await asyncio.to_thread(_gunzip, body, limit)
    if len(body) > limit:
        raise StatementError(390400, "08001", "Request is too large.")
    try:
        parsed = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise StatementError(390400, "08001", "Request is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise StatementError(390400, "08001", "Request is not a JSON object.")
    return parsed


async def _read_body(request: Request, limit: int) -> bytes:
    """Read the body and stop as soon as it is too long, so that it cannot fill the memory."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise StatementError(390400, "08001", "Request is too large.")
    return bytes(body)


def _gunzip(body: bytes, limit: int) -> bytes:
    """Decompress within the size limit, so that a small bomb cannot fill the memory."""
    try:
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        data = stream.decompress(body, limit + 1)
    except (zlib.error, gzip.BadGzipFile):
        raise StatementError(390400, "08001", "Request is not valid gzip.") from None
    return data


def session_token(request: Request) -> str:
    """Return the token of the Authorization header.

    Raises:
        LoginError: 390103 when there is none.
    """
    header = request.headers.get("authorization", "")
    prefix = 'Snowflake Token="'
    if not header.startswith(prefix) or not header.endswith('"'):
        raise LoginError(390103, "Session token not found in the request data.")
    return header[len(prefix) : -1]
