"""Stage bytes over HTTP, in the shape of GCS, for clients that do not read LOCAL_FS.

A PUT or GET statement hands out a token that opens one stage for reading or writing, for a while.
"""

import asyncio
import contextlib
import errno
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monad_dagster.local.errors import StatementError
from monad_dagster.local.faults import faults_disk
from monad_dagster.local.stages.file_sending import LargeFileResponse
from monad_dagster.local.stages.file_transfer import gathered_body, write_stream

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

PREFIX = "/monad/blob"
_BUCKET = "stages"
_TOKEN_SECONDS = 3600
_KEPT_HEADERS = ("x-goog-meta-", "x-amz-meta-")


class BlobTokens:
    """Tokens that open one stage each."""

    def __init__(self, account: "Account") -> None:
        self._account = account
        self._live: dict[str, tuple[tuple[str, str, str], bool, float]] = {}

    def issue(self, stage: tuple[str, str, str], *, write: bool) -> str:
        """Return a token for a stage, given as (database, schema, name)."""
        now = self._account.clock().timestamp()
        self._live = {k: v for k, v in self._live.items() if v[2] > now}
        token = secrets.token_urlsafe(32)
        self._live[token] = (stage, write, now + _TOKEN_SECONDS)
        return token

    def allows(self, token: str, stage: tuple[str, str, str], *, write: bool) -> bool:
        """Tell whether *token* opens *stage*."""
        found = self._live.get(token)
        if found is None or found[2] <= self._account.clock().timestamp():
            return False
        return found[0] == stage and (found[1] or not write)


def install(account: "Account") -> None:
    """Add the routes and the token store."""
    account.extensions["blobs"] = BlobTokens(account)
    blobs = Blobs(account)
    account.routes.append(
        Route(
            PREFIX + "/{bucket}/{path:path}", blobs.handle, methods=["GET", "HEAD", "PUT", "DELETE"]
        )
    )


class Blobs:
    """The routes of stage bytes."""

    def __init__(self, account: "Account") -> None:
        self.account = account

    async def handle(self, request: Request) -> Response:
        """Answer HEAD, GET (ranges too), PUT and DELETE of one file."""
        path = self._locate(request, write=request.method in {"PUT", "DELETE"})
        if path is None:
            return Response(status_code=403)
        if request.method == "PUT":
            return await self._receive(request, path)
        if not path.is_file():
            return Response(status_code=404)
        if request.method == "DELETE":
            path.unlink(missing_ok=True)
            return Response(status_code=204)
        headers = self._load(path)
        return LargeFileResponse(path, media_type="application/octet-stream", headers=headers)

    def _locate(self, request: Request, *, write: bool) -> Path | None:
        """Return the file's place when the token opens its stage."""
        stage, relative = _split(request)
        if request.path_params["bucket"] != _BUCKET or not relative:
            return None
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not self.account.extensions["blobs"].allows(token, stage, write=write):
            return None
        try:
            return self.account.stages.resolve(*stage, relative)
        except StatementError:
            return None

    async def _receive(self, request: Request, path: Path) -> Response:
        """Write the body beside its place and rename it there once complete.

        A killed account loses nothing of it; only a power cut could, which is not promised.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".monad-{secrets.token_hex(8)}")
        stage, _ = _split(request)
        key = f"{'.'.join(stage)}/{secrets.token_hex(8)}"

        def check() -> None:
            if faults_disk.is_full(self.account.faults, key, stage):
                raise faults_disk.no_space(path.name)

        try:
            with partial.open("wb") as file, gathered_body(request) as body:
                await write_stream(body, file, check)
            await asyncio.to_thread(partial.replace, path)  # frees what was there, maybe much
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return Response("No space left on device", status_code=507)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
        self._store(path, request.headers)
        return Response(status_code=200)

    def _store(self, path: Path, headers: Any) -> None:
        kept = {k: v for k, v in headers.items() if k.startswith(_KEPT_HEADERS)}
        document = {"modified": path.stat().st_mtime_ns, "headers": kept}
        self.account.catalog.put_document("blobs", str(path), document)

    def _load(self, path: Path) -> dict[str, str]:
        """Return a file's stored headers unless someone else wrote it since."""
        document = self.account.catalog.get_document("blobs", str(path))
        current = document and document["modified"] == path.stat().st_mtime_ns
        return dict(document["headers"]) if current else {}


def _split(request: Request) -> tuple[tuple[str, str, str], str]:
    """Return the stage, as (database, schema, name), and the path in it that a URL names."""
    parts = unquote(request.path_params["path"]).split("/")
    database, schema, name = (*parts, "", "")[:3]
    return (database, schema, name), "/".join(parts[3:])
