"""A container image built without a container engine: one layer, reproducible, in OCI layout.

The same files give the same digest on any machine: names are sorted, owners and times are zero.
The result has no operating system below it; it serves where the runner brings the interpreter,
as the local account does, and as a layer to inspect. Follows the OCI image specification.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from monad_dagster.errors import ImageError, problem

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SKIPPED_NAMES = frozenset({"__pycache__", ".git", ".pytest_cache", ".ruff_cache", ".mypy_cache"})


@dataclass(frozen=True)
class ImageConfig:
    """What the image says about running it.

    Attributes:
        env: Environment variables.
        working_dir: Directory the container starts in.
        entrypoint: Its entry point.
        command: Its default command.
        labels: Annotations of the image.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def files_below(directory: Path, image_path: str) -> dict[str, Path]:
    """Map every file below *directory* to its place below *image_path*.

    Raises:
        ImageError: The directory does not exist or is empty.
    """
    found = {
        str(PurePosixPath(image_path) / path.relative_to(directory).as_posix()): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not _is_skipped(path.relative_to(directory))
    }
    if not found:
        raise ImageError(
            problem(f"Directory {directory} has no files for the image", "", "Check container_dir")
        )
    return found


def build_layout(target: Path, files: Mapping[str, Path], config: ImageConfig) -> str:
    """Write an image with *files* as OCI layout into *target* and return its digest.

    Args:
        target: Directory for `index.json` and `blobs`; created when absent.
        files: Absolute path in the image to local file.
        config: What the image says about running it.
    """
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    archive = _archive(files)
    layer = gzip.compress(archive, mtime=0)
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    config_descriptor = _write_blob(blobs, _json(_config_document(config, diff_id)), CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_descriptor,
        "layers": [_write_blob(blobs, layer, LAYER)],
    }
    descriptor = _write_blob(blobs, _json(manifest), MANIFEST)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}
    (target / "index.json").write_bytes(_json(index))
    (target / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(descriptor["digest"])


def _archive(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in _directories(files):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in sorted(files):
            content = files[name].read_bytes()
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size = len(content)
            entry.mode = 0o755 if files[name].stat().st_mode & 0o100 else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _directories(files: Iterable[str]) -> list[str]:
    found = {
        str(parent)
        for name in files
        for parent in PurePosixPath(name.lstrip("/")).parents
        if str(parent) != "."
    }
    return sorted(found)


def _config_document(config: ImageConfig, diff_id: str) -> dict[str, Any]:
    runtime: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in sorted(config.env.items())],
        "WorkingDir": config.working_dir,
        "Labels": dict(sorted(config.labels.items())),
    }
    if config.entrypoint:
        runtime["Entrypoint"] = list(config.entrypoint)
    if config.command:
        runtime["Cmd"] = list(config.command)
    # Snowflake runs linux/amd64 only.
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": runtime,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }


def _write_blob(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    value = hashlib.sha256(content).hexdigest()
    (blobs / value).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{value}", "size": len(content)}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _is_skipped(relative: Path) -> bool:
    return bool(SKIPPED_NAMES & set(relative.parts)) or relative.suffix in {".pyc", ".pyo"}
