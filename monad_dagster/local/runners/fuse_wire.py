"""The kernel's side of a file system in user space: mounting, requests, replies.

The protocol is the stable one of <linux/fuse.h>, version 7.23 or newer (Linux 3.15). It is spoken
here directly, with the standard library only, because a stage mount needs what the path-based
libraries hide: an identity for each version of a file, and who closes it (see docs/decisions.md).
What the file system does is not here; `stage_fs.py` is that.
"""

import array
import contextlib
import ctypes
import errno
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICE = "/dev/fuse"
KIND = "fuse.monad-stage"
MAX_WRITE = 1 << 20
ROOT_ID = 1
MS_RDONLY, MS_NOSUID, MS_NODEV, MNT_DETACH = 1, 2, 4, 2
FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE = 1, 2
GETATTR_FH, FATTR_SIZE, FATTR_FH = 1, 8, 64

_MAJOR, _OLDEST_MINOR, _MINOR = 7, 23, 31
_ASYNC_READ, _POSIX_LOCKS, _ATOMIC_O_TRUNC, _BIG_WRITES = 1, 2, 8, 32
_FLOCK_LOCKS, _AUTO_INVAL_DATA, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 10, 1 << 12, 1 << 18, 1 << 22
_WANTED = (
    _ASYNC_READ | _POSIX_LOCKS | _ATOMIC_O_TRUNC | _BIG_WRITES | _FLOCK_LOCKS
    | _AUTO_INVAL_DATA | _PARALLEL_DIROPS | _MAX_PAGES
)  # fmt: skip
_IN_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_STATFS = struct.Struct("<QQQQQIIII24x")

OPCODES = {
    1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 6: "symlink", 8: "mknod", 9: "mkdir",
    10: "unlink", 11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write",
    17: "statfs", 18: "release", 20: "fsync", 25: "flush", 27: "opendir", 28: "readdir",
    29: "releasedir", 30: "fsyncdir", 31: "lock", 32: "lock", 33: "lock", 35: "create",
    38: "destroy", 42: "batch_forget", 43: "fallocate", 45: "rename",
}  # fmt: skip
_INIT, _INTERRUPT = 26, 36
_NO_REPLY = {2, 36, 42}

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Request:
    """One request of the kernel; `pid` is the calling thread's, in this process's namespace."""

    opcode: int
    node: int
    pid: int
    body: memoryview

    def name(self, skip: int = 0) -> str:
        """Return the first null-terminated name after *skip* bytes."""
        return os.fsdecode(bytes(self.body[skip:]).split(b"\0", 1)[0])

    def unpack(self, form: str) -> tuple[int, ...]:
        """Return the integers at the start of the body."""
        return struct.unpack_from(form, self.body)


Reply = bytes | memoryview | None
Handler = Callable[[Request], Reply]


# --- replies


def attributes(stat: os.stat_result, *, inode: int, mode: int, uid: int, gid: int) -> bytes:
    """Return `struct fuse_attr`."""
    times = (stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns)
    seconds = [max(0, time) // 10**9 for time in times]
    parts = [max(0, time) % 10**9 for time in times]
    blocks = (stat.st_size + 511) // 512
    return _ATTR.pack(
        inode, stat.st_size, blocks, *seconds, *parts, mode, 1, uid, gid, 0, MAX_WRITE, 0
    )


def entry(node: int, attr: bytes) -> bytes:
    """Return `struct fuse_entry_out`; nothing may be cached, so that reads see the latest."""
    return _ENTRY.pack(node, 0, 0, 0, 0, 0) + attr


def attr_out(attr: bytes, valid_seconds: int = 0) -> bytes:
    """Return `struct fuse_attr_out`."""
    return _ATTR_OUT.pack(valid_seconds, 0, 0) + attr


def opened(handle: int, flags: int = 0) -> bytes:
    """Return `struct fuse_open_out`."""
    return _OPEN_OUT.pack(handle, flags, 0)


def statfs(path: str) -> bytes:
    """Return `struct fuse_statfs_out` of a directory's file system."""
    at = os.statvfs(path)
    return _STATFS.pack(
        at.f_blocks, at.f_bfree, at.f_bavail, at.f_files, at.f_ffree, at.f_bsize, 255,
        at.f_frsize, 0,
    )  # fmt: skip


def directory_entry(node: int, offset: int, kind: int, name: str) -> bytes:
    """Return one `struct fuse_dirent` with its padding."""
    encoded = os.fsencode(name)
    return struct.pack("<QQII", node, offset, len(encoded), kind) + encoded.ljust(
        (len(encoded) + 7) // 8 * 8, b"\0"
    )


# --- the connection


class Connection:
    """One mounted file system: reads requests and answers them on a few threads.

    Args:
        descriptor: The open /dev/fuse of the mount.
        handlers: What answers, by the names in OPCODES; a missing one is ENOSYS.
        num_threads: How many requests are served at once.
    """

    def __init__(
        self, descriptor: int, handlers: dict[str, Handler], *, num_threads: int = 3
    ) -> None:
        self._descriptor = descriptor
        self._handlers = handlers
        self._threads = [threading.Thread(target=self._serve) for _ in range(num_threads)]

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Tell whether the file system is still mounted somewhere."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, seconds: float) -> None:
        """Wait until the kernel has let go of the mount."""
        for thread in self._threads:
            thread.join(seconds)

    def _serve(self) -> None:
        buffer = bytearray(MAX_WRITE + 8192)
        view = memoryview(buffer)
        while True:
            try:
                size = os.readv(self._descriptor, [buffer])
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue  # ENOENT: the caller was interrupted before this one was read
                return  # ENODEV after the unmount, ECONNABORTED after an abort
            if size >= _IN_HEADER.size:
                self._answer(view[:size])

    def _answer(self, message: memoryview) -> None:
        _, opcode, unique, node, _, _, pid, _ = _IN_HEADER.unpack_from(message)
        request = Request(opcode, node, pid, message[_IN_HEADER.size :])
        failure, reply = 0, None
        try:
            reply = self._reply(request)
        except OSError as error:
            failure = error.errno or errno.EIO
        except Exception:  # a request that is not understood must not leave its caller waiting
            failure = errno.EIO
        if opcode in _NO_REPLY:
            return
        body = b"" if failure or reply is None else reply
        header = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -failure, unique)
        with contextlib.suppress(OSError):  # the caller was killed meanwhile
            os.writev(self._descriptor, [header, body])

    def _reply(self, request: Request) -> Reply:
        if request.opcode == _INIT:
            return _initial(request)
        if request.opcode == _INTERRUPT:
            return None
        handler = self._handlers.get(OPCODES.get(request.opcode, ""))
        if handler is None:
            raise OSError(errno.ENOSYS, "not a stage operation")
        return handler(request)


def _initial(request: Request) -> bytes:
    major, minor, readahead, flags = request.unpack("<IIII")
    if (major, minor) < (_MAJOR, _OLDEST_MINOR):
        raise OSError(errno.EPROTO, "the kernel's FUSE is too old")
    return _INIT_OUT.pack(
        _MAJOR, min(minor, _MINOR), readahead, flags & _WANTED, 12, 9, MAX_WRITE, 1,
        MAX_WRITE // os.sysconf("SC_PAGE_SIZE"), 0, 0,
    )  # fmt: skip


# --- mounting


def mount(target: str, *, read_only: bool, for_others: bool) -> int:
    """Mount on a directory and return the descriptor that serves it.

    Args:
        target: The directory.
        read_only: Refuse writes.
        for_others: Let other users in.

    Raises:
        OSError: The host does not allow it; the text says why.
    """
    options = f"rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if os.geteuid() != 0:
        return _mount_by_helper(target, read_only=read_only, for_others=for_others)
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
    others = ",allow_other" if for_others else ""
    data = f"fd={descriptor},{options}{others},max_read={MAX_WRITE}"
    result = libc.mount(
        b"monad-stage", os.fsencode(target), KIND.encode(), ctypes.c_ulong(flags), data.encode()
    )
    if result != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, f"mount on {target}: {os.strerror(number)}")
    return descriptor


def _mount_by_helper(target: str, *, read_only: bool, for_others: bool) -> int:
    """Let fusermount3, which may mount for users, do it and hand over the descriptor."""
    helper = mount_helper()
    if helper is None:
        raise OSError(errno.EPERM, "not root, and fusermount3 is not installed")
    ours, theirs = socket.socketpair()
    options = "fsname=monad-stage,subtype=monad-stage,nosuid,nodev"
    options += (",ro" if read_only else ",rw") + (",allow_other" if for_others else "")
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", options, "--", target],
            env={"_FUSE_COMMFD": str(theirs.fileno()), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if done.returncode != 0:
            raise OSError(errno.EPERM, done.stderr.strip() or f"{helper} refused")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[:4])
    if not descriptors:
        raise OSError(errno.EIO, f"{helper} handed over no descriptor")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def mount_helper() -> str | None:
    """Return the program that mounts for users, if there is one."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def read_ahead(target: str) -> None:
    """Let the kernel read a mount in large pieces; only root may, others read in small ones."""
    wanted = _escaped(target)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == wanted:
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{fields[2]}/read_ahead_kb").write_text(str(MAX_WRITE // 1024))


def unmount(target: str) -> None:
    """Take a mount away, busy or dead; it never waits for who serves it.

    Raises:
        OSError: It is still there.
    """
    if os.geteuid() == 0:
        if libc.umount2(os.fsencode(target), MNT_DETACH) == 0:
            return
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):  # not mounted
            return
        raise OSError(number, f"umount of {target}: {os.strerror(number)}")
    if not is_mounted(target):
        return
    helper = mount_helper()
    if helper is None:
        raise OSError(errno.EPERM, f"umount of {target}: fusermount3 is not installed")
    done = subprocess.run(
        [helper, "-u", "-q", "-z", "--", target], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and is_mounted(target):
        raise OSError(errno.EBUSY, f"umount of {target}: {done.stderr.strip()}")


def is_mounted(target: str) -> bool:
    """Tell whether a stage is mounted there, without touching a mount that may be dead."""
    wanted = _escaped(target)
    return any(mounted == wanted for mounted in _mounted())


def mounted_below(folder: str) -> Sequence[str]:
    """Return the stage mounts below a directory, deepest first."""
    prefix = _escaped(folder).rstrip("/") + "/"
    found = [mounted for mounted in _mounted() if mounted.startswith(prefix)]
    return sorted((_unescaped(path) for path in found), reverse=True)


def _mounted() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4] for line in lines if f" - {KIND} " in line]


def _escaped(path: str) -> str:
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


def _unescaped(path: str) -> str:
    for character in "\n\t \\":
        path = path.replace(f"\\{ord(character):03o}", character)
    return path
