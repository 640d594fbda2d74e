"""Container log lines: live to the step's output, complete to the stage.

The node serves at most the newest 100 KB and forgets everything when it is reclaimed. Lines are
taken while the job service runs, by timestamp where that is answered and by overlap where it is
not; a gap is marked, and filled for the archive from what the account persists: SPCS_GET_LOGS,
then the event table.
"""

import contextlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from monad_dagster.errors import ConnectionFailedError, MonadDagsterError, SnowflakeError
from monad_dagster.pipes.log_tail import GAP, ContainerTail
from monad_dagster.pipes.pacing import Clock
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.scratch import scratch_directory
from monad_dagster.spcs.stage import StageClient

TAIL_LINES = 40
INCOMPLETE = "[log incomplete: lines left the node before they were read and had not reached the event table]"
MAX_LINES_PER_FETCH = 10_000
PERSISTED_POLL_SECONDS = 2.0

Source = tuple[int, str]


class LogFollower:
    """Follows the containers of one job service."""

    def __init__(
        self,
        services: JobServices,
        name: QualifiedName,
        *,
        containers: Iterable[str],
        replicas: int = 1,
        started: datetime | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare following; nothing is sent before `poll`.

        Args:
            services: Answers with log lines.
            name: The job service.
            containers: Names of our own containers; sidecars are not followed.
            replicas: Number of instances.
            started: When the job service was submitted; persisted lines are looked for from then.
            write: Receives each line with its newline; the step's stdout by default.
        """
        self._services = services
        self._name = name
        self._sources = [(i, c) for i in range(max(1, replicas)) for c in containers]
        self._started = started
        self._write = write or _write_stdout
        self._tails = {source: ContainerTail() for source in self._sources}
        self._last: dict[Source, str] = {}
        self._counts = dict.fromkeys(self._sources, 0)
        self._gaps: set[Source] = set()
        self._unanswered: set[Source] = set(self._sources)
        self._recent: dict[Source, deque[str]] = {
            source: deque(maxlen=TAIL_LINES) for source in self._sources
        }
        self._all_recent: deque[str] = deque(maxlen=TAIL_LINES)
        self._timestamps = True
        # Without a name: a process that is killed leaves nothing behind.
        self._file = tempfile.TemporaryFile(  # noqa: SIM115 - close() closes it
            "w+", encoding="utf-8", errors="replace", newline="\n"
        )
        self.is_complete = True
        self.not_archived: Exception | None = None

    @property
    def num_lines(self) -> int:
        """Lines followed so far, without marks."""
        return sum(self._counts.values())

    def tail(self, instance_id: int | None = None, container: str | None = None) -> list[str]:
        """Return the last lines of one container, or of all when it is not known or was silent."""
        lines = self._recent.get((instance_id or 0, container or ""))
        return list(lines or self._all_recent)

    def poll(self) -> int:
        """Fetch, print and keep the new lines; return how many there were."""
        count = 0
        for source in self._sources:
            self._unanswered.add(source)
            with contextlib.suppress(SnowflakeError):  # not started yet, or the node is gone
                count += self._take(source, self._fetch(source))
                self._unanswered.discard(source)
        return count

    def _fetch(self, source: Source) -> list[str]:
        tail = self._tails[source]
        if self._timestamps:
            try:
                text = self._ask(source, since=tail.since)
                return tail.take_timestamped(text, max_lines=MAX_LINES_PER_FETCH)
            except ConnectionFailedError:
                raise
            except SnowflakeError as error:
                # The other form starts over: after lines with timestamps it would repeat them.
                if is_not_available(error) or any(t.since for t in self._tails.values()):
                    raise
                self._timestamps = False
        return tail.take_tail(self._ask(source), max_lines=MAX_LINES_PER_FETCH)

    def _ask(self, source: Source, since: str | None = None) -> str:
        instance, container = source
        return self._services.fetch_logs(
            self._name,
            instance_id=instance,
            container=container,
            num_lines=MAX_LINES_PER_FETCH,
            since=since,
        )

    def _take(self, source: Source, lines: list[str]) -> int:
        prefix = self._prefix(source)
        for line in lines:
            text = f"{prefix}{line}"
            if line == GAP:
                self._gaps.add(source)
            else:
                self._counts[source] += 1
                self._last[source] = line
            self._keep(source, f"{text}\n")
            self._recent[source].append(text)
            self._all_recent.append(text)
            self._write(f"{text}\n")
        return len(lines)

    def _keep(self, source: Source, text: str) -> None:
        try:
            self._file.write(text)
        except OSError:  # a full disk; the line is looked for in the persisted log at the end
            self._gaps.add(source)

    def _prefix(self, source: Source) -> str:
        return f"[{source[1]}/{source[0]}] " if len(self._sources) > 1 else ""

    # --- the archive ---------------------------------------------------------------------------

    def archive(
        self,
        stage: StageClient,
        target: StagePath,
        *,
        clock: Clock | None = None,
        wait_seconds: float = 0.0,
    ) -> StagePath | None:
        """Upload the complete log; None when there is none or the stage refuses.

        When lines were missed, or the node did not answer to the end, the persisted log is used.
        It arrives minutes late, so it is waited for, and `is_complete` says whether it came.

        Args:
            stage: Takes the file.
            target: Where it goes.
            clock: Time and sleep.
            wait_seconds: How long persisted lines may take to arrive.
        """
        try:
            if self._gaps or self._unanswered:
                self.is_complete = self._use_persisted(clock or Clock(), wait_seconds)
            if not self.is_complete and self._keeps_earlier_archive(stage, target):
                return target
            if not self._size():
                return None
            if not self.is_complete:
                self._file.write(f"{INCOMPLETE}\n")
            self._upload(stage, target)
        except (MonadDagsterError, OSError) as error:  # costs the log, never the result
            self.not_archived = error
            return None
        return target

    def _size(self) -> int:
        """Return the size of the local copy in bytes, and go to its end."""
        self._file.flush()
        return self._file.seek(0, 2)

    def _upload(self, stage: StageClient, target: StagePath) -> None:
        self._file.seek(0)
        with scratch_directory("log") as directory:
            local = directory / target.file_name
            with local.open("w", encoding="utf-8", newline="\n") as copy:
                shutil.copyfileobj(self._file, copy)
            stage.put_file(local, target)

    def _keeps_earlier_archive(self, stage: StageClient, target: StagePath) -> bool:
        """Whether an earlier process that watched this attempt has archived more than this one.

        It was there while the node was; a log that is known to be incomplete never replaces more.
        """
        earlier = stage.find(target)
        if earlier is None or earlier.size < self._size():
            return False
        self.is_complete = is_complete_log(stage.read_text(target))
        return True

    def _use_persisted(self, clock: Clock, wait_seconds: float) -> bool:
        """Replace what was followed by what the account kept; False while that is not all."""
        deadline = clock.now() + wait_seconds
        num_before = -1
        while True:
            rows = self._persisted_rows()
            # The end of a container that was not seen to its end is known by nothing more coming.
            settled = not self._unanswered or len(rows) == num_before or wait_seconds <= 0
            covers = bool(rows) and self._covers(rows)
            if covers and settled:
                break
            if clock.now() >= deadline:
                if covers:
                    break  # as far as it came; more than was followed
                return not self._gaps and not self._unanswered
            num_before = len(rows)
            clock.sleep(min(PERSISTED_POLL_SECONDS, max(0.01, deadline - clock.now())))
        self._rewrite(rows)
        return settled

    def _persisted_rows(self) -> list[Mapping[str, Any]]:
        try:
            rows = self._services.fetch_kept_logs(self._name, start=self._started)
        except SnowflakeError:
            return []
        return [row for row in rows if _source_of(row) in self._counts]

    def _covers(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the persisted lines hold everything that was followed, the end included."""
        by_source: dict[Source, list[str]] = {source: [] for source in self._sources}
        for row in rows:
            by_source[_source_of(row)].append(str(row.get("log", "")))
        for source, lines in by_source.items():
            if len(lines) < self._counts[source]:
                return False
            last = self._last.get(source)
            # A line that is JSON is stored in pieces and need not look the same.
            if last is not None and not last.startswith("{") and last not in lines:
                return False
        return True

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        silent = not self.num_lines
        lines = [f"{self._prefix(_source_of(r))}{r.get('log', '')}" for r in rows]
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines(f"{line}\n" for line in lines)
        if silent:
            for row, line in zip(rows, lines, strict=True):
                self._recent[_source_of(row)].append(line)
                self._write(f"{line}\n")
            self._all_recent.extend(lines)

    def close(self) -> None:
        """Remove the local copy."""
        with contextlib.suppress(OSError):  # what a full disk did not take is of no use any more
            self._file.close()


def _source_of(row: Mapping[str, Any]) -> Source:
    try:
        instance = int(str(row.get("instance_id") or 0))
    except ValueError:
        instance = 0
    return instance, str(row.get("container_name", ""))


def is_complete_log(text: str) -> bool:
    """Whether an archived log says of itself nothing that is missing."""
    return not text.endswith(f"{INCOMPLETE}\n") and GAP not in text


def is_not_available(error: SnowflakeError) -> bool:
    """Whether the refusal means: no log there yet, or no longer; another form would not help."""
    text = str(error)
    return "Waiting to start" in text or "Container Status" in text or "Unable to get" in text


def _write_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:  # a letter that this process cannot print is no reason to fail
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
