"""Forks run workers: a process that has imported everything, told what to start line by line.

Reads JSON lines from its standard input and answers with `{"pid": ..., "id": ...}` when a worker
has started and `{"ended": pid, "status": ...}` when it has ended.
"""

import json
import os
import select
import sys
import traceback
from typing import Any

POLL_SECONDS = 0.02


def main() -> None:
    """Serve until the input ends."""
    jobs = _preload()
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready:
            piece = os.read(0, 1 << 16)
            if not piece:
                return
            buffer += piece
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _become_worker(request, jobs)
            _answer(pid=pid, id=request["id"])
        _reap()


def _preload() -> dict[str, Any]:
    import dagster as dg
    import snowflake.connector
    from dagster._core.execution.api import execute_run

    from tests.chaos import location

    del snowflake, execute_run
    # Building them once fills the cache that reconstruction looks into.
    jobs = {key: dg.reconstructable(getattr(location, name)) for key, name in location.JOBS.items()}
    for job in jobs.values():
        job.get_definition()
    _answer(ready=True)
    return jobs


def _answer(**document: Any) -> None:
    os.write(1, json.dumps(document).encode() + b"\n")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer(ended=pid, status=os.waitstatus_to_exitcode(status))


def _become_worker(request: dict[str, Any], jobs: dict[str, Any]) -> None:
    """Run one Dagster run in this process and end it; never returns."""
    code = 1
    try:
        _settle(request)
        code = _execute(request, jobs)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle(request: dict[str, Any]) -> None:
    """Take a session, a log and, if asked for, a terminal of its own."""
    os.setsid()
    # The first terminal that a session's leader opens becomes its controlling terminal.
    source = os.open(request.get("tty") or os.devnull, os.O_RDWR)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, descriptor in ((0, source), (1, log), (2, log)):
        os.dup2(descriptor, number)


def _execute(request: dict[str, Any], jobs: dict[str, Any]) -> int:
    import dagster as dg
    from dagster._core.execution.api import execute_run

    from tests.chaos.location import CrashPoint

    CrashPoint.at = request.get("crash_at")
    CrashPoint.after = bool(request.get("crash_after"))
    job = jobs[request["executor"]]
    with dg.DagsterInstance.from_config(request["instance"]) as instance:
        run = instance.create_run_for_job(
            job.get_definition(),
            run_id=request["run_id"],
            tags=request["tags"],
            parent_run_id=request.get("parent_run_id"),
            root_run_id=request.get("root_run_id"),
        )
        result = execute_run(job, run, instance)
        return 0 if result.success else 2


if __name__ == "__main__":
    main()
