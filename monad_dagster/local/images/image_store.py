"""Images on disk: content-addressed blobs, and what each image repository refers to.

`blobs/sha256/<hex>` is shared; a repository sees only the blobs linked to it, so that a digest
alone opens nothing. Every file is written aside and renamed, so a crash leaves no half image.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
IMAGE_NAME = re.compile(r"^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$")
REPOSITORY_KEY = re.compile(r"^[A-Za-z0-9_-]{1,128}$")
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_BLOB_BYTES = 160 * 2**30  # Snowflake's largest layer on AWS
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class ImageStoreError(Exception):
    """The registry refuses; `code` is the OCI error code, `status` the HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Manifest:
    """A stored manifest."""

    digest: str
    media_type: str
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """Return the parsed manifest."""
        return json.loads(self.body)


@dataclass(frozen=True)
class ImageTag:
    """One tag of an image, as SHOW IMAGES lists it."""

    image: str
    tag: str
    digest: str
    created_at: float


class ImageStore:
    """Blobs, manifests and tags below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.uploads = root / "uploads"
        for folder in (self.blobs, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    # --- uploads

    def start_upload(self) -> str:
        """Open an upload and return its id."""
        upload = secrets.token_hex(16)
        (self.uploads / upload).touch()
        return upload

    def upload_path(self, upload: str) -> Path:
        """Return the file of an open upload."""
        path = self.uploads / upload
        if not re.fullmatch(r"[0-9a-f]{32}", upload) or not path.is_file():
            raise ImageStoreError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return path

    def append(self, upload: str, chunk: bytes) -> int:
        """Append bytes to an upload and return its size."""
        path = self.upload_path(upload)
        with path.open("ab") as file:
            if file.tell() + len(chunk) > MAX_BLOB_BYTES:
                raise ImageStoreError(413, "SIZE_INVALID", "layer is larger than 160 GiB")
            file.write(chunk)
            return file.tell()

    def finish_upload(self, upload: str, digest: str, repository: str) -> None:
        """Verify an upload's digest, keep it as a blob and link it to the repository."""
        path = self.upload_path(upload)
        check_digest(digest)
        actual = f"sha256:{_sha256_of(path)}"
        if actual != digest:
            path.unlink(missing_ok=True)
            raise ImageStoreError(400, "DIGEST_INVALID", f"content is {actual}, not {digest}")
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(self.blob_path(digest))
        self.link_blob(repository, digest)

    def cancel_upload(self, upload: str) -> None:
        """Forget an upload."""
        self.upload_path(upload).unlink(missing_ok=True)

    # --- blobs

    def blob_path(self, digest: str) -> Path:
        """Return where a blob lies, existing or not."""
        check_digest(digest)
        return self.blobs / digest.removeprefix("sha256:")

    def link_blob(self, repository: str, digest: str) -> None:
        """Make an existing blob visible in a repository."""
        link = self._repository(repository) / "blobs" / digest.removeprefix("sha256:")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.touch()

    def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether a repository holds a blob."""
        path = self.blob_path(digest)
        link = self._repository(repository) / "blobs" / path.name
        return link.is_file() and path.is_file()

    # --- manifests and tags

    def put_manifest(
        self, repository: str, image: str, reference: str, body: bytes, *, media_type: str
    ) -> str:
        """Store a manifest under a tag or its digest and return its digest."""
        check_image_name(image)
        if len(body) > MAX_MANIFEST_BYTES:
            raise ImageStoreError(413, "SIZE_INVALID", "manifest is too large")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.startswith("sha256:") and check_digest(reference) != digest:
            raise ImageStoreError(400, "DIGEST_INVALID", f"content is {digest}, not {reference}")
        data = self._checked_manifest(repository, image, body)
        folder = self._image(repository, image)
        _write(self.blob_path(digest), body)
        revision = folder / "revisions" / digest.removeprefix("sha256:")
        media_type = media_type or data.get("mediaType") or OCI_MANIFEST
        _write(revision, json.dumps({"media_type": media_type, "at": time.time()}).encode())
        if not reference.startswith("sha256:"):
            if not TAG.match(reference):
                raise ImageStoreError(400, "TAG_INVALID", f"invalid tag '{reference}'")
            tag = {"digest": digest, "at": time.time()}
            _write(folder / "tags" / reference, json.dumps(tag).encode())
        return digest

    def get_manifest(self, repository: str, image: str, reference: str) -> Manifest:
        """Return a manifest by tag or digest."""
        check_image_name(image)
        folder = self._image(repository, image)
        digest = reference
        if not reference.startswith("sha256:"):
            tag = folder / "tags" / reference
            if not TAG.match(reference) or not tag.is_file():
                raise ImageStoreError(404, "MANIFEST_UNKNOWN", f"manifest unknown: {reference}")
            digest = json.loads(tag.read_text())["digest"]
        revision = folder / "revisions" / check_digest(digest).removeprefix("sha256:")
        if not revision.is_file():
            raise ImageStoreError(404, "MANIFEST_UNKNOWN", f"manifest unknown: {reference}")
        media_type = json.loads(revision.read_text())["media_type"]
        return Manifest(digest, media_type, self.blob_path(digest).read_bytes())

    def tags(self, repository: str, image: str) -> list[str]:
        """Return an image's tags, sorted."""
        check_image_name(image)
        folder = self._image(repository, image) / "tags"
        if not folder.is_dir():
            raise ImageStoreError(404, "NAME_UNKNOWN", f"repository name not known: {image}")
        return sorted(path.name for path in folder.iterdir() if TAG.match(path.name))

    def images(self, repository: str) -> Iterator[ImageTag]:
        """Yield every tag of every image of a repository."""
        root = self._repository(repository) / "images"
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            image = folder.name.replace("+", "/")
            for path in sorted((folder / "tags").glob("*")):
                if TAG.match(path.name):
                    tag = json.loads(path.read_text())
                    yield ImageTag(image, path.name, tag["digest"], tag["at"])

    def drop_repository(self, repository: str) -> None:
        """Forget everything a repository refers to; blobs of others stay."""
        shutil.rmtree(self._repository(repository), ignore_errors=True)

    # --- inside

    def _repository(self, repository: str) -> Path:
        if not REPOSITORY_KEY.match(repository):
            raise ImageStoreError(400, "NAME_INVALID", "invalid repository")
        return self.root / "repositories" / repository

    def _image(self, repository: str, image: str) -> Path:
        return self._repository(repository) / "images" / image.replace("/", "+")

    def _checked_manifest(self, repository: str, image: str, body: bytes) -> dict[str, Any]:
        try:
            data = json.loads(body)
            layers = [*data.get("layers", []), *([data["config"]] if "config" in data else [])]
            digests = [check_digest(item["digest"]) for item in layers]
            children = [check_digest(item["digest"]) for item in data.get("manifests", [])]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ImageStoreError(400, "MANIFEST_INVALID", "manifest is not valid") from None
        if data.get("schemaVersion") != 2 or not ("config" in data or "manifests" in data):
            raise ImageStoreError(400, "MANIFEST_INVALID", "manifest is not of an image")
        for digest in digests:
            if not self.has_blob(repository, digest):
                raise ImageStoreError(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown: {digest}")
        for digest in children:
            self.get_manifest(repository, image, digest)
        return data


def check_digest(digest: str) -> str:
    """Return a digest that is well formed, so that it is safe in a path."""
    if not DIGEST.match(digest):
        raise ImageStoreError(400, "DIGEST_INVALID", "digest must be sha256 with 64 hex digits")
    return digest


def check_image_name(image: str) -> str:
    """Return an image name that is well formed."""
    if len(image) > 200 or not IMAGE_NAME.match(image):
        raise ImageStoreError(400, "NAME_INVALID", f"invalid image name '{image}'")
    return image


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}~")
    with temporary.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
