"""Context for the container: a JSON file on the stage, read through the mount.

A file and not an environment variable: with partitions and provenance the context grows, and
anyone who may describe the job service would read it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import PipesContextInjector
from dagster_pipes import PipesContextData, PipesDefaultContextLoader, PipesParams

from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient

CONTEXT_FILE = "context.json"


class StageContextInjector(PipesContextInjector):
    """Write the context to the run directory of one job service."""

    def __init__(
        self, stage: StageClient, run_directory: StagePath, *, mounted: str, write: bool
    ) -> None:
        """Prepare the injection.

        Args:
            stage: Uploads the file.
            run_directory: Directory of the job service on the stage.
            mounted: The same directory as the container sees it.
            write: False when reattaching: the container has read its context already.
        """
        self._stage = stage
        self._path = run_directory / CONTEXT_FILE
        self._mounted = mounted
        self._write = write

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        """Upload the context and yield where the container finds it."""
        if self._write:
            document: dict[str, Any] = dict(context_data)
            self._stage.put_json(document, self._path)
        yield {PipesDefaultContextLoader.FILE_PATH_KEY: f"{self._mounted}/{CONTEXT_FILE}"}

    def no_messages_debug_text(self) -> str:
        """Say where the context was put."""
        return f"The context was written to {self._path}."
