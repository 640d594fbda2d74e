"""Files on a stage: upload, download, list, remove, each answer checked row by row.

A PUT that succeeds as a statement may still have skipped a file, and a REMOVE without a trailing
slash takes its neighbours along; both are guarded here. Follows Snowflake's pages "PUT", "GET",
"LIST" and "REMOVE".
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monad_dagster.errors import ConnectionFailedError, SnowflakeError, StageError, problem
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.scratch import scratch_directory


@dataclass(frozen=True)
class StageFile:
    """One row of LIST.

    Attributes:
        path: Where the file is.
        size: Its size in bytes.
        md5: A change detector; not always the hash of the content.
        last_modified: As Snowflake writes it.
    """

    path: StagePath
    size: int
    md5: str = ""
    last_modified: str = ""


class StageClient:
    """File operations on the stages of an account, over one session."""

    def __init__(self, session: Session) -> None:
        """Use *session* for every statement."""
        self._session = session

    def put_file(self, local_file: Path, target: StagePath) -> StageFile:
        """Upload *local_file* as exactly *target*, replacing what is there.

        Raises:
            StageError: The file does not exist, was not uploaded, or has another size there.
        """
        if not local_file.is_file():
            raise StageError(problem(f"File {local_file} does not exist; nothing was uploaded"))
        if local_file.name != target.file_name:
            with scratch_directory("put") as directory:
                renamed = directory / target.file_name
                renamed.symlink_to(local_file.resolve())
                return self._put(renamed, target)
        return self._put(local_file.resolve(), target)

    def _put(self, local_file: Path, target: StagePath) -> StageFile:
        try:
            rows = self._session.execute(sql.put(str(local_file), target.parent)).rows
        except ConnectionFailedError:
            raise
        except SnowflakeError as error:
            raise _not_uploaded(target, str(error)) from error
        size = local_file.stat().st_size
        uploaded = [row for row in rows if str(row.get("status", "")).upper() == "UPLOADED"]
        if len(rows) != 1 or len(uploaded) != 1:
            raise _not_uploaded(target, f"The answer was {_brief(rows)}")
        row = uploaded[0]
        name, stored = str(row.get("target", "")), row.get("target_size")
        if name != target.file_name or (stored is not None and int(stored) < size):
            raise _not_uploaded(target, f"It arrived as {name} with {stored} of {size} bytes")
        return StageFile(target, size)

    def put_text(self, text: str, target: StagePath) -> StageFile:
        """Upload *text* as the file *target*."""
        with scratch_directory("put") as directory:
            local = directory / target.file_name
            local.write_text(text, encoding="utf-8")
            return self._put(local, target)

    def put_json(self, value: Any, target: StagePath) -> StageFile:
        """Upload *value* as a JSON file."""
        return self.put_text(json.dumps(value, sort_keys=True, indent=1), target)

    def list(self, path: StagePath) -> "list[StageFile]":
        """List the files below *path*, sorted by path; empty when there is none."""
        rows = self._session.execute(sql.list_stage(path)).rows
        found = [_stage_file(path, row) for row in rows]
        return sorted((item for item in found if item is not None), key=lambda item: item.path)

    def get_file(self, source: StagePath, local_directory: Path) -> Path:
        """Download one file into *local_directory*.

        Raises:
            StageError: The file is not there or was not downloaded.
        """
        local_directory.mkdir(parents=True, exist_ok=True)
        try:
            rows = self._session.execute(sql.get(source, str(local_directory))).rows
        except ConnectionFailedError:
            raise
        except SnowflakeError as error:
            raise _not_downloaded(source, str(error)) from error
        local = local_directory / source.file_name
        if not _all_downloaded(rows) or not local.is_file():
            raise _not_downloaded(source, f"The answer was {_brief(rows)}")
        return local

    def get_files(
        self, directory: StagePath, names: Iterable[str], local_directory: Path
    ) -> "list[Path]":
        """Download the named files of one stage directory with one statement.

        Files that are not there are left out of the result.
        """
        wanted = list(names)
        local_directory.mkdir(parents=True, exist_ok=True)
        alternatives = "|".join(re.escape(name) for name in wanted)
        statement = sql.get(
            directory, str(local_directory), directory=True, pattern=f".*/({alternatives})"
        )
        rows = self._session.execute(statement).rows
        if not _all_downloaded(rows, required=False):
            raise StageError(
                problem(
                    f"Files of {directory} were not downloaded", f"The answer was {_brief(rows)}"
                )
            )
        return [local_directory / name for name in wanted if (local_directory / name).is_file()]

    def read_text(self, source: StagePath) -> str:
        """Read a small text file."""
        with scratch_directory("get") as directory:
            return self.get_file(source, directory).read_text(encoding="utf-8")

    def read_json(self, source: StagePath) -> Any:
        """Read a small JSON file."""
        return json.loads(self.read_text(source))

    def find(self, path: StagePath) -> StageFile | None:
        """Return exactly this file, None when it is not there."""
        rows = self._session.execute(sql.list_stage(path, directory=False)).rows
        found = (_stage_file(path, row) for row in rows)
        return next((item for item in found if item is not None and item.path == path), None)

    def exists(self, path: StagePath) -> bool:
        """Say whether exactly this file is there."""
        return self.find(path) is not None

    def find_named(self, root: StagePath, file_name: str) -> "list[StageFile]":
        """List every file of that name below *root*."""
        statement = sql.list_stage(root, pattern=f".*/{re.escape(file_name)}")
        found = (_stage_file(root, row) for row in self._session.execute(statement).rows)
        return [item for item in found if item is not None and item.path.file_name == file_name]

    def remove_directory(self, path: StagePath) -> int:
        """Remove every file below *path* and return how many there were.

        Raises:
            StageError: The path is the stage's root, which is never emptied.
        """
        if not path.path:
            raise StageError(problem(f"Stage {path} was not emptied", "A path is required"))
        return len(self._session.execute(sql.remove(path, directory=True)).rows)

    def remove_file(self, path: StagePath) -> None:
        """Remove one file; REMOVE matches prefixes, so nothing else may begin like it."""
        rows = self._session.execute(sql.list_stage(path, directory=False)).rows
        found = [item for row in rows if (item := _stage_file(path, row)) is not None]
        if any(item.path != path for item in found):
            raise StageError(
                problem(
                    f"Stage file {path} was not removed",
                    f"{len(found)} files begin with that name and REMOVE would take them all",
                    "Remove the directory, or rename the others",
                )
            )
        self._session.execute(sql.remove(path, directory=False))


def _stage_file(asked: StagePath, row: Mapping[str, Any]) -> StageFile | None:
    # LIST writes names as `<stage in lower case>/<path>`.
    name = str(row.get("name", ""))
    first, _, rest = name.partition("/")
    if first.lower() != asked.stage.name.lower() or not rest:
        return None
    return StageFile(
        path=StagePath(asked.stage, rest),
        size=int(row.get("size") or 0),
        md5=str(row.get("md5") or ""),
        last_modified=str(row.get("last_modified") or ""),
    )


def _all_downloaded(rows: "list[dict[str, Any]]", *, required: bool = True) -> bool:
    if not rows:
        return not required
    return all(str(row.get("status", "")).upper() == "DOWNLOADED" for row in rows)


def _not_uploaded(target: StagePath, observed: str) -> StageError:
    return StageError(
        problem(
            f"File was not uploaded to {target}",
            observed,
            "Check that the role may write the stage, then run again",
            f"See {sql.list_stage(target.parent)}",
        )
    )


def _not_downloaded(source: StagePath, observed: str) -> StageError:
    return StageError(
        problem(
            f"Stage file {source} was not downloaded",
            observed,
            "Check that the file exists and that the role may read the stage",
            f"See {sql.list_stage(source.parent)}",
        )
    )


def _brief(rows: "list[dict[str, Any]]") -> str:
    keys = ("source", "target", "file", "status", "message")
    return str([{key: row[key] for key in keys if key in row} for row in rows[:3]])
