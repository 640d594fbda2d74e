"""An image's layers unpacked into a directory, once for each digest, trusting no layer.

No member may leave the root, through its name or through a symbolic link; devices are left out;
set-user-id bits are cleared; whiteouts of upper layers remove what lower ones brought.
"""

import gzip
import json
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from monad_dagster.local.images.image_store import INDEX_TYPES, ImageStore, Manifest, check_digest

MAX_ENTRIES = 1_000_000
MAX_UNPACKED_BYTES = 100 * 2**30
# A layer of zeros shrinks to a thousandth; what people put into images to a half or a fifth. Small
# images are let off, so that a few empty files are no bomb.
MOST_EXPANSION, ALWAYS_UNPACKED_BYTES = 100, 2**30
# An image with this label holds files only and runs on the host's interpreter. Without it, a small
# image is looked into: one that brings neither a shell nor its own entrypoint cannot run by itself.
RUNTIME_LABEL, HOST_PYTHON = "dev.monad-dagster.runtime", "host-python"
MAX_INSPECTED_BYTES = 256 * 2**20
SHELLS = frozenset({"bin/sh", "usr/bin/sh", "usr/bin/env"})
WRONG_ARCHITECTURE = (
    "Failed to retrieve image: SPCS only supports image for amd64 architecture. "
    "Please rebuild your image with '--platform linux/amd64' option."
)


class ImageRootfsError(Exception):
    """An image cannot be used; the message is what the user reads."""


@dataclass(frozen=True)
class ImageConfig:
    """What an image says about how its containers start."""

    env: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """An image.

    Attributes:
        digest: The manifest's digest.
        root: Its unpacked file system, if that was asked for.
        config: How its containers start.
        needs_host_python: It brings files only and runs on the host's interpreter.
    """

    digest: str
    root: Path
    config: ImageConfig
    needs_host_python: bool = False

    @property
    def is_self_contained(self) -> bool:
        """Tell whether the image brings its own system (a shell), or files only."""
        return any((self.root / shell).exists() for shell in SHELLS)


class ImageCache:
    """Unpacked images below one directory, named by manifest digest."""

    def __init__(self, store: ImageStore, root: Path) -> None:
        self.store = store
        self.root = root
        self._lock = threading.Lock()
        self._needs_host: dict[str, bool] = {}

    def get(self, repository: str, image: str, digest: str, *, unpack: bool = True) -> Image:
        """Return an image, unpacking its root the first time that is wanted.

        Raises:
            ImageRootfsError: Wrong architecture, missing blob or hostile layer.
        """
        manifest = self.store.get_manifest(repository, image, check_digest(digest))
        manifest = select_platform(self.store, repository, image, manifest)
        config = read_config(self.store, manifest)
        root = self.root / digest.removeprefix("sha256:") / "rootfs"
        with self._lock:
            if unpack and not root.is_dir():
                self._unpack(manifest, root)
            if digest not in self._needs_host:
                self._needs_host[digest] = self._is_files_only(manifest, config)
        return Image(digest, root, config, self._needs_host[digest])

    def _is_files_only(self, manifest: Manifest, config: ImageConfig) -> bool:
        """Tell whether an image brings nothing that could run by itself."""
        if config.labels.get(RUNTIME_LABEL) == HOST_PYTHON:
            return True
        layers = manifest.data.get("layers", [])
        programs = SHELLS | {path.lstrip("/") for path in (*config.entrypoint[:1], *config.cmd[:1])}
        limits = _Limits(num_bytes=MAX_INSPECTED_BYTES)
        try:
            for layer in layers:
                blob = self.store.blob_path(layer["digest"])
                with (
                    _open_layer(blob, layer.get("mediaType", "")) as stream,
                    tarfile.open(fileobj=stream, mode="r|") as archive,
                ):
                    for member in archive:
                        limits.take(member.size if member.isreg() else 0)
                        if _plain_name(member.name) in programs:
                            return False
        except (OSError, EOFError, tarfile.TarError, ValueError):
            return False  # larger than files-only images are, or broken: its start will say so
        return True

    def _unpack(self, manifest: Manifest, root: Path) -> None:
        partial = root.with_name("rootfs.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            layers = [
                (self.store.blob_path(layer["digest"]), layer.get("mediaType", ""))
                for layer in manifest.data.get("layers", [])
            ]
            limits = _Limits(num_bytes=most_bytes([blob.stat().st_size for blob, _ in layers]))
            for blob, media_type in layers:
                with _open_layer(blob, media_type) as stream:
                    unpack_layer(stream, partial, limits)
        except (OSError, EOFError, tarfile.TarError, ValueError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise ImageRootfsError(f"Failed to retrieve image: {error}") from error
        partial.rename(root)


def select_platform(store: ImageStore, repository: str, image: str, manifest: Manifest) -> Manifest:
    """Return the linux/amd64 manifest of an index, or the manifest itself."""
    data = manifest.data
    if manifest.media_type not in INDEX_TYPES and "manifests" not in data:
        return manifest
    for child in data.get("manifests", []):
        platform = child.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return store.get_manifest(repository, image, child["digest"])
    raise ImageRootfsError(WRONG_ARCHITECTURE)


def read_config(store: ImageStore, manifest: Manifest) -> ImageConfig:
    """Return an image's configuration, refusing another architecture than amd64."""
    try:
        blob = store.blob_path(manifest.data["config"]["digest"])
        data: dict[str, Any] = json.loads(blob.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageRootfsError(f"Failed to retrieve image: {error}") from error
    if data.get("architecture", "amd64") != "amd64" or data.get("os", "linux") != "linux":
        raise ImageRootfsError(WRONG_ARCHITECTURE)
    config = data.get("config") or {}
    pairs = [entry.partition("=") for entry in config.get("Env") or []]
    return ImageConfig(
        env={name: value for name, _, value in pairs},
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        working_dir=config.get("WorkingDir") or "/",
        user=str(config.get("User") or ""),
        labels={str(name): str(value) for name, value in (config.get("Labels") or {}).items()},
    )


@dataclass
class _Limits:
    entries: int = MAX_ENTRIES
    num_bytes: int = MAX_UNPACKED_BYTES

    def take(self, num_bytes: int) -> None:
        self.entries -= 1
        self.num_bytes -= max(num_bytes, 0)
        if self.entries < 0 or self.num_bytes < 0:
            raise ValueError("the image holds more than a node's disk, or than its size can mean")


def most_bytes(layer_sizes: Iterable[int]) -> int:
    """Return how many bytes layers of these compressed sizes may unpack to."""
    plausible = max(ALWAYS_UNPACKED_BYTES, MOST_EXPANSION * sum(layer_sizes))
    return min(plausible, MAX_UNPACKED_BYTES)


def _open_layer(blob: Path, media_type: str) -> IO[bytes]:
    if media_type.endswith("zstd"):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(blob)), "zstd")
    with blob.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    stream = gzip.open(blob) if compressed else blob.open("rb")  # noqa: SIM115
    return cast("IO[bytes]", stream)


def unpack_layer(stream: IO[bytes], root: Path, limits: _Limits | None = None) -> None:
    """Unpack one uncompressed layer over what is already in the root.

    Raises:
        ValueError: A member would leave the root, or the bounds are reached.
    """
    limits = limits or _Limits()
    created: set[Path] = set()
    with tarfile.open(fileobj=stream, mode="r|") as layer:
        for member in layer:
            limits.take(member.size if member.isreg() else 0)
            parts = _parts(member.name)
            if parts:
                _apply(layer, member, root, parts, created)


def _apply(
    layer: tarfile.TarFile,
    member: tarfile.TarInfo,
    root: Path,
    parts: list[str],
    created: set[Path],
) -> None:
    parent = _resolve(root, parts[:-1])
    parent.mkdir(parents=True, exist_ok=True)
    name = parts[-1]
    if name == ".wh..wh..opq":
        for child in parent.iterdir():
            if not _has_created(child, created):
                _remove(child)
        return
    if name.startswith(".wh."):
        _remove(parent / name[4:])
        return
    path = parent / name
    created.add(path)
    if member.isdir():
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            _remove(path)
        path.mkdir(exist_ok=True)
        path.chmod((member.mode & 0o777) | 0o700)
    elif member.issym():
        _remove(path)
        path.symlink_to(member.linkname)
    elif member.islnk():
        _hard_link(root, member, path)
    elif member.isreg():
        _remove(path)
        _write_file(layer, member, path)


def _hard_link(root: Path, member: tarfile.TarInfo, path: Path) -> None:
    target_parts = _parts(member.linkname)
    if not target_parts:
        raise ValueError(f"hard link to nothing: {member.name!r}")
    target = _resolve(root, target_parts[:-1]) / target_parts[-1]
    if target == path:
        return
    if not stat.S_ISREG(os.lstat(target).st_mode):
        raise ValueError(f"hard link to something that is no file: {member.name!r}")
    _remove(path)
    os.link(target, path, follow_symlinks=False)


def _write_file(layer: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = layer.extractfile(member)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, (member.mode & 0o777) | 0o600), "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target, 2**20)
        os.fchmod(target.fileno(), (member.mode & 0o777) | 0o400)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\x00" in name:
        raise ValueError(f"member leaves the image: {name!r}")
    return parts


def _resolve(root: Path, parts: list[str]) -> Path:
    """Follow the root's own symbolic links, with the root as `/`, so that nothing leaves it."""
    pending, done, hops = list(reversed(parts)), [], 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        path = root.joinpath(*done, part)
        if path.is_symlink():
            hops += 1
            if hops > 40:
                raise ValueError(f"too many symbolic links at {'/'.join(parts)!r}")
            target = path.readlink().as_posix()
            if target.startswith("/"):
                done = []
            pending.extend(reversed(target.split("/")))
            continue
        if path.exists() and not path.is_dir():
            path.unlink()
        done.append(part)
    return root.joinpath(*done)


def _plain_name(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _has_created(path: Path, created: set[Path]) -> bool:
    return path in created or any(path in other.parents for other in created)


def _remove(path: Path) -> None:
    if path.name in ("", ".", ".."):
        raise ValueError("a whiteout names no file")
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
