"""What is staged beside a script so that it can report to Dagster from any image with Python.

Two files of the standard library only: `job_support.py`, and the module `dagster_pipes` for images
that lack it.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster_pipes

from monad_dagster.errors import ConfigError, problem

_PACKAGE = Path(__file__).resolve().parents[1]
# The folder of the checkout, or the one that is packed into the wheel.
_PLACES = (_PACKAGE.parent / "container" / "scripts", _PACKAGE / "_container" / "scripts")


def helper_files() -> dict[str, Path]:
    """Return the helpers by the name they have on the stage."""
    support = next(p / "job_support.py" for p in _PLACES if (p / "job_support.py").is_file())
    return {"job_support.py": support, "dagster_pipes.py": Path(str(dagster_pipes.__file__))}


def script_files(directory: Path) -> Mapping[str, Path]:
    """Return the files of a folder by relative path, and the helpers beside them.

    Raises:
        ConfigError: The folder does not exist or holds no file.
    """
    found = {
        path.relative_to(directory).as_posix(): path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not _is_private(path.relative_to(directory))
    }
    if not found:
        raise ConfigError(
            problem(
                f"Folder {directory} holds no file to upload",
                "It is empty" if directory.is_dir() else "It does not exist",
                "Give the folder of the job service's scripts",
            )
        )
    return {**helper_files(), **found}


def _is_private(path: Path) -> bool:
    """Whether a file is hidden or a cache: neither secrets of a .env nor .git are uploaded."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)
