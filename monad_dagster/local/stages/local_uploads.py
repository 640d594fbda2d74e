"""Uploads of connector 4.x, which writes into local stages by itself: seen when complete.

The connector makes a file of the full size and fills it piece by piece, so an upload that is killed
or meets a full disk leaves a file with holes. A PUT therefore gets a directory of its own, and
each file moves to the stage once no hole is left in it: before the next statement of anyone, and
by a watcher for those who read the stage through a mount. What never becomes complete stays unseen
and is removed when its session has ended. Where the file system does not tell holes from zeros
(probed once), the connector writes into the stage as before.
"""

import contextlib
import errno
import glob
import json
import logging
import os
import shutil
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.stages.stage_store import INCOMING

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.catalog.catalog import CatalogObject
    from monad_dagster.local.session import Session

logger = logging.getLogger("monad_dagster.local")

FORGOTTEN_SECONDS = 3600.0  # without a change, an upload of a lost client is over
_BUSY_SECONDS, _QUIET_SECONDS = 0.02, 0.5
_REOPENED_SECONDS = 60.0  # a client opens an empty file once more, to write nothing
_EMPTY_SECONDS = 0.2  # from making a file to giving it its size takes less
_PROBE_BYTES = 256 * 1024
_RECORD = "upload.json"


@dataclass
class _Upload:
    folder: Path
    stage: tuple[str, str, str]
    stage_id: int
    target: str  # below the stage
    sources: list[str]
    session: int | None
    left: int | None  # how many files are still to come, where that is known
    changed: float = field(default_factory=time.monotonic)
    empty: set[str] = field(default_factory=set)  # copied and not moved: they are opened again

    @property
    def files(self) -> Path:
        return self.folder / "files"


def install(account: "Account") -> None:
    """Give the account its uploads, those of an earlier process too."""
    uploads = LocalUploads(account)
    account.extensions["local_uploads"] = uploads
    account.on_close(uploads.close)


class LocalUploads:
    """Files that clients on this machine are writing."""

    def __init__(self, account: "Account") -> None:
        self._account = account
        self._root = account.stages.root / INCOMING
        self._root.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._open: dict[Path, _Upload] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._watcher: threading.Thread | None = None
        self.is_possible = _tells_holes(self._root)
        for record in self._root.glob(f"*/{_RECORD}"):
            self._take_over(record)
        self.settle()

    def start(
        self, session: "Session", stage: "CatalogObject", target: Path, sources: list[str]
    ) -> Path:
        """Return the directory that a client may write its files to, for one PUT."""
        base = self._account.stages.directory(stage.database, stage.schema, stage.name)
        if not self.is_possible or not target.is_relative_to(base):
            return target
        folder = self._root / uuid.uuid4().hex
        (folder / "files").mkdir(parents=True)
        relative = target.relative_to(base).as_posix()
        found = [path for source in sources for path in glob.glob(source)]  # noqa: PTH207
        upload = _Upload(
            folder, (stage.database, stage.schema, stage.name), stage.id, relative, sources,
            session.id, len(found) or None,
        )  # fmt: skip
        _write_record(upload)
        with self._lock:
            self._open[folder] = upload
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="uploads", daemon=True)
                self._watcher.start()
        self._wake.set()
        return upload.files

    def settle(self) -> None:
        """Move every complete file to its stage."""
        if not self._open:
            return
        with self._lock:
            for upload in list(self._open.values()):
                try:
                    self._settle(upload)
                except OSError as error:
                    logger.warning("upload to stage %s: %s", ".".join(upload.stage), error)

    def session_ended(self, session_id: int) -> None:
        """Remove what a session's uploads left unfinished."""
        self.settle()
        with self._lock:
            for upload in [u for u in self._open.values() if u.session == session_id]:
                self._forget(upload)

    def close(self) -> None:
        """Stop watching; files stay where they are."""
        self._stop.set()
        self._wake.set()
        if self._watcher is not None:
            self._watcher.join(timeout=5)

    def _take_over(self, record: Path) -> None:
        try:
            facts = json.loads(record.read_text())
        except ValueError:  # killed while it was written: no client had the directory yet
            shutil.rmtree(record.parent, ignore_errors=True)
            return
        self._open[record.parent] = _Upload(
            record.parent, tuple(facts["stage"]), facts["stage_id"], facts["target"],
            facts["sources"], None, None, empty=set(facts["empty"]),
        )  # fmt: skip

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.settle()
            with self._lock:
                newest = max((upload.changed for upload in self._open.values()), default=None)
            if newest is None:
                self._wake.wait()
            else:
                is_busy = time.monotonic() - newest < 2
                self._wake.wait(_BUSY_SECONDS if is_busy else _QUIET_SECONDS)
            self._wake.clear()

    def _settle(self, upload: _Upload) -> None:
        for path in sorted(upload.files.iterdir()):
            if self._is_complete(upload, path):
                self._move(upload, path)
                upload.changed = time.monotonic()
                upload.left = None if upload.left is None else upload.left - 1
        idle = time.monotonic() - upload.changed
        is_over = upload.left == 0 and (not upload.empty or idle > _REOPENED_SECONDS)
        if is_over or idle > FORGOTTEN_SECONDS:
            self._forget(upload)

    def _is_complete(self, upload: _Upload, path: Path) -> bool:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_size:
                return os.lseek(file.fileno(), 0, os.SEEK_HOLE) == facts.st_size
        if path.name in upload.empty:
            return False
        if time.time() - facts.st_mtime > _EMPTY_SECONDS:
            return True
        sources = [Path(source).parent / path.name for source in upload.sources]
        return any(source.exists() and not source.stat().st_size for source in sources)

    def _move(self, upload: _Upload, path: Path) -> None:
        found = self._account.catalog.get("STAGE", upload.stage[2], *upload.stage[:2])
        if found is None or found.id != upload.stage_id:
            path.unlink()  # the stage was dropped meanwhile
            return
        place = self._account.stages.resolve(*upload.stage, upload.target) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not path.stat().st_size:
            place.write_bytes(b"")
            upload.empty.add(path.name)
            _write_record(upload)
            return
        try:
            path.replace(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = place.with_name(f".monad-{uuid.uuid4().hex}")
            shutil.copy2(path, copy)
            copy.replace(place)
            path.unlink()

    def _forget(self, upload: _Upload) -> None:
        self._open.pop(upload.folder, None)
        shutil.rmtree(upload.folder, ignore_errors=True)


def _write_record(upload: _Upload) -> None:
    """Keep what a restarted account must know of an upload."""
    facts: dict[str, Any] = {
        "stage": upload.stage, "stage_id": upload.stage_id, "target": upload.target,
        "sources": upload.sources, "empty": sorted(upload.empty),
    }  # fmt: skip
    temporary = upload.folder / f"{_RECORD}~"
    temporary.write_text(json.dumps(facts))
    temporary.replace(upload.folder / _RECORD)


def _tells_holes(folder: Path) -> bool:
    """Tell whether a file system knows which parts of a file were never written."""
    path = folder / f".probe-{uuid.uuid4().hex}"
    try:
        with path.open("wb+") as file:
            file.truncate(2 * _PROBE_BYTES)
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            half = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
            file.seek(_PROBE_BYTES)
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            whole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    except (OSError, AttributeError):
        return False
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return half == _PROBE_BYTES and whole == 2 * _PROBE_BYTES
