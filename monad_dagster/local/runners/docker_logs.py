"""Copies a container's log from the engine into the account's own form.

The engine sends frames, each with its stream, time and text. One frame becomes one record, so a
log that is read again from the start, after a restart of the account, gives the same records in
the same order: those that the file already holds are skipped.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from monad_dagster.local.runners.supervise import MAX_RECORD_BYTES, rfc3339

_TIME = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")
_STREAMS = {1: "stdout", 2: "stderr"}


class Readable(Protocol):
    """The body of a streaming answer."""

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer at the end."""
        ...


def frames(body: Readable) -> Iterator[tuple[str, bytes]]:
    """Yield (stream, payload) of a multiplexed log until it ends."""
    while len(header := body.read(8)) == 8:
        payload = body.read(int.from_bytes(header[4:], "big"))
        if header[0] in _STREAMS:
            yield _STREAMS[header[0]], payload


def records(stream: str, payload: bytes, now_ns: int) -> Iterator[bytes]:
    """Yield a frame's lines in the log's form.

    Args:
        stream: stdout or stderr.
        payload: Time and text, as the engine sends them.
        now_ns: When the frame came; the time of engines that know whole seconds only.
    """
    found = _TIME.match(payload)
    stamp = _stamp(found, now_ns) if found else rfc3339(now_ns)
    text = payload[found.end() :] if found else payload
    for line in text.removesuffix(b"\n").replace(b"\r", b"").split(b"\n"):
        for start in range(0, max(len(line), 1), MAX_RECORD_BYTES):
            part = line[start : start + MAX_RECORD_BYTES]
            yield f"{stamp} {stream} ".encode() + part + b"\n"


def _stamp(found: re.Match[bytes], now_ns: int) -> str:
    """Return the engine's time with nanoseconds, or the time of arrival where it has none."""
    whole, fraction, zone = found.groups()
    if fraction is None or zone != b"Z":
        return rfc3339(now_ns)
    return f"{whole.decode()}.{fraction.decode().ljust(9, '0')}Z"


class LogFile:
    """The account's log of one container; `start` is where the container's own lines begin."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.start = start

    def follow(self, body: Any) -> None:
        """Copy a log from its beginning to its end, without what the file already holds."""
        known = self._known()
        with self.path.open("ab", buffering=0) as file:
            for stream, payload in frames(body):
                for record in records(stream, payload, time.time_ns()):
                    if known:
                        known -= 1
                    else:
                        file.write(record)

    def _known(self) -> int:
        """Return how many records are complete; a torn last one is cut off."""
        try:
            with self.path.open("r+b") as file:
                file.seek(self.start)
                count, end = 0, self.start
                for line in file:
                    if not line.endswith(b"\n"):
                        file.truncate(end)
                        break
                    count, end = count + 1, end + len(line)
                return count
        except FileNotFoundError:
            return 0
