"""Write artefacts the way a stage mount needs it.

Files are made on local scratch and then copied, each in one sequential pass; the manifest
`lineage.json` is copied last. Nothing is appended, renamed or rewritten on the output directory.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monad import ENGINE_NAME, __version__
from monad.config import environment
from monad.errors import CheckpointError, problem

MANIFEST = "lineage.json"
_BLOCK = 4 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEAST_FREE = 64 * 1024


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Provide a directory on local scratch that is removed afterwards.

    Raises:
        CheckpointError: Scratch became full while it was in use.
    """
    path = Path(tempfile.mkdtemp(prefix="monad-out-", dir=environment.scratch_root()))
    try:
        yield path
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        free = shutil.disk_usage(path).free
        if getattr(error, "errno", None) not in _FULL and free >= _LEAST_FREE:
            raise
        raise CheckpointError(
            problem(
                "Local scratch is full",
                f"{error}; {free} bytes free",
                "Free space, or set MONAD_SCRATCH_DIR to a larger disk; nothing was written to the"
                " output",
                f"See {path.parent}",
            )
        ) from error
    finally:
        shutil.rmtree(path, ignore_errors=True)


def prepare_output(output: Path, resume: bool, overwrite: bool) -> bool:
    """Check the output directory before any work; returns True when it is already complete.

    Raises:
        CheckpointError: It holds files and neither resume nor overwrite was asked for.
    """
    if resume and overwrite:
        raise CheckpointError(problem("resume and overwrite are mutually exclusive"))
    check_writable(output)
    if not output.exists() or not any(output.iterdir()):
        return False
    if overwrite:
        for entry in output.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return False
    if resume:
        return (output / MANIFEST).is_file()
    raise CheckpointError(
        problem(
            f"The output directory {output} is not empty",
            f"it holds {', '.join(sorted(e.name for e in output.iterdir())[:4])}",
            "Choose another directory, or ask for resume or overwrite",
        )
    )


def check_writable(directory: Path) -> None:
    """Check before any work that a directory is there and writable, or can be made.

    Raises:
        CheckpointError: It is not.
    """
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    raise CheckpointError(
        problem(
            f"The output directory {directory} cannot be written",
            f"{nearest} is {'not writable' if nearest.is_dir() else 'not a directory'}",
            "Choose another directory",
        )
    )


def publish(
    source: Path, output: Path, manifest: dict[str, Any], name_of_manifest: str = MANIFEST
) -> dict[str, Any]:
    """Copy every file below *source* to *output*, then write the manifest there."""
    entries = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        if name == MANIFEST:
            continue
        digest, size = copy_once(path, output / name)
        entries.append({"path": name, "size": size, "sha256": digest})
    lines = "".join(f"{entry['path']}\0{entry['sha256']}\n" for entry in entries)
    made = {
        "format": 1,
        "kind": manifest["kind"],
        "engine": {"name": ENGINE_NAME, "version": __version__},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": environment.lineage_inputs(),
        "config": manifest.get("config", {}),
        "source_tables": manifest.get("source_tables", []),
        "files": entries,
        "data_version": hashlib.sha256(lines.encode()).hexdigest(),
        "metrics": {k: v for k, v in manifest.get("metrics", {}).items() if math.isfinite(v)},
    }
    text = json.dumps(made, indent=2, sort_keys=True, default=str)
    with _reported(output / name_of_manifest, len(text.encode())):
        _write_once(output / name_of_manifest, text.encode())
    return made


def file_digest(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256 and size, in one sequential read."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as reading:
        while block := reading.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def copy_once(path: Path, target: Path) -> tuple[str, int]:
    """Copy one file front to back; returns its digest and size."""
    digest, size = hashlib.sha256(), 0
    with _reported(target, path.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as reading, target.open("wb") as writing:
            while block := reading.read(_BLOCK):
                digest.update(block)
                writing.write(block)
                size += len(block)
            writing.flush()
            os.fsync(writing.fileno())
    return digest.hexdigest(), size


def _write_once(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


@contextmanager
def _reported(target: Path, size: int) -> Iterator[None]:
    """Turn an operating system error of writing *target* into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            problem(
                f"{target} could not be written",
                f"{error.strerror or error}; the file has {size} bytes",
                "Free space or choose another directory, then run again with overwrite; earlier"
                " artefacts are untouched",
                f"{target.parent} may hold part of the result; without {MANIFEST} it is not used",
            )
        ) from error
