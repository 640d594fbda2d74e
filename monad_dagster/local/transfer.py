"""PUT and GET: the commands that tell a client where to move bytes.

Connector 4.x on the same machine reads and writes the stage's directory itself (LOCAL_FS).
Connector 5.x speaks only cloud protocols and talks to `blobs.py` as if it were GCS.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local import faults_disk
from monad_dagster.local.catalog import CatalogObject
from monad_dagster.local.stage_store import StagedFile
from monad_dagster.local.statements import Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

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
    info = _stage_info(session, found, target, write=True)
    stage = (found.database, found.schema, found.name)
    if info["locationType"] == "LOCAL_FS" and faults_disk.is_full(
        session.account.faults, statement.query_id, stage, statement=statement.text,
        user=session.user,
    ):  # fmt: skip
        info["location"] = str(session.account.extensions["full_disk"].path())
    return {
        "command": "UPLOAD",
        "operation": "Node",
        "src_locations": [source],
        "parallel": int(options.get("PARALLEL", 4)),
        "threshold": int(options.get("THRESHOLD", _THRESHOLD_BYTES)),
        "autoCompress": _flag(options.get("AUTO_COMPRESS"), True),
        "overwrite": _flag(options.get("OVERWRITE"), False),
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
    if _major(session.client_version) >= 5:
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
        "endPoint": f"http://{host}:{port}/monad/blob",
    }


def _major(version: str) -> int:
    head = version.split(".", maxsplit=1)[0]
    return int(head) if head.isdigit() else 4


def _flag(value: Any, default: bool) -> bool:
    if value is None:
        return default
    return value if isinstance(value, bool) else str(value).upper() == "TRUE"
