"""Stage volumes with a stage's own rules, for any runner.

`StageMounts.prepare` replaces the directories of a request's stage volumes by mounts that refuse
what Snowflake's v2 volumes refuse (`stage_fs.py`); `release` takes them away after the container.
A process of its own serves them (`stage_serve.py`). Where the host has no FUSE, volumes stay
plain directories, and `describe` says so.

DIR/mounts/<id>/ holds one container's mounts: mount.json, server.json, partial/ and a directory
for each volume. It lies outside of DIR/jobs, so that no clean-up of a run walks into a stage.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from monad_dagster.local.runners import fuse_wire, stage_serve, supervise
from monad_dagster.local.runners.base import Mount, RunnerError, RunRequest

logger = logging.getLogger("monad_dagster.local")

MODES = ("strict", "off")
NO_OTHERS = "user_allow_other is not set in /etc/fuse.conf"
START_SECONDS = 20.0
_ROOT = str(Path(__file__).resolve().parents[3])
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    "from monad_dagster.local.runners.stage_serve import main; main()"
)


class StageMounts:
    """The stage mounts of one account.

    Args:
        state_dir: The account's directory; stages must lie on its disk.
        mode: "strict" or "off"; None is strict wherever the host allows it.

    Raises:
        RunnerError: The mode is unknown, or strict was asked for and does not work here.
    """

    def __init__(self, state_dir: Path, mode: str | None = None) -> None:
        if mode not in (None, *MODES):
            raise RunnerError(f"stage mounts are {' or '.join(MODES)}, not {mode!r}")
        self.folder = state_dir / "mounts"
        self.folder.mkdir(parents=True, exist_ok=True)
        clean(state_dir)
        self.reason = "asked for" if mode == "off" else self._probe()
        self.mode = "off" if self.reason else "strict"
        if mode == "strict" and self.reason:
            raise RunnerError(f"stage mounts cannot be strict here: {self.reason}")

    def describe(self) -> str:
        """Say in one sentence which rules stage volumes follow, and why."""
        if self.mode == "strict":
            return "strict stage mounts: append, random write, rename, link and lock are refused"
        return (
            f"plain directories as stage volumes ({self.reason}): "
            "what a real stage volume refuses passes here"
        )

    def prepare(self, request: RunRequest, *, own: bool = True) -> RunRequest:
        """Return the request with its stage volumes mounted under a stage's rules.

        Args:
            request: What a runner is about to start; its run directory exists.
            own: The container runs as this process's user, whatever it sees; False is for other
                users, who see the volume's uid and gid.

        Raises:
            RunnerError: A volume cannot be mounted.
        """
        if self.mode == "off" or not any(mount.stage for mount in request.mounts):
            return request
        if not own and not others_allowed():
            logger.warning("Container %s has plain stage volumes: %s.", request.name, NO_OTHERS)
            return request
        home = self.folder / uuid.uuid4().hex[:16]
        home.mkdir()
        volumes, mounts = [], []
        for mount in request.mounts:
            if not mount.stage or mount.source is None:
                mounts.append(mount)
                continue
            target = home / str(len(volumes))
            target.mkdir()
            volumes.append(_volume(mount, target, own=own))
            mounts.append(replace(mount, source=target))
        plan = {
            "run_dir": str(request.run_dir),
            "partials": str(home / "partial"),
            "volumes": volumes,
        }
        supervise.write_json(home / "mount.json", plan)
        (request.run_dir / "stage_mounts").write_text(str(home))
        try:
            _start(home)
        except RunnerError:
            _remove(home)
            raise
        return replace(request, mounts=tuple(mounts))

    def _probe(self) -> str:
        """Mount something and use it; return why that does not work, or nothing."""
        if sys.platform != "linux" or not Path(fuse_wire.DEVICE).exists():
            return f"this host has no {fuse_wire.DEVICE}"
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self.folder) as name:
            backing, run_dir = Path(name, "stage"), Path(name, "run")
            backing.mkdir()
            run_dir.mkdir()
            request = RunRequest(
                run_dir=run_dir, name="probe", image=None,  # type: ignore[arg-type]
                mounts=(Mount("/probe", backing, stage=True),),
            )  # fmt: skip
            self.mode = "strict"
            try:
                mounted = self.prepare(request).mounts[0].source
                assert mounted is not None
                (mounted / "probe").write_text("1")
                works = (backing / "probe").read_text() == "1"
            except (OSError, RunnerError) as error:
                return f"a stage cannot be mounted: {error}"
            finally:
                release(run_dir)
            return "" if works else "a mounted stage loses files"


def others_allowed() -> bool:
    """Tell whether other users, such as a container engine, may use a mount of this one."""
    if os.geteuid() == 0:
        return True
    with contextlib.suppress(OSError):
        return "user_allow_other" in Path("/etc/fuse.conf").read_text().split("\n")
    return False


def release(run_dir: Path) -> None:
    """Take the stage mounts of a container away; there may be none, or dead ones."""
    note = run_dir / "stage_mounts"
    with contextlib.suppress(FileNotFoundError):
        home = Path(note.read_text())
        _end_server(home)
        _remove(home)
        note.unlink()


def clean(state_dir: Path) -> int:
    """Take away mounts whose server or container is gone; return how many there were."""
    homes = [home for home in _homes(state_dir) if not _is_in_use(home)]
    for home in homes:
        _end_server(home)
        _remove(home)
    return len(homes)


def release_all(state_dir: Path) -> None:
    """Take every mount of an account away, before its directory is deleted."""
    for home in _homes(state_dir):
        _end_server(home)
        _remove(home)
    for target in fuse_wire.mounted_below(str(state_dir / "mounts")):
        with contextlib.suppress(OSError):
            fuse_wire.unmount(target)


def _volume(mount: Mount, target: Path, *, own: bool) -> dict:
    uid = os.geteuid() if own or mount.uid is None else mount.uid
    gid = os.getegid() if own or mount.gid is None else mount.gid
    return {
        "target": str(target),
        "backing": str(mount.source),
        "read_only": mount.read_only,
        "uid": uid,
        "gid": gid,
        "for_others": not own or os.geteuid() == 0,
    }


def _start(home: Path) -> None:
    """Start the server of a container's mounts and wait until it serves."""
    with (home / "server.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SERVE, _ROOT, str(home / "mount.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    assert child.stdout is not None
    _children[home] = child
    with child.stdout as pipe:
        ready, _, _ = select.select([pipe], [], [], START_SECONDS)
        answer = pipe.readline().decode("utf-8", "replace").strip() if ready else "no answer"
    if answer != "ready":
        child.kill()
        _reap(home)
        detail = answer or (home / "server.log").read_text()[-300:].strip()
        raise RunnerError(f"stage volumes cannot be mounted: {detail}")


def _end_server(home: Path) -> None:
    """Let the server finish what is closed already; kill it when it does not end."""
    deadline = time.monotonic() + stage_serve.DRAIN_SECONDS + 0.5
    identity = _server(home)
    if identity is not None:
        with contextlib.suppress(OSError):
            os.kill(identity["pid"], signal.SIGTERM)
    while _server(home) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    identity = _server(home)
    if identity is not None:
        with contextlib.suppress(OSError):
            os.kill(identity["pid"], signal.SIGKILL)
    _reap(home)


def _server(home: Path) -> dict | None:
    """Return the identity of a mount's server while it runs."""
    _reap(home)
    try:
        known = json.loads((home / "server.json").read_text())
        now = supervise.identity(known["pid"])
        state = Path(f"/proc/{known['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    same = all(now[key] == known[key] for key in ("pid", "start_ticks", "boot_id"))
    return known if same and state != "Z" else None


def _is_in_use(home: Path) -> bool:
    """Tell whether a server still serves a container that is not over."""
    try:
        run_dir = Path(json.loads((home / "mount.json").read_text())["run_dir"])
    except (OSError, ValueError, KeyError):
        return False
    return _server(home) is not None and not stage_serve.has_ended(run_dir)


def _remove(home: Path) -> None:
    """Unmount and delete a container's mount directory; never what is behind a mount."""
    for target in fuse_wire.mounted_below(str(home)):
        with contextlib.suppress(OSError):
            fuse_wire.unmount(target)
    shutil.rmtree(home / "partial", ignore_errors=True)
    for name in ("mount.json", "server.json", "server.log"):
        (home / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # rmdir fails on whatever is still mounted
        for child in home.iterdir():
            child.rmdir()
        home.rmdir()


def _homes(state_dir: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from [path for path in (state_dir / "mounts").iterdir() if path.is_dir()]


_children: dict[Path, "subprocess.Popen[bytes]"] = {}


def _reap(home: Path) -> None:
    child = _children.get(home)
    if child is not None and child.poll() is not None:
        _children.pop(home, None)
