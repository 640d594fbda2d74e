"""The event table's rows about job services: container logs, platform events and metrics.

Rows and how far each container's log was read are one SQLite transaction, so that a killed
account neither loses nor repeats a line. The account's SQL engine gets the same rows as
`SNOWFLAKE.TELEMETRY.EVENTS`. On an account of Snowflake's rows arrive with minutes of delay;
`delay_seconds` imitates that for every reader.
"""

import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, job TEXT NOT NULL,
  instance INTEGER, container TEXT, record_type TEXT NOT NULL, resource TEXT NOT NULL,
  scope TEXT, record TEXT, attributes TEXT, value TEXT, stored_at REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job, record_type, at_ns);
CREATE TABLE IF NOT EXISTS offsets (path TEXT PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS exported (id INTEGER PRIMARY KEY CHECK (id = 1), upto INTEGER NOT NULL);
"""
_COLUMNS = (
    "id, at_ns, job, instance, container, record_type, resource, scope, record, attributes, value"
)


@dataclass(frozen=True)
class EventRow:
    """One row; `value` is text for a log line, an object for an event, a number for a metric."""

    at_ns: int
    job: str
    record_type: str
    resource: dict[str, Any]
    value: Any
    instance: int | None = None
    container: str | None = None
    scope: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    id: int = 0

    @property
    def at(self) -> dt.datetime:
        """Return the row's time, to the microsecond."""
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            microseconds=self.at_ns // 1000
        )

    def as_event_table_row(self) -> list[Any]:
        """Return the row with the event table's thirteen columns, objects as JSON text."""
        is_event = self.record_type == "EVENT"
        time = self.at.replace(tzinfo=None)
        return [
            time, None, time if is_event else None, None, None, _json(self.resource),
            _json(self.scope), None, self.record_type, _json(self.record),
            _json(self.attributes), json.dumps(self.value), None,
        ]  # fmt: skip


class EventStore:
    """Logs, platform events and metrics of every job service.

    Args:
        path: The SQLite file.
        clock: The account's clock.
        delay_seconds: How long a row stays out of sight after it was stored.
    """

    def __init__(
        self, path: Path, clock: Callable[[], dt.datetime], delay_seconds: float = 0.0
    ) -> None:
        self.delay_seconds = delay_seconds
        self._clock = clock
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(events)")}
        if "stored_at" not in columns:  # a file of an earlier version
            self._db.execute("ALTER TABLE events ADD COLUMN stored_at REAL NOT NULL DEFAULT 0")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def offset(self, path: Path) -> int:
        """Return how far a log file was read."""
        with self._lock:
            row = self._db.execute(
                "SELECT offset FROM offsets WHERE path=?", (str(path),)
            ).fetchone()
        return row[0] if row else 0

    def add(
        self, rows: Iterable[EventRow], *, log: Path | None = None, offset: int | None = None
    ) -> None:
        """Store rows, together with how far the log they come from was read."""
        now = self._clock().timestamp()
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO events (at_ns, job, instance, container, record_type, resource, scope,"
                " record, attributes, value, stored_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (r.at_ns, r.job, r.instance, r.container, r.record_type, json.dumps(r.resource),
                     _json(r.scope), _json(r.record), json.dumps(r.attributes), json.dumps(r.value),
                     now)
                    for r in rows
                ],
            )  # fmt: skip
            if log is not None:
                self._db.execute("INSERT OR REPLACE INTO offsets VALUES (?,?)", (str(log), offset))
            self._db.execute("COMMIT")

    def rows(
        self, job: str, record_type: str, start: dt.datetime, end: dt.datetime
    ) -> list[EventRow]:
        """Return a job service's visible rows of a time window, oldest first."""
        return self._query(
            "WHERE job=? AND record_type=? AND at_ns>=? AND at_ns<=? AND stored_at<=?"
            " ORDER BY at_ns, id",
            (job, record_type, _nanoseconds(start), _nanoseconds(end), self._newest()),
        )

    def unexported(self, limit: int = 2000) -> list[EventRow]:
        """Return visible rows that the SQL engine's event table does not have yet."""
        return self._query(
            "WHERE id > coalesce((SELECT upto FROM exported), 0) AND stored_at<=?"
            " ORDER BY id LIMIT ?",
            (self._newest(), limit),
        )

    def mark_exported(self, upto: int) -> None:
        """Remember the last row handed to the SQL engine."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO exported VALUES (1, ?)", (upto,))

    def forget(self, job: str) -> None:
        """Delete a job service's rows."""
        with self._lock:
            self._db.execute("DELETE FROM events WHERE job=?", (job,))

    def _newest(self) -> float:
        return self._clock().timestamp() - self.delay_seconds

    def _query(self, where: str, values: Sequence[Any]) -> list[EventRow]:
        with self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM events {where}", values).fetchall()
        return [
            EventRow(
                id=row[0], at_ns=row[1], job=row[2], instance=row[3], container=row[4],
                record_type=row[5], resource=json.loads(row[6]), scope=_parsed(row[7]),
                record=_parsed(row[8]), attributes=json.loads(row[9] or "{}"),
                value=json.loads(row[10]),
            )
            for row in found
        ]  # fmt: skip


def _nanoseconds(time: dt.datetime) -> int:
    delta = time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (delta // dt.timedelta(microseconds=1)) * 1000 + 999


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)
