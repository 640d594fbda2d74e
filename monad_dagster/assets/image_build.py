"""Build the job image as an OCI layout, byte for byte the same for the same build context.

The layer holds the engine and the scripts, never scenarios or configs. Without a container engine
this layout is what gets pushed; with one, `container/Dockerfile` builds the full image instead.
OCI image specification 1.1: https://github.com/opencontainers/image-spec
"""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from monad_dagster.errors import ConfigError, problem

ENGINE_PREFIX = "opt/monad/engine"
SCRIPTS_PREFIX = "opt/monad/scripts"
_SKIPPED_DIRS = {"__pycache__", ".pytest_cache", ".ruff_cache"}
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
# Images carry a fixed date: a build at another time must give the same digest.
_EPOCH = "1980-01-01T00:00:00Z"


@dataclass(frozen=True)
class BuildContext:
    """The files an image is made of.

    Attributes:
        files: Path inside the image (without leading slash) to path on this machine.
        digest: sha256 over names and contents; the image's code version.
    """

    files: tuple[tuple[str, Path], ...]
    digest: str


@dataclass(frozen=True)
class OciLayout:
    """A built layout folder and the digest of its manifest."""

    directory: Path
    manifest_digest: str


def read_build_context(container_dir: Path, *, base_image: str | None = None) -> BuildContext:
    """Collect engine, scripts and Dockerfile of *container_dir*.

    Raises:
        ConfigError: The folder holds no engine or no scripts.
    """
    roots = [(container_dir / "engine" / "monad", f"{ENGINE_PREFIX}/monad")]
    if base_image:
        roots = []  # a licensed image brings its own monad package
    roots.append((container_dir / "scripts", SCRIPTS_PREFIX))
    files: list[tuple[str, Path]] = []
    for root, prefix in roots:
        found = sorted(_source_files(root)) if root.is_dir() else []
        if not found:
            raise ConfigError(
                problem(
                    "The build context is incomplete",
                    f"{root} is missing or empty",
                    "Set MONAD_CONTAINER_DIR, or run: monad-dagster init DIR",
                )
            )
        files += [(f"{prefix}/{path.relative_to(root).as_posix()}", path) for path in found]
    digest = hashlib.sha256((base_image or "").encode())
    recipe = [container_dir / "Dockerfile", container_dir / "engine" / "pyproject.toml"]
    for name, path in [*files, *((p.name, p) for p in recipe if p.is_file())]:
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return BuildContext(tuple(files), digest.hexdigest())


def write_oci_layout(context: BuildContext, directory: Path, *, tag: str) -> OciLayout:
    """Write *context* as a single-layer linux/amd64 image into *directory*."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    tar_bytes = _layer_tar(context)
    layer = gzip.compress(tar_bytes, compresslevel=6, mtime=0)
    config = _json_bytes(_image_config(hashlib.sha256(tar_bytes).hexdigest()))
    manifest = _json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, config),
            "layers": [_descriptor(_LAYER_TYPE, layer)],
            "annotations": {"org.opencontainers.image.revision": context.digest},
        }
    )
    for blob in (layer, config, manifest):
        (blobs / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    reference = _descriptor(_MANIFEST_TYPE, manifest)
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX_TYPE,
        "manifests": [{**reference, "annotations": {"org.opencontainers.image.ref.name": tag}}],
    }
    (directory / "index.json").write_bytes(_json_bytes(index))
    (directory / "oci-layout").write_bytes(_json_bytes({"imageLayoutVersion": "1.0.0"}))
    return OciLayout(directory, str(reference["digest"]))


def _source_files(root: Path) -> list[Path]:
    """List the regular files below *root* that belong in an image."""
    return [
        path
        for path in root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not _SKIPPED_DIRS & set(path.relative_to(root).parts)
        and path.suffix not in {".pyc", ".pyo"}
    ]


def _layer_tar(context: BuildContext) -> bytes:
    """Pack the files with fixed owner, mode and time."""
    buffer = io.BytesIO()
    directories: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in context.files:
            parents = [str(parent) for parent in reversed(Path(name).parents)][1:]
            for parent in parents:
                if parent not in directories:
                    directories.add(parent)
                    entry = tarfile.TarInfo(parent)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _image_config(diff_id: str) -> dict[str, object]:
    """Return the image configuration of the open engine's image."""
    return {
        "created": _EPOCH,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": [f"PYTHONPATH=/{ENGINE_PREFIX}", "PYTHONUNBUFFERED=1"],
            "Entrypoint": ["python"],
            "WorkingDir": "/opt/monad",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": _EPOCH, "created_by": "monad-dagster image asset"}],
    }


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    digest = hashlib.sha256(blob).hexdigest()
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(blob)}


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
