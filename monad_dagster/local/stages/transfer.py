"""PUT and GET: the commands that tell a client where to move bytes.

Connector 4.x on the same machine reads and writes the stage's directory itself (LOCAL_FS).
Connector 5.x speaks only cloud protocols and talks to `blobs.py` as if it were GCS.
"""

import glob
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.faults import faults_disk
from monad_dagster.local.sql.statements import Statement
from monad_dagster.local.stages.stage_store import StagedFile

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_BLOB_MAJOR = 5  # from this connector version on, bytes go through blobs.py
_DISCARD_SECONDS = 3600
# What connectors recognise as compressed and do not compress again.
_COMPRESSED = frozenset({".gz", ".bz2", ".br", ".zst", ".deflate", ".raw_deflate", ".lzma", ".xz",
                         ".parquet", ".orc"})  # fmt: skip
_THRESHOLD_BYTES = 200 * 1024 * 1024


def upload(
    session: "Session",
    statement: Statement,
    found: CatalogObject,
    path: str,
    source: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the UPLOAD command."""
    target = session.account.stages.resolve(found.database, found.schema, found.name, path)
    overwrite = _flag(options.get("OVERWRITE"), False)
    sources = [source]
    if not overwrite and _major(session.client_version) < _BLOB_MAJOR:
        sources, target = _without_staged(session, source, target, options)
    info = _stage_info(session, found, target, write=True)
    if info["locationType"] == "LOCAL_FS":
        uploads = session.account.extensions["local_uploads"]
        info["location"] = str(uploads.start(session, found, target, sources))
    stage = (found.database, found.schema, found.name)
    if info["locationType"] == "LOCAL_FS" and faults_disk.is_full(
        session.account.faults, statement.query_id, stage, statement=statement.text,
        user=session.user,
    ):  # fmt: skip
        info["location"] = str(session.account.extensions["full_disk"].path())
    return {
        "command": "UPLOAD",
        "operation": "Node",
        "src_locations": sources,
        "parallel": int(options.get("PARALLEL", 4)),
        "threshold": int(options.get("THRESHOLD", _THRESHOLD_BYTES)),
        "autoCompress": _flag(options.get("AUTO_COMPRESS"), True),
        "overwrite": overwrite,
        "sourceCompression": str(options.get("SOURCE_COMPRESSION", "auto_detect")).lower(),
        "stageInfo": info,
        "encryptionMaterial": None,
        "uploadInfo": None,
        "sqlText": statement.text,
        "queryId": statement.query_id,
        "rowtype": [],
        "rowset": [],
        "total": 0,
        "returned": 0,
    }


def _without_staged(
    session: "Session", source: str, target: Path, options: dict[str, Any]
) -> tuple[list[str], Path]:
    """Return the sources that are not staged yet, and where a client may write them.

    Connector 4.x overwrites whatever it finds below LOCAL_FS, so what is staged must be kept from
    it. Deviations: it says UPLOADED, or nothing, where Snowflake lets it say SKIPPED; and a
    relative path with wildcards, which only the client can expand, overwrites.
    """
    compress = _flag(options.get("AUTO_COMPRESS"), True)

    def is_staged(name: str) -> bool:
        names = {name, name if _is_compressed(name) or not compress else f"{name}.gz"}
        return any((target / candidate).is_file() for candidate in names)

    if not set(source) & set("*?["):
        if not is_staged(Path(source).name):
            return [source], target
        return [source], _discarded(session)
    found = sorted(glob.glob(source))  # noqa: PTH207 - the whole path may hold wildcards
    matching = [path for path in found if Path(path).is_file()]
    fresh = [path for path in matching if not is_staged(Path(path).name)]
    if not matching or len(fresh) == len(matching):
        return [source], target
    return (fresh, target) if fresh else ([source], _discarded(session))


def _is_compressed(name: str) -> bool:
    return Path(name).suffix.lower() in _COMPRESSED


def _discarded(session: "Session") -> Path:
    """Return a directory for bytes that nobody will read; earlier ones are removed."""
    base = session.account.state_dir / "scratch" / "discarded"
    base.mkdir(parents=True, exist_ok=True)
    for old in base.iterdir():
        if time.time() - old.stat().st_mtime > _DISCARD_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    path = base / uuid.uuid4().hex
    path.mkdir()
    return path


def download(
    session: "Session",
    statement: Statement,
    found: CatalogObject,
    files: list[StagedFile],
    target: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the DOWNLOAD command."""
    base = session.account.stages.directory(found.database, found.schema, found.name)
    return {
        "command": "DOWNLOAD",
        "operation": "Node",
        "src_locations": [file.path for file in files],
        "localLocation": target,
        "parallel": int(options.get("PARALLEL", 10)),
        "threshold": _THRESHOLD_BYTES,
        "stageInfo": _stage_info(session, found, base, write=False),
        "encryptionMaterial": [],
        "presignedUrls": [],
        "sqlText": statement.text,
        "queryId": statement.query_id,
        "rowtype": [],
        "rowset": [],
        "total": 0,
        "returned": 0,
    }


def _stage_info(
    session: "Session", found: CatalogObject, directory: Path, *, write: bool
) -> dict[str, Any]:
    if _major(session.client_version) >= _BLOB_MAJOR:
        return _blob_info(session, found, directory, write=write)
    directory.mkdir(parents=True, exist_ok=True)
    return {
        "locationType": "LOCAL_FS",
        "location": str(directory),
        "path": "",
        "region": "local",
        "storageAccount": None,
        "isClientSideEncrypted": False,
        "creds": {},
        "presignedUrl": None,
        "endPoint": None,
    }


def _blob_info(
    session: "Session", found: CatalogObject, directory: Path, *, write: bool
) -> dict[str, Any]:
    account = session.account
    host, port = account.address
    stage = (found.database, found.schema, found.name)
    inside = directory.relative_to(account.stages.directory(*stage)).as_posix()
    relative = "/".join([*stage, *([] if inside == "." else [inside])])
    token = account.extensions["blobs"].issue(stage, write=write)
    return {
        "locationType": "GCS",
        "location": f"stages/{relative}/",
        "path": f"{relative}/",
        "region": "local",
        "storageAccount": None,
        "isClientSideEncrypted": False,
        "creds": {"GCS_ACCESS_TOKEN": token},
        "presignedUrl": None,
        "endPoint": f"{account.protocol}://{host}:{port}/monad/blob",
    }


def _major(version: str) -> int:
    head = version.split(".", maxsplit=1)[0]
    return int(head) if head.isdigit() else 4


def _flag(value: Any, default: bool) -> bool:
    if value is None:
        return default
    return value if isinstance(value, bool) else str(value).upper() == "TRUE"
