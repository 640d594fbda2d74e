"""Messages of the container: immutable numbered files on the stage, read in order.

Unlike the stock reader, every pending chunk is taken at each look, one failed look loses nothing,
and a reader belongs to one session. Chunks are read from the first, so a process that reattaches
sees every message exactly once. Nothing runs in a thread: the wait loop calls `poll`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import PipesMessageHandler, PipesMessageReader
from dagster_pipes import PipesParams

from monad_dagster.errors import MonadDagsterError
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.scratch import scratch_directory
from monad_dagster.spcs.stage import StageClient

MESSAGES_DIRECTORY = "messages"
CLOSED = "closed"
# Our writer ends a chunk with an empty line: every shorter piece of it lacks that.
END_OF_CHUNK = b"\n\n"


class StageMessageReader(PipesMessageReader):
    """Read the chunk files of one job service."""

    def __init__(
        self,
        stage: StageClient,
        run_directory: StagePath,
        *,
        mounted: str,
        on_custom_message: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Prepare reading; nothing is read before `poll`.

        Args:
            stage: Lists and downloads the chunks.
            run_directory: Directory of the job service on the stage.
            mounted: The same directory as the container sees it.
            on_custom_message: Sees the payload of each custom message.
        """
        self._stage = stage
        self._directory = run_directory / MESSAGES_DIRECTORY
        self._mounted = f"{mounted}/{MESSAGES_DIRECTORY}"
        self._on_custom_message = on_custom_message
        self._handler: PipesMessageHandler | None = None
        self._next_index = 1
        self._last_sizes: dict[int, int] = {}
        # Chunks that were taken although nothing said that they were complete, with their sizes.
        self._trusted: dict[int, int] = {}
        self._held_back = ""
        self.closed = False
        self.closed_with_exception = False
        self.num_messages = 0
        self.problems: list[str] = []

    # Overridden as a plain property: the base class marks it as a preview and warns at each use.
    @property
    def expected_writer_count(self) -> int:
        """One writer: the leading process of the job service."""
        return 1

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Take messages for *handler* and yield where the container has to write them."""
        self._handler = handler
        yield {"path": self._mounted}

    @property
    def handler(self) -> PipesMessageHandler | None:
        """Whom the messages go to; None before the session is open."""
        return self._handler

    def no_messages_debug_text(self) -> str:
        """Say where messages were looked for."""
        return f"Messages were looked for in {self._directory}."

    def poll(self) -> int:
        """Handle every complete chunk that is there and return how many there were.

        Raises:
            MonadDagsterError: The stage could not be read; nothing is lost, look again.
        """
        sizes = self._list_chunks()
        self._check_trusted(sizes)
        pending = _consecutive(sizes, self._next_index)
        if not pending:
            return 0
        self._held_back = ""
        handled = 0
        with scratch_directory("messages") as directory:
            names = [f"{index}.json" for index in pending]
            files = {
                int(path.stem): path
                for path in self._stage.get_files(self._directory, names, directory)
            }
            for index in pending:
                if index not in files:
                    break
                lines = self._complete_lines(index, files[index], sizes)
                if lines is None:
                    break
                self._next_index = index + 1
                handled += 1
                for line in lines:
                    self._handle(line)
        self._last_sizes = sizes
        return handled

    @property
    def held_back(self) -> str:
        """Which chunk could not be taken at the last look and why; empty when none was."""
        return self._held_back

    def _list_chunks(self) -> dict[int, int]:
        sizes = {}
        for item in self._stage.list(self._directory):
            index = item.path.file_name.removesuffix(".json")
            # Only the names that a writer gives: 1.json, not 01.json or a file further below.
            if re.fullmatch("[1-9][0-9]*", index) and item.path.parent == self._directory:
                sizes[int(index)] = item.size
        return sizes

    def _check_trusted(self, sizes: Mapping[int, int]) -> None:
        for index, size in list(self._trusted.items()):
            if sizes.get(index, size) != size:
                self.problems.append(f"chunk {index}.json grew after it had been read")
                del self._trusted[index]

    def _complete_lines(self, index: int, file: Path, sizes: Mapping[int, int]) -> list[Any] | None:
        """Return the messages of a chunk, or None while it may still be growing."""
        body = file.read_bytes()
        followed = (index + 1) in sizes
        is_still = bool(body) and self._last_sizes.get(index) == sizes[index]
        if not (body.endswith(END_OF_CHUNK) or followed or is_still):
            self._held_back = f"chunk {index}.json is not complete ({len(body)} bytes)"
            return None
        try:
            lines = [json.loads(line) for line in body.decode().split("\n") if line.strip()]
            if not lines:
                raise ValueError("it is empty")
        except ValueError as error:
            if not followed:
                self._held_back = f"chunk {index}.json is not readable: {error}"
                return None
            self.problems.append(f"chunk {index}.json is not readable: {error}")
            return []
        if not body.endswith(END_OF_CHUNK):
            self._trusted[index] = sizes[index]
        return lines

    def _handle(self, message: Any) -> None:
        self.num_messages += 1
        if not isinstance(message, dict):
            self.problems.append(f"{str(message)[:40]!r} is not a message")
            return
        method = message.get("method")
        if method == CLOSED:
            self.closed = True
            self.closed_with_exception = bool((message.get("params") or {}).get("exception"))
        if method == "report_custom_message" and self._on_custom_message is not None:
            payload = (message.get("params") or {}).get("payload")
            if isinstance(payload, Mapping):
                self._on_custom_message(payload)
        if self._handler is None:
            raise MonadDagsterError("The session of this reader is not open.")
        try:
            self._handler.handle_message(message)  # type: ignore[arg-type]
        except Exception as error:
            self.problems.append(f"message {method!r} was refused: {error}")


def _consecutive(sizes: Mapping[int, int], start: int) -> list[int]:
    pending = []
    index = start
    while index in sizes:
        pending.append(index)
        index += 1
    return pending
