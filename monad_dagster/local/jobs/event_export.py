"""Hands the event table's rows to the SQL engine, as SNOWFLAKE.TELEMETRY.EVENTS."""

from typing import TYPE_CHECKING

from monad_dagster.local.faults.faults_jobs import newest_event_ns
from monad_dagster.local.jobs.event_store import EventRow

if TYPE_CHECKING:
    from monad_dagster.local.jobs.job_records import JobRecords


class EventExport:
    """Copies rows once they are visible."""

    def __init__(self, jobs: "JobRecords") -> None:
        self._jobs = jobs

    def export(self) -> None:
        """Hand new rows to the SQL engine's event table."""
        store = self._jobs.account.extensions["events"]
        while rows := self._visible(store.unexported()):
            self._jobs.account.engine.append_events([row.as_event_table_row() for row in rows])
            store.mark_exported(rows[-1].id)

    def _visible(self, rows: list[EventRow]) -> list[EventRow]:
        """Return the rows before the first one that a fault still holds back."""
        if not self._jobs.account.faults.armed:
            return rows
        for index, row in enumerate(rows):
            job = self._jobs.jobs.get(row.job)
            newest = newest_event_ns(self._jobs.account, job) if job else None
            if newest is not None and row.at_ns > newest:
                return rows[:index]
        return rows
