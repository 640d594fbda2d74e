"""Enters a container: own user, mount, pid, ipc and uts namespaces, then the command.

Runs as `python -I -S enter.py PLAN STATUS_FD`, with the standard library only. Three processes:
the outer one holds the namespaces and forwards SIGTERM, the middle one is the container's init,
the inner one becomes the command. All mounts happen inside the private mount namespace: the host
file system is not touched. A start failure is written to STATUS_FD.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 10}  # chown, dac_override, fowner … net_bind_service
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int, what: str) -> int:
    """Raise OSError for a failed system call."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or raise OSError."""
    call(
        libc.mount(
            source.encode(), target.encode(), kind.encode() if kind else None,
            ctypes.c_ulong(flags), data.encode() or None,
        ),
        f"mount {source} on {target}",
    )  # fmt: skip


def main(plan: dict, status_fd: int) -> int:
    """Create the namespaces and return the container's exit code."""
    os.set_inheritable(status_fd, False)
    # Blocked until each process can act on it: an init without a handler would never see it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        enter_namespaces(plan)
    except OSError as error:
        os.write(status_fd, str(error).encode())
        return 126
    init = os.fork()
    if init == 0:
        os._exit(run_init(plan, status_fd))
    os.close(status_fd)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return exit_code(wait_for(init))


def enter_namespaces(plan: dict) -> None:
    """Leave the host's namespaces; the identity is mapped to the container's user."""
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    if plan["user_namespace"]:
        flags |= CLONE_NEWUSER
    call(libc.unshare(flags), "unshare")
    if plan["user_namespace"]:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{plan['uid']} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{plan['gid']} {gid} 1")


def run_init(plan: dict, status_fd: int) -> int:
    """Be process 1: build the root, start the command, reap until it ends."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    try:
        build_root(plan)
        socket.sethostname(plan["hostname"])
    except OSError as error:
        os.write(status_fd, str(error).encode())
        return 126
    command = os.fork()
    if command == 0:
        run_command(plan, status_fd)
    os.close(status_fd)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(command, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return exit_code(wait_for(command))


def run_command(plan: dict, status_fd: int) -> None:
    """Become the command; never returns."""
    try:
        os.setsid()
        drop_privileges()
        os.chdir(plan["cwd"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])
    except OSError as error:
        os.write(status_fd, f"{plan['argv'][0]}: {error.strerror}".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def drop_privileges() -> None:
    """Keep what a container keeps; the mounts cannot be changed afterwards."""
    for capability in range(64):
        if capability not in KEPT_CAPABILITIES:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def build_root(plan: dict) -> None:
    """Mount everything below the run directory's root and make that `/`."""
    root = plan["root"]
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    for entry in plan["entries"]:
        apply_entry(root, entry)
    old = Path(root, ".old")
    old.mkdir(exist_ok=True)
    number = PIVOT_ROOT[platform.machine()]
    call(libc.syscall(number, root.encode(), str(old).encode()), "pivot_root")
    os.chdir("/")
    call(libc.umount2(b"/.old", MNT_DETACH), "umount of the old root")
    Path("/.old").rmdir()


def apply_entry(root: str, entry: dict) -> None:
    """Apply one step of the plan: dir, symlink, file, bind, tmpfs, proc or dev."""
    target = root + entry["target"]
    kind = entry["kind"]
    if kind == "symlink":
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            Path(target).symlink_to(entry["source"])
    elif kind == "dir":
        Path(target).mkdir(parents=True, exist_ok=True)
    elif kind == "bind":
        bind(entry["source"], target, read_only=entry["read_only"])
    elif kind == "tmpfs":
        Path(target).mkdir(parents=True, exist_ok=True)
        size = f",size={entry['size_bytes']}" if entry.get("size_bytes") else ""
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777{size}")
    elif kind == "proc":
        mount_proc(target)
    elif kind == "dev":
        make_dev(target, entry["devices"])


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Bind a host file or directory into the root."""
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            Path(target).touch()
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        make_read_only(target)


def make_read_only(target: str) -> None:
    """Make a bind read-only, with what is mounted below it where the kernel can."""

    class MountAttributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "ns")]

    wanted = MountAttributes(MOUNT_ATTR_RDONLY, 0, 0, 0)
    done = libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE,
        ctypes.byref(wanted), ctypes.c_size_t(ctypes.sizeof(wanted)),
    )  # fmt: skip
    if done == 0:
        return
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def mount_proc(target: str) -> None:
    """Mount the container's own /proc, or the host's where that is not allowed."""
    Path(target).mkdir(parents=True, exist_ok=True)
    try:
        mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        mount("/proc", target, None, MS_BIND | MS_REC)


def make_dev(target: str, devices: list[str]) -> None:
    """Make a /dev with the harmless devices, and the GPU's when asked for."""
    Path(target).mkdir(parents=True, exist_ok=True)
    mount("tmpfs", target, "tmpfs", MS_NOSUID, "mode=755,size=65536k")
    for name in [f"/dev/{name}" for name in DEVICES] + devices:
        if Path(name).exists():
            bind(name, target + name.removeprefix("/dev"), read_only=False)
    for name, source in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path(target, name).symlink_to(f"/proc/self/fd{source}")
    shm = Path(target, "shm")
    shm.mkdir()
    mount("shm", str(shm), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")


def wait_for(wanted: int) -> int:
    """Reap children until *wanted* ended; return its wait status."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        except ChildProcessError:
            return 0
        if pid == wanted:
            return status


def exit_code(status: int) -> int:
    """Return a wait status as a shell would."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:  # noqa: PTH123
        content = json.load(file)
    sys.exit(main(content, int(sys.argv[2])))
