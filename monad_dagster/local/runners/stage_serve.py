"""The process that serves the stage volumes of one container; standard library only.

Runs as `python -I -S ... PLAN` in a session of its own, detached from the account, so that a
container keeps its volumes when the account is killed, and so that a hanging or killed mount hangs
nobody else. It ends on SIGTERM, when its container has ended, or when its mounts are taken away.

PLAN is a JSON file: {"run_dir", "partials", "volumes": [{"target", "backing", "read_only", "uid",
"gid", "for_others"}]}. "ready" on standard output means that everything is mounted; anything else
is why not.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from monad_dagster.local.runners import fuse_wire, supervise
from monad_dagster.local.runners.stage_fs import StageFileSystem

LOOK_SECONDS = 0.25
DRAIN_SECONDS = 1.5
DISK_FULL = "disk_full"  # in the run directory: backing directories that are full, one a line


def main() -> None:
    """Mount what the plan says, tell the parent, serve until the end."""
    plan_path = Path(sys.argv[1])
    plan = json.loads(plan_path.read_text())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    mounted: list[str] = []
    served: list[tuple[StageFileSystem, fuse_wire.Connection]] = []
    try:
        for volume in plan["volumes"]:
            served.append(serve(volume, Path(plan["partials"]), Path(plan["run_dir"], DISK_FULL)))
            mounted.append(volume["target"])
        supervise.write_json(plan_path.with_name("server.json"), supervise.identity())
    except OSError as error:
        take_away(mounted)
        _tell(str(error))
        return
    _tell("ready")
    run_dir = Path(plan["run_dir"])
    while not stop.wait(LOOK_SECONDS):
        if has_ended(run_dir) or not any(link.is_alive for _, link in served):
            break
    drain(served)
    take_away(mounted)
    for _, link in served:
        link.join(1.0)
    shutil.rmtree(plan["partials"], ignore_errors=True)


def serve(
    volume: dict, partials: Path, full_note: Path | None = None
) -> tuple[StageFileSystem, fuse_wire.Connection]:
    """Mount one volume and begin to answer for it."""
    partials.mkdir(parents=True, exist_ok=True)
    files = StageFileSystem(
        Path(volume["backing"]),
        partials,
        uid=volume["uid"],
        gid=volume["gid"],
        full_note=full_note,
    )
    descriptor = fuse_wire.mount(
        volume["target"], read_only=volume["read_only"], for_others=volume["for_others"]
    )
    link = fuse_wire.Connection(descriptor, files.handlers())
    link.start()
    Path(volume["target"]).stat()  # the kernel sets its own read-ahead when the mount begins
    fuse_wire.read_ahead(volume["target"])
    return files, link


def drain(served: list[tuple[StageFileSystem, fuse_wire.Connection]]) -> None:
    """Wait for files whose last descriptor is gone already; an unmount would lose them."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while any(files.num_writers for files, _ in served) and time.monotonic() < deadline:
        time.sleep(0.02)


def take_away(targets: list[str]) -> None:
    """Unmount; what stays is taken away by the account."""
    for target in targets:
        with contextlib.suppress(OSError):
            fuse_wire.unmount(target)


def has_ended(run_dir: Path) -> bool:
    """Tell whether the container is over: recorded, forgotten, or gone with its supervisor."""
    if (run_dir / "exit.json").exists() or not run_dir.is_dir():
        return True
    try:
        known = json.loads((run_dir / "supervisor.json").read_text())
    except (OSError, ValueError):
        return False  # not started yet, or another runner's: release() ends this process
    try:
        now = supervise.identity(known["pid"])
    except (OSError, ValueError, IndexError):
        return True
    return any(now[key] != known[key] for key in ("pid", "start_ticks", "boot_id"))


def _tell(text: str) -> None:
    """Answer the parent, and let go of the pipe so that it never waits for this process."""
    with contextlib.suppress(OSError):
        os.write(1, text.replace("\n", " ").encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    main()
