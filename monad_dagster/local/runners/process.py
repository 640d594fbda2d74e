"""Runs containers as processes of this host, as isolated as the host allows.

Three levels, found at start-up by running something: `bubblewrap`, `unshare` (our own use of user
and mount namespaces) and `plain` (no isolation: mount paths in command, args and env are
replaced by host paths). Memory limits are watched, not enforced by the kernel; the network is
the host's: each instance has a loopback address of its own, and the documented names lead to it
through a generated /etc/hosts, except on the plain level, which cannot mount one. Each container
has a detached supervisor, so it outlives the account.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from monad_dagster.local.images.image_rootfs import Image, ImageConfig
from monad_dagster.local.runners import addresses, enter, layout, supervise
from monad_dagster.local.runners.base import (
    ContainerExit,
    ContainerUsage,
    Mount,
    RunnerError,
    RunRequest,
)

LEVELS = ("bubblewrap", "unshare", "plain")
_STANDALONE = [sys.executable, "-I", "-S"]
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 30.0


class ProcessRunner:
    """Starts containers as supervised processes.

    Args:
        state_dir: The account's directory; shared files go below it.
        level: An isolation level; None tries them from the best.

    Attributes:
        maps_user: Containers run as this process's user, whatever they see.
    """

    maps_user = True

    def __init__(self, state_dir: Path, level: str | None = None) -> None:
        self.shared_dir = state_dir / "runner"
        layout.prepare_shared_dir(self.shared_dir)
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self.user_namespace = True
        self.level, self.reason = self._choose(level)

    def describe(self) -> str:
        """Say which isolation is in use and why."""
        what = {
            "bubblewrap": "process runner with bubblewrap: own file system, user, processes",
            "unshare": "process runner with Linux namespaces: own file system, user, processes",
            "plain": "process runner without isolation: paths mapped to host directories",
        }[self.level]
        return f"{what} ({self.reason})"

    needs_unpacked_image = True

    def account_host(self, host: str) -> str:
        """Return the account's host: the network is the host's."""
        return host

    def new_address(self, taken: Collection[str]) -> str:
        """Return a loopback address of the instance's own."""
        if sys.platform != "linux":  # elsewhere only 127.0.0.1 is up
            return "127.0.0.1"
        return addresses.loopback_address(str(self.shared_dir.parent), taken)

    def end_instance(self, instance_dir: Path) -> None:
        """Do nothing: an instance holds nothing beside its containers."""

    def start(self, request: RunRequest) -> "ProcessContainer":
        """Start a container under a supervisor."""
        if not request.argv:
            raise RunnerError("the image has no entrypoint and the specification no command")
        request.run_dir.mkdir(parents=True, exist_ok=True)
        plan = self.plan(request)
        supervise.write_json(request.run_dir / "plan.json", plan)
        log = (request.run_dir / "supervisor.log").open("ab")
        with log:
            child = subprocess.Popen(
                [*_STANDALONE, supervise.__file__, str(request.run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={"PATH": _DEFAULT_PATH},
            )
        self._children[request.run_dir] = child
        return ProcessContainer(request.run_dir, self._reap)

    def attach(self, run_dir: Path) -> "ProcessContainer | None":
        """Return the container of a run directory, if one was ever started there."""
        return attach_process(run_dir, self._reap)

    def _reap(self, run_dir: Path) -> None:
        child = self._children.get(run_dir)
        if child is not None and child.poll() is not None:
            self._children.pop(run_dir, None)

    # --- what is run

    def plan(self, request: RunRequest) -> dict:
        """Return the plan that the supervisor carries out."""
        plan = {
            "grace_seconds": request.grace_seconds,
            "memory_limit_bytes": request.memory_limit_bytes,
            "hostname": request.hostname,
            "cwd": request.image.config.working_dir,
            "created_at": time.time(),
        }
        if self.level == "plain":
            return plan | self._plain(request)
        root = request.run_dir / "root"
        root.mkdir(exist_ok=True)
        uid, gid = container_user(request)
        plan |= {
            "uid": uid,
            "gid": gid,
            "user_namespace": self.user_namespace,
            "root": str(root),
            "argv": list(request.argv),
            "env": container_env(request),
            "entries": [e.as_dict() for e in layout.container_entries(request, self.shared_dir)],
            "launch_env": {"PATH": _DEFAULT_PATH},
        }
        if self.level == "bubblewrap":
            return plan | {"terminate": "grandchildren", "launch": bubblewrap_command(plan)}
        plan_path = str(request.run_dir / "plan.json")
        launch = [*_STANDALONE, enter.__file__, plan_path, "{status_fd}"]
        return plan | {"terminate": "leader", "launch": launch}

    def _plain(self, request: RunRequest) -> dict:
        scratch = request.run_dir / "scratch"
        scratch.mkdir(exist_ok=True)
        paths = layout.plain_paths(request.image)
        for mount in request.mounts:
            host = _plain_source(request, mount)
            if host is not None:
                paths[mount.target] = str(host)
        bin_dir = str(self.shared_dir / "bin")
        env = container_env(request, bin_dir=bin_dir, home=str(scratch))
        env = {name: map_paths(value, paths) for name, value in env.items()}
        env.setdefault("TMPDIR", str(scratch))
        if not request.gpus:
            env.setdefault("CUDA_VISIBLE_DEVICES", "")
        argv = [map_paths(part, paths) for part in request.argv]
        found = shutil.which(argv[0], path=env["PATH"])
        if found is None:
            raise RunnerError(f"{argv[0]}: not found")
        cwd = map_paths(request.image.config.working_dir, paths)
        cwd = cwd if cwd != "/" and Path(cwd).is_dir() else str(scratch)
        return {
            "launch": [found, *argv[1:]],
            "launch_env": env,
            "launch_cwd": cwd,
            "terminate": "group",
        }

    # --- which level

    def _choose(self, level: str | None) -> tuple[str, str]:
        refusals = []
        for candidate in [level] if level else LEVELS:
            refusal = self._probe(candidate)
            if refusal is None:
                why = "; ".join(refusals) or ("asked for" if level else "the best there is")
                return candidate, why
            refusals.append(f"{candidate}: {refusal}")
        raise RunnerError(f"no process runner works here: {'; '.join(refusals)}")

    def _probe(self, level: str) -> str | None:
        """Run a container on this level; return why it does not work, or None."""
        if level == "plain":
            return None
        if sys.platform != "linux":
            return "needs Linux"
        if level == "bubblewrap" and shutil.which("bwrap") is None:
            return "bwrap is not installed"
        reasons = []
        for user_namespace in (True, False):
            self.level, self.user_namespace = level, user_namespace
            reason = self._run_probe()
            if reason is None or level == "bubblewrap":
                return reason
            reasons.append(reason)
        return reasons[0]

    def _run_probe(self) -> str | None:
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self.shared_dir) as folder:
            base = Path(folder)
            for name in ("image", "volume"):
                (base / name).mkdir()
            request = RunRequest(
                run_dir=base / "run",
                name="probe",
                image=Image("sha256:probe", base / "image", ImageConfig()),
                command=("python", "-I", "-S", "-c", "open('/probe/volume/ok','w').write('1')"),
                mounts=(Mount("/probe/volume", base / "volume"),),
            )
            container = self.start(request)
            end = container.wait(START_SECONDS)
            if end is None:
                container.kill()
                return "the probe did not end"
            if end.exit_code == 0 and (base / "volume" / "ok").exists():
                return None
            tail = container.log_path.read_text()[-300:] if container.log_path.exists() else ""
            return (end.start_error or tail.strip() or f"exit code {end.exit_code}")[-300:]


def attach_process(
    run_dir: Path, reap: Callable[[Path], None] = lambda _: None
) -> "ProcessContainer | None":
    """Return the container of a run directory, if a process runner ever started one there."""
    if not (run_dir / "plan.json").exists():
        return None
    return ProcessContainer(run_dir, reap)


class ProcessContainer:
    """A container whose supervisor may have been started by an earlier account process."""

    def __init__(self, run_dir: Path, reap: Callable[[Path], None]) -> None:
        self.run_dir = run_dir
        self._reap = reap
        self._exit: ContainerExit | None = None

    @property
    def log_path(self) -> Path:
        """The container's log."""
        return self.run_dir / "log"

    @property
    def started_at(self) -> float | None:
        """When the supervisor started it."""
        identity = _read_json(self.run_dir / "supervisor.json")
        return identity["started_at"] if identity else None

    def poll(self) -> ContainerExit | None:
        """Return how the container ended, or None while its supervisor lives."""
        if self._exit is None:
            self._reap(self.run_dir)
            # Order matters: a supervisor that just ended has written its file before.
            alive = self._is_supervised()
            ended = _read_json(self.run_dir / "exit.json")
            if ended is not None:
                self._exit = ContainerExit(**ended)
                _clean(self.run_dir)
            elif not alive:
                self._exit = ContainerExit(137, time.time(), lost=True)
        return self._exit

    def usage(self) -> ContainerUsage | None:
        """Measure what runs below the supervisor, and what has ended there."""
        identity = _read_json(self.run_dir / "supervisor.json")
        if identity is None or not self._is_supervised():
            return None
        cpu, memory = supervise.usage_below(identity["pid"])
        return ContainerUsage(time.time(), cpu, memory)

    def wait(self, timeout: float | None = None) -> ContainerExit | None:
        """Poll until the container ended or the time ran out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
        return end

    def terminate(self) -> None:
        """Let the supervisor end the container: SIGTERM, grace, SIGKILL."""
        # The file is for a supervisor that has not written its identity yet.
        (self.run_dir / supervise.TERMINATE).touch()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the supervisor; the container dies with it."""
        (self.run_dir / supervise.TERMINATE).touch()
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        identity = _read_json(self.run_dir / "supervisor.json")
        if identity and self._is_supervised():
            os.kill(identity["pid"], number)

    def _is_supervised(self) -> bool:
        identity = _read_json(self.run_dir / "supervisor.json")
        if identity is None:  # not yet written, or the machine went down before it was
            plan = _read_json(self.run_dir / "plan.json") or {}
            return time.time() - plan.get("created_at", 0) < START_SECONDS
        try:
            now = supervise.identity(identity["pid"])
            state = Path(f"/proc/{identity['pid']}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError, IndexError):
            return False
        same = all(now[key] == identity[key] for key in ("pid", "start_ticks", "boot_id"))
        return same and state != "Z"


def container_user(request: RunRequest) -> tuple[int, int]:
    """Return the uid and gid in the container: the image's user, else the stage volume's owner."""
    user, _, group = request.image.config.user.partition(":")
    if user.isdigit():
        return int(user), int(group) if group.isdigit() else int(user)
    for mount in request.mounts:
        if mount.uid is not None:
            return mount.uid, mount.gid if mount.gid is not None else mount.uid
    return 0, 0


def container_env(
    request: RunRequest, *, bin_dir: str = layout.INTERPRETER_BIN, home: str = "/root"
) -> dict[str, str]:
    """Return a container's environment: image, injected, specification; nothing of the host's."""
    env = {"PATH": _DEFAULT_PATH, "HOME": home, "LANG": "C.UTF-8"}
    if request.cpu_limit is not None and request.cpu_limit < (os.cpu_count() or 1):
        env["OMP_NUM_THREADS"] = str(max(1, int(request.cpu_limit)))
    env |= request.image.config.env
    if not request.image.is_self_contained:
        env["PATH"] = f"{bin_dir}:{Path(sys.executable).parent}:{env['PATH']}"
    return {**env, **request.injected_env, **request.spec_env}


def map_paths(text: str, paths: Mapping[str, str]) -> str:
    """Replace container paths at path boundaries by host paths, longest first."""
    if not paths:
        return text
    choices = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
    pattern = rf"(?<![\w./-])({choices})(?=$|[/:;,\s\"'=)])"
    return re.sub(pattern, lambda found: paths[found[1]], text)


def bubblewrap_command(plan: dict) -> list[str]:
    """Return the bwrap command line for a plan."""
    command = [
        shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
        "--hostname", plan["hostname"], "--die-with-parent", "--uid", str(plan["uid"]),
        "--gid", str(plan["gid"]), "--clearenv", "--bind", plan["root"], "/",
    ]  # fmt: skip
    for entry in plan["entries"]:
        command += _bubblewrap_step(entry)
    for name, value in plan["env"].items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", plan["cwd"], "--", *plan["argv"]]


def _bubblewrap_step(entry: dict) -> list[str]:
    kind, target = entry["kind"], entry["target"]
    if kind == "symlink":
        return ["--symlink", entry["source"], target]
    if kind == "bind":
        return ["--ro-bind" if entry["read_only"] else "--bind", entry["source"], target]
    if kind == "tmpfs":
        size = ["--size", str(entry["size_bytes"])] if entry.get("size_bytes") else []
        return [*size, "--perms", "1777", "--tmpfs", target]
    if kind == "dev":
        devices = [part for path in entry["devices"] for part in ("--dev-bind-try", path, path)]
        return ["--dev", target, *devices]
    return [f"--{kind}", target]


def _plain_source(request: RunRequest, mount: Mount) -> Path | None:
    if mount.source is not None:
        return mount.source
    if mount.target == "/dev/shm":  # noqa: S108 - the host has it too
        return None
    folder = request.run_dir / "memory" / mount.target.strip("/").replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _clean(run_dir: Path) -> None:
    for name in ("root", "scratch", "memory"):
        shutil.rmtree(run_dir / name, ignore_errors=True)


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
