"""Stage files on disk: plain directories, one for each stage, safe against path tricks.

Layout: DIR/stages/<DB>/<SCHEMA>/<STAGE>/<path>. Names that are not plain are percent-encoded.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from monad_dagster.local import errors

INCOMING = ".incoming"  # beside the databases: what clients are still writing


@dataclass(frozen=True)
class StagedFile:
    """One file of a stage; `path` is relative to the stage."""

    path: str
    location: Path
    size_bytes: int
    modified: float


class StageStore:
    """The files of every stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self._digests: dict[tuple[str, int, int], str] = {}

    def directory(self, database: str, schema: str, stage: str) -> Path:
        """Return a stage's directory, creating it."""
        path = self.root.joinpath(*(_encode(part) for part in (database, schema, stage)))
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
        return path

    def resolve(self, database: str, schema: str, stage: str, relative: str) -> Path:
        """Return the place of a stage path; it never leaves the stage.

        Raises:
            StatementError: The path has `..` or a link that leads out of the stage.
        """
        base = self.directory(database, schema, stage)
        parts = [part for part in relative.split("/") if part not in {"", "."}]
        if ".." in parts or "\0" in relative:
            raise errors.StatementError(1003, "42000", f"Invalid stage path '{relative}'.")
        path = base.joinpath(*parts)
        place = path.resolve()
        if not (place.is_relative_to(base) or place.is_relative_to(base.resolve())):
            raise errors.StatementError(1003, "42000", f"Invalid stage path '{relative}'.")
        return path

    def files(
        self, database: str, schema: str, stage: str, prefix: str = "", pattern: str | None = None
    ) -> Iterator[StagedFile]:
        """Yield files whose path starts with *prefix* (text, not directory), by name."""
        base = self.directory(database, schema, stage)
        regex = _compile(pattern)
        for location in sorted(base.rglob("*")):
            if location.is_symlink() or not location.is_file():
                continue
            path = location.relative_to(base).as_posix()
            if not path.startswith(prefix) or location.name.startswith(".monad-"):
                continue
            if regex is not None and not regex.fullmatch(path):
                continue
            try:
                facts = location.stat()
            except FileNotFoundError:
                continue
            yield StagedFile(path, location, facts.st_size, facts.st_mtime)

    def md5(self, file: StagedFile) -> str:
        """Return a file's MD5, remembered until the file changes."""
        facts = file.location.stat()
        key = (str(file.location), facts.st_mtime_ns, facts.st_size)
        if key not in self._digests:
            with file.location.open("rb") as stream:
                self._digests[key] = hashlib.file_digest(stream, "md5").hexdigest()
        return self._digests[key]

    def remove(self, database: str, schema: str, stage: str, file: StagedFile) -> None:
        """Delete a file and the directories that become empty."""
        base = self.directory(database, schema, stage)
        file.location.unlink(missing_ok=True)
        for parent in file.location.parents:
            if parent == base or not parent.is_relative_to(base):
                return
            try:
                parent.rmdir()
            except OSError:
                return

    def keep_only(self, stages: Iterable[tuple[str, str, str]]) -> None:
        """Delete every directory that belongs to none of *stages* (database, schema, name)."""
        kept = {self.root.joinpath(*map(_encode, stage)) for stage in stages}
        for path in self.root.glob("*/*/*"):
            if path not in kept and path.parts[-3] != INCOMING:
                shutil.rmtree(path, ignore_errors=True)

    def drop(self, database: str, schema: str | None = None, stage: str | None = None) -> None:
        """Delete a stage, or every stage of a schema or database."""
        parts = [part for part in (database, schema, stage) if part is not None]
        shutil.rmtree(self.root.joinpath(*map(_encode, parts)), ignore_errors=True)


def _encode(name: str) -> str:
    encoded = quote(name, safe="$-_ ")
    return encoded.replace(".", "%2E") if set(encoded) <= {"."} else encoded


def _compile(pattern: str | None) -> "re.Pattern[str] | None":
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error:
        raise errors.compilation_error(
            2064, "22023", f"Invalid regular expression: '{pattern}'"
        ) from None
