"""Where the files of an attempt are on the stage.

Context and messages have a directory of the attempt's own. The archived log is a file beside the
output directory, named after the attempt: not inside it, where it would change the manifest and
the data version, and not named after the directory, which an attempt that continues another one
shares with it.
"""

from collections.abc import Mapping
from typing import Any

from monad_dagster.errors import ConfigError
from monad_dagster.pipes.naming import attempt_name
from monad_dagster.spcs.identifiers import QualifiedName, StagePath

RUNS_DIRECTORY = "runs"
LOG_FILE = "log.txt"
LOG_SUFFIX = ".log"
# The label of a job service that says where its log is archived.
LOG_LABEL = "log_path"


def run_directory(root: StagePath, name: QualifiedName) -> StagePath:
    """Return the stage directory of an attempt's context and messages.

    Args:
        root: Root of the stage.
        name: The attempt's job service.
    """
    return root / RUNS_DIRECTORY / attempt_name(name.name)


def log_path(root: StagePath, name: QualifiedName, output_path: str | None) -> StagePath:
    """Return where an attempt's log is archived.

    Args:
        root: Root of the stage.
        name: The attempt's job service.
        output_path: Directory below the stage that holds the output directories, if any.
    """
    if not output_path:
        return run_directory(root, name) / LOG_FILE
    return root / output_path / f"{attempt_name(name.name)}{LOG_SUFFIX}"


def labelled_log_path(root: StagePath, name: QualifiedName, labels: Mapping[str, Any]) -> StagePath:
    """Return where a job service's labels say its log is; without a label, its run directory."""
    try:
        return StagePath.parse(str(labels[LOG_LABEL]))
    except (KeyError, ConfigError):
        return log_path(root, name, None)
