"""Container log lines: live to the step's output, complete to the stage.

The node serves at most the newest 100 KB and forgets everything when it is reclaimed. Lines are
taken while the job service runs, by timestamp where that is answered and by overlap where it is
not; a gap is marked, and filled from the persisted logs for the archive.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from monad_dagster.errors import MonadDagsterError, SnowflakeError
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.stage import StageClient

LOG_FILE = "log.txt"
TAIL_LINES = 40
MAX_LINES_PER_FETCH = 10_000
GAP = "[lines missing here: more than the service keeps were written between two looks]"


@dataclass
class ContainerTail:
    """Picks the new lines out of repeated, overlapping answers of one container.

    Attributes:
        since: Timestamp of the newest line seen; "" before the first.
        seen: The lines at that timestamp, which an inclusive answer repeats.
    """

    since: str = ""
    seen: list[str] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)

    def take_timestamped(self, text: str) -> list[str]:
        """Return the new lines of an answer whose lines begin with a timestamp."""
        lines = text.splitlines()
        skipped = list(self.seen)
        fresh: list[str] = []
        for line in lines:
            stamp, _, rest = line.partition(" ")
            if stamp < self.since and _looks_like_timestamp(stamp):
                continue
            if stamp == self.since and line in skipped:
                skipped.remove(line)
                continue
            if stamp > self.since and _looks_like_timestamp(stamp):
                self.since, self.seen = stamp, []
            self.seen.append(line)
            fresh.append(rest if _looks_like_timestamp(stamp) else line)
        return fresh

    def take_tail(self, text: str) -> list[str]:
        """Return the new lines of an answer without timestamps, by the longest overlap."""
        lines = text.splitlines()
        overlap = _overlap(self.previous, lines)
        gap = bool(self.previous) and overlap == 0 and bool(lines)
        fresh = lines[overlap:]
        if lines:
            self.previous = lines
        return [GAP, *fresh] if gap else fresh


def _looks_like_timestamp(word: str) -> bool:
    return len(word) >= 20 and word[4:5] == "-" and word[10:11] == "T"


def _overlap(previous: list[str], current: list[str]) -> int:
    """Return how many lines at the start of *current* are the end of *previous*."""
    limit = min(len(previous), len(current))
    for length in range(limit, 0, -1):
        if previous[-length:] == current[:length]:
            return length
    return 0


class LogFollower:
    """Follows the containers of one job service."""

    def __init__(
        self,
        services: JobServices,
        name: QualifiedName,
        *,
        containers: Iterable[str],
        replicas: int = 1,
        write: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare following; nothing is sent before `poll`.

        Args:
            services: Answers with log lines.
            name: The job service.
            containers: Names of our own containers; sidecars are not followed.
            replicas: Number of instances.
            write: Receives each line with its newline; the step's stdout by default.
        """
        self._services = services
        self._name = name
        self._sources = [(i, c) for i in range(max(1, replicas)) for c in containers]
        self._write = write or _write_stdout
        self._tails = {source: ContainerTail() for source in self._sources}
        self._timestamps = True
        self._directory = TemporaryDirectory(prefix="monad-log-")
        self._archive = Path(self._directory.name) / LOG_FILE
        self._archive.touch()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.num_lines = 0
        self.has_gap = False

    def poll(self) -> int:
        """Fetch, print and keep the new lines; return how many there were."""
        count = 0
        for source in self._sources:
            with contextlib.suppress(SnowflakeError):  # not started yet, or the node is gone
                count += self._take(source, self._fetch(source))
        return count

    def _fetch(self, source: tuple[int, str]) -> list[str]:
        instance, container = source
        tail = self._tails[source]
        if self._timestamps:
            try:
                text = self._services.fetch_logs(
                    self._name,
                    instance_id=instance,
                    container=container,
                    num_lines=MAX_LINES_PER_FETCH,
                    since=tail.since,
                )
                return tail.take_timestamped(text)
            except SnowflakeError as error:
                if _not_started(error):
                    raise
                self._timestamps = False
        text = self._services.fetch_logs(
            self._name, instance_id=instance, container=container, num_lines=MAX_LINES_PER_FETCH
        )
        return tail.take_tail(text)

    def _take(self, source: tuple[int, str], lines: list[str]) -> int:
        prefix = f"[{source[1]}/{source[0]}] " if len(self._sources) > 1 else ""
        with self._archive.open("a", encoding="utf-8") as archive:
            for line in lines:
                text = f"{prefix}{line}"
                self.has_gap |= line == GAP
                archive.write(f"{text}\n")
                self.tail.append(text)
                self._write(f"{text}\n")
        self.num_lines += len(lines)
        return len(lines)

    def archive(self, stage: StageClient, run_directory: StagePath) -> StagePath | None:
        """Upload the complete log; None when there is none or the stage refuses.

        When lines were missed, or none could be had from the node, the persisted log is used.
        """
        if self.has_gap or not self.num_lines:
            self._use_persisted()
        if not self._archive.stat().st_size:
            return None
        target = run_directory / LOG_FILE
        try:
            stage.put_file(self._archive, target)
        except MonadDagsterError:
            return None
        return target

    def _use_persisted(self) -> None:
        try:
            rows = self._services.fetch_persisted_logs(self._name)
        except SnowflakeError:
            return
        ours = {container for _, container in self._sources}
        lines = [str(r.get("log", "")) for r in rows if r.get("container_name") in ours]
        if len(lines) < self.num_lines:  # still arriving; what was followed is more complete
            return
        self._archive.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if not self.num_lines:
            self.tail.extend(lines)

    def close(self) -> None:
        """Remove the local copy."""
        self._directory.cleanup()


def _not_started(error: SnowflakeError) -> bool:
    text = str(error)
    return "Waiting to start" in text or "Unable to get container status" in text


def _write_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
