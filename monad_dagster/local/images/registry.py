"""The image registry: OCI distribution endpoints under /v2/ and Snowflake's /login.

Repository names are `db/schema/repository/image`. A caller is a session: Basic credentials or the
bearer token that /login gives for them; pushing needs WRITE and pulling READ on the image
repository. Missing and forbidden repositories look the same. SQL is in image_statements.py.
"""

import asyncio
import base64
import binascii
import hashlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.errors import StatementError
from monad_dagster.local.images import image_statements  # noqa: F401 - registers its handlers
from monad_dagster.local.images.image_store import (
    MAX_MANIFEST_BYTES,
    ImageStore,
    ImageStoreError,
    check_digest,
    check_image_name,
)
from monad_dagster.local.images.system_images import SYSTEM_KEY, SYSTEM_REPOSITORY
from monad_dagster.local.jobs.job_submission import repository_key
from monad_dagster.local.sql.statements import ObjectName

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

BEARER_SECONDS = 3600
MAX_BEARERS = 10_000
WRITE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Target:
    """The repository and image that a request names."""

    key: str
    image: str
    name: str  # as in the URL


class Registry:
    """The registry's HTTP routes."""

    def __init__(self, account: "Account", store: ImageStore) -> None:
        self.account = account
        self.store = store
        self._bearers: dict[str, tuple[Session, float]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the routes; the name of an image may have slashes of its own."""
        everything = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        return [
            Route("/login", _guarded(self.login), methods=["GET"]),
            Route("/v2/", _guarded(self.ping), methods=["GET", "HEAD"]),
            Route("/v2", _guarded(self.ping), methods=["GET", "HEAD"]),
            Route("/v2/{path:path}", _guarded(self.dispatch), methods=everything),
        ]

    # --- who is asking

    async def login(self, request: Request) -> Response:
        """Exchange Basic credentials for a bearer token."""
        session = await self._session(request)
        token = secrets.token_urlsafe(32)
        with self._lock:
            now = time.monotonic()
            self._bearers = {k: v for k, v in self._bearers.items() if v[1] > now}
            if len(self._bearers) >= MAX_BEARERS:
                self._bearers.pop(next(iter(self._bearers)))
            self._bearers[_hash(token)] = (session, now + BEARER_SECONDS)
        body = {"token": token, "access_token": token, "expires_in": BEARER_SECONDS}
        return JSONResponse(body)

    async def _session(self, request: Request) -> "Session":
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        session: Session | None = None
        if scheme.lower() == "bearer":
            with self._lock:
                found = self._bearers.get(_hash(value.strip()))
            if found is not None and found[1] > time.monotonic() and self._is_alive(found[0]):
                session = found[0]
        elif scheme.lower() == "basic":
            user, password = _basic(value)
            session = await asyncio.to_thread(self.account.authenticate_registry, user, password)
        if session is None:
            raise ImageStoreError(401, "UNAUTHORIZED", "authentication required")
        return session

    def _is_alive(self, session: "Session") -> bool:
        """Tell whether the session of a bearer token still is one; a user's own login has none."""
        return session.id == 0 or session.id in self.account.sessions

    async def ping(self, request: Request) -> Response:
        """Answer that this is a registry and that the caller is known."""
        await self._session(request)
        return JSONResponse({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    def _target(self, session: "Session", name: str, *, is_push: bool) -> Target:
        parts = name.split("/")
        if len(parts) < 4 or not all(parts):
            raise ImageStoreError(404, "NAME_UNKNOWN", "repository name not known to registry")
        image = check_image_name("/".join(parts[3:]))
        if tuple(parts[:3]) == SYSTEM_REPOSITORY:
            if is_push:
                raise ImageStoreError(403, "DENIED", "requested access to the resource is denied")
            return Target(SYSTEM_KEY, image, name)
        found = self._repository(session, parts[:3])
        if found is None:
            raise ImageStoreError(404, "NAME_UNKNOWN", "repository name not known to registry")
        if not session.has_privilege(found, *(("WRITE",) if is_push else ("READ", "WRITE"))):
            raise ImageStoreError(403, "DENIED", "requested access to the resource is denied")
        return Target(repository_key(found), image, name)

    def _repository(self, session: "Session", parts: list[str]) -> CatalogObject | None:
        name = ObjectName(tuple(part.upper() for part in parts))
        return session.find("IMAGE REPOSITORY", name)

    # --- what is asked

    async def dispatch(self, request: Request) -> Response:
        """Find the operation in the path: the image's name is what precedes it."""
        session = await self._session(request)
        path = request.path_params["path"]
        parts = path.split("/")
        is_push = request.method not in ("GET", "HEAD")
        if path.endswith("/tags/list"):
            target = self._target(session, path[: -len("/tags/list")], is_push=False)
            tags = self.store.tags(target.key, target.image)
            return JSONResponse({"name": target.name, "tags": tags})
        if len(parts) > 2 and parts[-2] == "manifests":
            target = self._target(session, "/".join(parts[:-2]), is_push=is_push)
            return await self._manifest(request, target, parts[-1])
        if "/blobs/uploads" in path:
            name, _, upload = path.rpartition("/blobs/uploads")
            target = self._target(session, name, is_push=True)
            return await self._upload(request, session, target, upload.strip("/"))
        if len(parts) > 2 and parts[-2] == "blobs":
            target = self._target(session, "/".join(parts[:-2]), is_push=is_push)
            return self._blob(request, target, parts[-1])
        raise ImageStoreError(404, "NAME_UNKNOWN", "repository name not known to registry")

    async def _manifest(self, request: Request, target: Target, reference: str) -> Response:
        if request.method == "PUT":
            body = await _read_body(request, MAX_MANIFEST_BYTES)
            media_type = request.headers.get("content-type", "").partition(";")[0].strip()
            digest = await asyncio.to_thread(
                self.store.put_manifest, target.key, target.image, reference, body,
                media_type=media_type,
            )  # fmt: skip
            location = f"/v2/{target.name}/manifests/{digest}"
            return _empty(201, Location=location, Docker_Content_Digest=digest)
        if request.method not in ("GET", "HEAD"):
            raise _unsupported()
        manifest = self.store.get_manifest(target.key, target.image, reference)
        headers = {
            "Docker-Content-Digest": manifest.digest,
            "Content-Length": str(len(manifest.body)),
        }
        content = b"" if request.method == "HEAD" else manifest.body
        return Response(content, media_type=manifest.media_type, headers=headers)

    def _blob(self, request: Request, target: Target, digest: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise _unsupported()
        if not self.store.has_blob(target.key, check_digest(digest)):
            raise ImageStoreError(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return FileResponse(
            self.store.blob_path(digest),
            media_type="application/octet-stream",
            headers={"Docker-Content-Digest": digest},
        )

    async def _upload(
        self, request: Request, session: "Session", target: Target, upload: str
    ) -> Response:
        if request.method == "POST" and not upload:
            return await self._start_upload(request, session, target)
        if request.method == "PATCH":
            self._check_range(request, upload)
            size = await self._receive(request, upload)
            return _progress(202, target, upload, size)
        if request.method == "PUT":
            await self._receive(request, upload)
            digest = request.query_params.get("digest", "")
            return await self._finish(target, upload, digest)
        if request.method == "GET":
            size = self.store.upload_path(upload).stat().st_size
            return _progress(204, target, upload, size)
        if request.method == "DELETE":
            self.store.cancel_upload(upload)
            return _empty(204)
        raise _unsupported()

    async def _start_upload(self, request: Request, session: "Session", target: Target) -> Response:
        mount, source = request.query_params.get("mount"), request.query_params.get("from")
        if mount and source:
            try:
                other = self._target(session, source, is_push=False)
                if self.store.has_blob(other.key, check_digest(mount)):
                    self.store.link_blob(target.key, mount)
                    return _blob_created(target, mount)
            except ImageStoreError:
                pass  # as the specification asks: fall back to a normal upload
        upload = self.store.start_upload()
        digest = request.query_params.get("digest")
        if digest:
            await self._receive(request, upload)
            return await self._finish(target, upload, digest)
        return _progress(202, target, upload, 0)

    def _check_range(self, request: Request, upload: str) -> None:
        start = request.headers.get("content-range", "").partition("-")[0].strip()
        if start.isdigit() and int(start) != self.store.upload_path(upload).stat().st_size:
            raise ImageStoreError(416, "RANGE_INVALID", "chunk does not follow the last one")

    async def _receive(self, request: Request, upload: str) -> int:
        """Stream the body to the upload's file, a few megabytes at a time."""
        size = self.store.upload_path(upload).stat().st_size
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= WRITE_BYTES:
                size = await asyncio.to_thread(self.store.append, upload, bytes(buffer))
                buffer.clear()
        if buffer:
            size = await asyncio.to_thread(self.store.append, upload, bytes(buffer))
        return size

    async def _finish(self, target: Target, upload: str, digest: str) -> Response:
        await asyncio.to_thread(self.store.finish_upload, upload, digest, target.key)
        return _blob_created(target, digest)


def install(account: "Account") -> None:
    """Give the account its image store and registry."""
    store = ImageStore(account.state_dir / "registry")
    account.extensions["images"] = store
    account.routes.extend(Registry(account, store).routes())


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Any:
    """Turn refusals into the error bodies of the distribution specification."""

    async def route(request: Request) -> Response:
        try:
            return await handler(request)
        except ImageStoreError as error:
            return _error(error)
        except StatementError as error:
            return _error(ImageStoreError(403, "DENIED", error.message))
        except ClientDisconnect:
            return Response(status_code=499)
        except (OSError, ValueError) as error:
            full = isinstance(error, OSError)
            return _error(ImageStoreError(507 if full else 400, "UNKNOWN", str(error)))

    return route


def _error(error: ImageStoreError) -> Response:
    body = {"errors": [{"code": error.code, "message": str(error), "detail": None}]}
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Snowflake image registry"'
    return JSONResponse(body, error.status, headers)


def _unsupported() -> ImageStoreError:
    return ImageStoreError(405, "UNSUPPORTED", "the operation is unsupported")


def _empty(status: int, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status_code=status, headers=named)


def _progress(status: int, target: Target, upload: str, size: int) -> Response:
    return _empty(
        status,
        Location=f"/v2/{target.name}/blobs/uploads/{upload}",
        Range=f"0-{max(size - 1, 0)}",
        Docker_Upload_UUID=upload,
    )


def _blob_created(target: Target, digest: str) -> Response:
    location = f"/v2/{target.name}/blobs/{digest}"
    return _empty(201, Location=location, Docker_Content_Digest=digest)


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ImageStoreError(413, "SIZE_INVALID", "manifest is too large")
    return bytes(body)


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ImageStoreError(401, "UNAUTHORIZED", "authentication required") from None
    return user, password


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
