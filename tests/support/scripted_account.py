"""As much of an account as one call of the client asks, answering from a script of statuses."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.scripted_connection import Answer, lost_answer, refused

MISSING = "missing"
UNREACHABLE = "unreachable"
NOT_FOUND = 2003

POOL = {
    "name": "POOL",
    "state": "ACTIVE",
    "instance_family": "CPU_X64_S",
    "min_nodes": 1,
    "max_nodes": 1,
}


class ScriptedAccount:
    """Knows one job service, whose status is the next of *statuses* at each look.

    Attributes:
        chunks: Message chunks by number, there once the job service was seen running or ended.
        submissions: The EXECUTE JOB SERVICE statements that were accepted.
        cancelled: Whether the job service was cancelled.
    """

    def __init__(self, statuses: Sequence[str], chunks: Sequence[bytes] = ()) -> None:
        self._remaining = list(statuses)
        self.chunks = {f"{n}.json": body for n, body in enumerate(chunks, start=1)}
        self.submissions: list[str] = []
        self.cancelled = False
        self.exit_code = 0

    def answer(self, text: str) -> Answer:
        """Answer one statement."""
        for start, method in self._answers.items():
            if text.startswith(start):
                return method(self, text)
        if "GET_JOB_HISTORY" in text:
            return []
        if "GET_SERVICE_LOGS" in text or "SPCS_GET_LOGS" in text:
            return refused(2143, "no logs")
        return []

    def _execute(self, text: str) -> Answer:
        self.submissions.append(text)
        return [{"status": "Started Snowpark Container Services Job 'J'."}]

    def _describe(self, text: str) -> Answer:
        if not self.submissions:
            return refused(NOT_FOUND)
        if self.cancelled:
            return [self._row(text, "CANCELLED")]
        status = self._remaining.pop(0) if len(self._remaining) > 1 else self._remaining[0]
        if status == MISSING:
            return refused(NOT_FOUND)
        if status == UNREACHABLE:
            return lost_answer()
        return [self._row(text, status)]

    def _row(self, text: str, status: str) -> dict[str, Any]:
        names = re.findall(r'"?([A-Za-z0-9_]+)"?', text.removeprefix("DESCRIBE SERVICE "))
        keys = ("database_name", "schema_name", "name")
        return dict(zip(keys, names, strict=True)) | {"status": status}

    def _containers(self, _: str) -> Answer:
        row = {"container_name": "main", "instance_id": "0", "status": "READY"}
        return [row | {"last_exit_code": str(self.exit_code)}]

    def _cancel(self, _: str) -> Answer:
        self.cancelled = True
        return [{"status": "ok"}]

    def _put(self, text: str) -> Answer:
        source = Path(re.search(r"'file://([^']*)'", text)[1])
        row = {"source": source.name, "target": source.name, "status": "UPLOADED"}
        return [row | {"target_size": source.stat().st_size}]

    def _list(self, text: str) -> Answer:
        place = text.split()[1].rstrip("/").rpartition("ST/")[2]
        if not place.endswith("messages"):
            return []
        return [{"name": f"st/{place}/{n}", "size": len(b)} for n, b in self.chunks.items()]

    def _get(self, text: str) -> Answer:
        target = Path(re.search(r"'file://([^']*)'", text)[1])
        for name, body in self.chunks.items():
            (target / name).write_bytes(body)
        return [{"file": name, "status": "DOWNLOADED"} for name in self.chunks]

    _answers = {  # noqa: RUF012 - a table, never changed
        "DESCRIBE COMPUTE POOL": lambda self, _: [POOL],
        "EXECUTE JOB SERVICE": _execute,
        "DESCRIBE SERVICE": _describe,
        "SHOW SERVICE CONTAINERS": _containers,
        "CALL": _cancel,
        "PUT": _put,
        "LIST": _list,
        "GET": _get,
    }


def opened() -> dict[str, Any]:
    """Build the first message of a script."""
    return {"__dagster_pipes_version": "0.1", "method": "opened", "params": {"extras": {}}}


def materialization(asset: str, version: str) -> dict[str, Any]:
    """Build the message that reports a result."""
    params = {"asset_key": asset, "metadata": {}, "data_version": version}
    return {
        "__dagster_pipes_version": "0.1",
        "method": "report_asset_materialization",
        "params": params,
    }


def closed(exception: str | None = None) -> dict[str, Any]:
    """Build the last message of a script."""
    raised = {"message": exception, "stack": [], "name": "ValueError", "cause": None}
    params = {"exception": raised | {"context": None}} if exception else {}
    return {"__dagster_pipes_version": "0.1", "method": "closed", "params": params}


def chunks_of(*groups: Sequence[dict[str, Any]]) -> list[bytes]:
    """Write groups of messages as complete chunks."""
    return [("".join(f"{json.dumps(m)}\n" for m in group) + "\n").encode() for group in groups]
