"""Supervises one container: starts it, keeps its log, ends it on request, records how it ended.

Runs as a process of its own (`python -I -S supervise.py RUN_DIR`), detached from the account, so
that a job service outlives a killed account. It uses the standard library only and writes into
RUN_DIR: supervisor.json at the start, `log` all along, exit.json last.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

MAX_RECORD_BYTES = 16 * 1024  # Snowflake's limit of one log record
TERMINATE = "terminate"  # a file that asks for the end as SIGTERM does
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(run_dir: Path) -> None:
    """Run the container that RUN_DIR/plan.json describes, to its end."""
    plan = json.loads((run_dir / "plan.json").read_text())
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    write_json(run_dir / "supervisor.json", identity())
    supervisor = Supervisor(run_dir, plan, wake_read)
    try:
        outcome = supervisor.run()
    except OSError as error:
        outcome = {"exit_code": 127, "start_error": str(error)}
    write_json(run_dir / "exit.json", {**outcome, "finished_at": time.time()})


class Supervisor:
    """One container's life."""

    def __init__(self, run_dir: Path, plan: dict, wake_fd: int) -> None:
        self.run_dir = run_dir
        self.plan = plan
        self.wake_fd = wake_fd
        self.kill_at: float | None = None
        self.oom = False
        self.undelivered = False

    def run(self) -> dict:
        """Start the container, follow it, and return how it ended."""
        status_read, status_write = os.pipe()
        launch = self.plan["launch"]
        command = [part.replace("{status_fd}", str(status_write)) for part in launch]
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.plan["launch_env"],
            cwd=self.plan.get("launch_cwd"),
            start_new_session=True,
            pass_fds=(status_write,) if "{status_fd}" in launch else (),
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads yet
        )
        os.close(status_write)
        with (self.run_dir / "log").open("ab", buffering=0) as log:
            pumps = self._pump(child, log)
            self._follow(child)
            code = child.wait()
            _kill_leftovers()
            for pump in pumps:
                pump.join(timeout=5)
        start_error = os.read(status_read, 4096).decode("utf-8", "replace")
        return {
            "exit_code": 128 - code if code < 0 else code,
            "oom": self.oom,
            "start_error": start_error,
        }

    def _pump(self, child: subprocess.Popen, log) -> list[threading.Thread]:  # noqa: ANN001
        lock = threading.Lock()
        pumps = [
            threading.Thread(target=pump_lines, args=(stream, name, log, lock), daemon=True)
            for stream, name in ((child.stdout, "stdout"), (child.stderr, "stderr"))
        ]
        for pump in pumps:
            pump.start()
        return pumps

    def _follow(self, child: subprocess.Popen) -> None:
        limit = self.plan.get("memory_limit_bytes")
        child_fd = os.pidfd_open(child.pid)
        poller = select.poll()
        poller.register(child_fd, select.POLLIN)
        poller.register(self.wake_fd, select.POLLIN)
        if (self.run_dir / TERMINATE).exists():
            self._terminate(child)
        while True:
            ready = {fd for fd, _ in poller.poll(self._patience_ms(limit))}
            if child_fd in ready:
                break
            if self.wake_fd in ready and signal.SIGTERM in os.read(self.wake_fd, 64):
                self._terminate(child)
            if self.undelivered:
                self._deliver(child)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self._kill(child)
            if limit and memory_bytes(child.pid) > limit:
                self.oom = True
                self._kill(child)
        os.close(child_fd)

    def _patience_ms(self, limit: int | None) -> float | None:
        waits = [1000.0] if limit else []
        if self.undelivered:
            waits.append(20.0)
        if self.kill_at is not None:
            waits.append(max(0.0, (self.kill_at - time.monotonic()) * 1000))
        return min(waits) if waits else None

    def _terminate(self, child: subprocess.Popen) -> None:
        if self.kill_at is None:
            self.kill_at = time.monotonic() + float(self.plan["grace_seconds"])
            self._deliver(child)

    def _deliver(self, child: subprocess.Popen) -> None:
        """Send SIGTERM to the command; it may not exist yet below bubblewrap."""
        how = self.plan["terminate"]
        self.undelivered = False
        if how == "group":
            _signal_group(child.pid, signal.SIGTERM)
        elif how == "leader":
            child.send_signal(signal.SIGTERM)
        else:  # below bubblewrap's monitor and its init
            commands = _children(_children(child.pid))
            self.undelivered = not commands
            for pid in commands:
                _signal(pid, signal.SIGTERM)

    def _kill(self, child: subprocess.Popen) -> None:
        _signal_group(child.pid, signal.SIGKILL)
        child.kill()
        self.kill_at = time.monotonic() + 5


def pump_lines(stream, name: str, log, lock: threading.Lock) -> None:  # noqa: ANN001
    """Copy a stream into the log, line by line, each with its time and stream."""
    while line := stream.readline(MAX_RECORD_BYTES):
        text = line.rstrip(b"\n").replace(b"\r", b"")
        stamp = rfc3339(time.time_ns())
        # A full disk loses lines; it must not block the container on a full pipe.
        with lock, contextlib.suppress(OSError):
            log.write(f"{stamp} {name} ".encode() + text + b"\n")


def rfc3339(nanoseconds: int) -> str:
    """Return a UTC time with nanoseconds, in a form that sorts."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def identity(pid: int | None = None) -> dict:
    """Return what tells this process from a later one with the same id."""
    pid = pid or os.getpid()
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "start_ticks": int(stat[19]), "boot_id": boot, "started_at": time.time()}


def write_json(path: Path, data: dict) -> None:
    """Write a file that is either complete or absent, power loss included."""
    temporary = path.with_name(path.name + "~")
    with temporary.open("w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def memory_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, shared pages counted once."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [pid]
    for parent in pids:
        pids.extend(_children([parent]))
    resident = {each: _resident_pages(each) * page for each in pids}
    if sum(resident.values()) < 2**26:
        return sum(resident.values())
    return sum(_proportional(each, resident[each]) for each in pids)


def usage_below(pid: int) -> tuple[float, int]:
    """Return processor seconds and memory bytes of everything a supervisor started.

    Ended processes count too: whoever reaped them has their time, and that is a process below
    or the supervisor, which adopts orphans.
    """
    below = _children(pid)
    memory = sum(memory_bytes(child) for child in below)
    for parent in below:
        below.extend(_children([parent]))
    ticks = sum(_ticks(pid)[2:]) + sum(sum(_ticks(child)) for child in below)
    return ticks / os.sysconf("SC_CLK_TCK"), memory


def _ticks(pid: int) -> tuple[int, ...]:
    """Return user and system time of a process, then of its reaped children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return tuple(int(field) for field in fields[11:15])
    except (OSError, ValueError):
        return (0, 0, 0, 0)


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _proportional(pid: int, fallback: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return fallback


def _children(pids: int | list[int]) -> list[int]:
    found: list[int] = []
    for pid in [pids] if isinstance(pids, int) else pids:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in path.read_text().split())
            except (OSError, ValueError):
                continue
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def _kill_leftovers() -> None:
    """End what the container left running; this process adopts orphans."""
    while left := _children(os.getpid()):
        for pid in left:
            _signal(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
