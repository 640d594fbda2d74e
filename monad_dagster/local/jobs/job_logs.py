"""Container logs: reading them for GET_SERVICE_LOGS, and turning them into event table rows.

A log line is `<RFC 3339 time with nanoseconds> <stdout|stderr> <text>`, as the supervisor
writes it.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monad_dagster.local.jobs.event_store import EventRow

MAX_LOG_BYTES = 100 * 1024  # what GET_SERVICE_LOGS returns at most, the newest
MAX_READ_BYTES = 4 * 2**20
_SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "OFF")
# OpenTelemetry's: the first number of each severity; the documented example has DEBUG as 5.
_SEVERITY_NUMBERS = {name: 4 * index + 1 for index, name in enumerate(_SEVERITIES[:-1])}


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log; `size` is what it takes in the file."""

    time: str
    stream: str
    text: str
    size: int = 0

    @property
    def at_ns(self) -> int:
        """Return the line's time in nanoseconds since the epoch."""
        whole, _, fraction = self.time.rstrip("Z").partition(".")
        seconds = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.UTC).timestamp()
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def parse_line(raw: bytes) -> LogLine:
    """Parse one line of the supervisor's log."""
    time, _, rest = raw.decode("utf-8", "replace").partition(" ")
    stream, _, text = rest.partition(" ")
    return LogLine(time, stream, text, len(raw) + 1)


def read_new(path: Path, offset: int, max_bytes: int = MAX_READ_BYTES) -> tuple[list[LogLine], int]:
    """Return the complete lines after an offset, and the offset after them."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(max_bytes)
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [parse_line(raw) for raw in data[:end].split(b"\n")[:-1]], offset + end


def tail(
    path: Path,
    *,
    num_lines: int | None = None,
    since: str = "",
    include_timestamps: bool = False,
    max_bytes: int = MAX_LOG_BYTES,
) -> str:
    """Return the newest part of a log, both streams merged.

    Args:
        path: The log.
        num_lines: At most so many lines.
        since: Only lines of this time or later, RFC 3339.
        include_timestamps: Put each line's time in front of it.
        max_bytes: At most so many bytes.
    """
    kept: list[str] = []
    size = 0
    since = _normal_time(since)
    for raw in _reversed_lines(path):
        line = parse_line(raw)
        if num_lines is not None and len(kept) >= num_lines:
            break
        if since and line.time < since:
            break
        text = f"{line.time} {line.text}" if include_timestamps else line.text
        size += len(text.encode()) + 1
        if size > max_bytes:
            break
        kept.append(text)
    return "\n".join(reversed(kept))


def _normal_time(text: str) -> str:
    """Return a time in the log's form, so that it compares as text."""
    if not text:
        return ""
    whole, dot, fraction = text.strip().replace(" ", "T").partition(".")
    if dot and fraction.rstrip("Z").isdigit():
        return f"{whole}.{fraction.rstrip('Z').ljust(9, '0')[:9]}Z"
    try:
        time = dt.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return text
    time = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def _reversed_lines(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at > 0:
            step = min(at, 64 * 1024)
            at -= step
            file.seek(at)
            data = file.read(step) + rest
            lines = data.split(b"\n")
            rest = lines[0]
            yield from (line for line in reversed(lines[1:]) if line)
        if rest:
            yield rest


def log_rows(
    lines: list[LogLine],
    *,
    job: str,
    resource: dict[str, Any],
    instance: int,
    container: str,
    log_level: str,
    exported: str,
) -> list[EventRow]:
    """Return the event table rows of log lines that the levels let through.

    Args:
        lines: The lines.
        job: Id of the job service.
        resource: RESOURCE_ATTRIBUTES of the container.
        instance: The instance's number.
        container: The container's name.
        log_level: LOG_LEVEL that the schema gives the job service.
        exported: logExporters' level: INFO both streams, ERROR stderr only, NONE nothing.
    """
    rows = []
    for line in lines:
        if exported == "NONE" or (exported == "ERROR" and line.stream != "stderr"):
            continue
        record = structured(line)
        if not passes(record.severity, log_level):
            continue
        rows.append(
            EventRow(
                record.at_ns, job, "LOG", resource, record.value, instance, container,
                scope=record.scope,
                record={
                    "severity_number": _SEVERITY_NUMBERS[record.severity],
                    "severity_text": record.severity,
                },
                attributes=record.attributes,
            )
        )  # fmt: skip
    return rows


def passes(severity: str, level: str) -> bool:
    """Tell whether a level lets a severity through."""
    level = level.upper() if level.upper() in _SEVERITIES else "OFF"
    return level != "OFF" and _SEVERITIES.index(severity) >= _SEVERITIES.index(level)


@dataclass(frozen=True)
class LogRecord:
    """What a log line becomes in the event table."""

    at_ns: int
    severity: str
    value: Any
    attributes: dict[str, Any]
    scope: dict[str, Any] | None = None


def structured(line: LogLine) -> LogRecord:
    """Return a line's record; a JSON object with `body` is split into its parts, as documented.

    A part of the wrong type is left out and the rest used; anything else is text.
    """
    attributes: dict[str, Any] = {"log.iostream": line.stream}
    severity = "ERROR" if line.stream == "stderr" else "INFO"
    data = _json_object(line.text)
    if data is None or "body" not in data:
        return LogRecord(line.at_ns, severity, line.text, attributes)
    given = str(data.get("severity_text", severity)).upper()
    extra, scope = data.get("attributes"), data.get("scope")
    return LogRecord(
        _nanoseconds(data.get("timestamp"), line.at_ns),
        given if given in _SEVERITIES[:-1] else severity,
        data["body"],
        attributes | (extra if isinstance(extra, dict) else {}),
        scope if isinstance(scope, dict) else {"name": scope} if isinstance(scope, str) else None,
    )


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _nanoseconds(given: Any, fallback: int) -> int:
    """Return a record's own time: ISO 8601 text, or seconds to nanoseconds since the epoch."""
    try:
        if isinstance(given, str) and not given.isdigit():
            time = dt.datetime.fromisoformat(given.replace("Z", "+00:00"))
            time = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
            return int(time.timestamp()) * 10**9 + time.microsecond * 1000
        if given is None or isinstance(given, bool):
            return fallback
        whole = int(float(given)) if isinstance(given, float) else int(given)
        scale = {10: 10**9, 13: 10**6, 16: 10**3, 19: 1}[len(str(whole))]
        fraction = given - whole if isinstance(given, float) else 0.0
        return whole * scale + int(fraction * scale)
    except (ValueError, TypeError, KeyError, OverflowError):
        return fallback
