"""What a stage volume allows: whole files, written once, from the start to the end.

Follows "Snowflake stage volumes" (v2): random writes and appends are errors, files cannot be
renamed, linked or locked, and a file is there for others once `close()` has succeeded. Snowflake
names no error numbers; those below are the nearest documented ones [I]: EINVAL for a write out of
order (Mountpoint for Amazon S3), EPERM for links (link(2)), ENOLCK for locks (fcntl(2)) and
EOPNOTSUPP for the rest.

A file being written lies outside the stage and is moved into it at `close()`. It is thrown away
when a write was refused or failed, or when a signal killed the process that opened it.
"""

import contextlib
import errno
import os
import shutil
import stat
import threading
import uuid
from pathlib import Path

from monad_dagster.local.runners import callers, fuse_wire
from monad_dagster.local.runners.fuse_wire import Handler, Reply, Request
from monad_dagster.local.runners.stage_nodes import Handle, Node, NodeTable, stage_error

HIDDEN = ".monad-"  # how the account names what it is itself moving into a stage
_FLUSH_SECONDS = 1.0  # that a RELEASE waits for a FLUSH which another thread has
_LARGE, _AHEAD = 128 * 1024, 8 << 20
_FILE_MODE, _DIRECTORY_MODE = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class StageFileSystem:
    """One stage volume.

    Args:
        backing: The stage's directory, or one below it.
        partials: Where files lie while they are written; on the same disk.
        uid: Owner of every file.
        gid: Group of every file.
        full_note: A file; while it names the backing directory, the disk is full.
    """

    def __init__(
        self, backing: Path, partials: Path, *, uid: int, gid: int, full_note: Path | None = None
    ) -> None:
        self.backing, self.partials = backing, partials
        self._full_note = full_note
        self._uid, self._gid = uid, gid
        self._table = NodeTable()
        self._thread = threading.local()

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each request."""
        names = set(fuse_wire.OPCODES.values())
        return {name: found for name in names if (found := getattr(self, f"do_{name}", None))}

    @property
    def num_writers(self) -> int:
        """How many files are being written."""
        return self._table.num_writers

    def _buffer(self) -> memoryview:
        """Return this thread's buffer; its reply is sent before the thread reads again."""
        found = getattr(self._thread, "buffer", None)
        if found is None:
            found = self._thread.buffer = memoryview(bytearray(fuse_wire.MAX_WRITE))
        return found

    # --- names

    def do_lookup(self, request: Request) -> Reply:
        """Find a name in a directory."""
        path = self._child(request.node, request.name())
        return self._entry(path, self._stat(path))

    def do_forget(self, request: Request) -> Reply:
        """Drop the kernel's references to a node."""
        self._table.forget(request.node, request.unpack("<Q")[0])
        return None

    def do_batch_forget(self, request: Request) -> Reply:
        """Drop the kernel's references to many nodes."""
        (count,) = request.unpack("<I")
        numbers = request.unpack(f"<8x{count * 2}Q")
        for node, lookups in zip(numbers[::2], numbers[1::2], strict=True):
            self._table.forget(node, lookups)
        return None

    def do_mkdir(self, request: Request) -> Reply:
        """Create a directory."""
        path = self._child(request.node, request.name(8))
        self._place(path).mkdir(0o755)
        return self._entry(path, self._stat(path))

    def do_unlink(self, request: Request) -> Reply:
        """Delete a file."""
        path = self._child(request.node, request.name())
        if stat.S_ISDIR(self._stat(path).st_mode):
            raise stage_error(errno.EISDIR)
        self._place(path).unlink()
        return None

    def do_rmdir(self, request: Request) -> Reply:
        """Delete an empty directory."""
        self._place(self._child(request.node, request.name())).rmdir()
        return None

    def do_rename(self, request: Request) -> Reply:
        """Refuse: files of a stage cannot be renamed."""
        raise stage_error(errno.EOPNOTSUPP)

    def do_link(self, request: Request) -> Reply:
        """Refuse: there are no hard links."""
        raise stage_error(errno.EPERM)

    do_symlink = do_link
    do_mknod = do_link

    def do_lock(self, request: Request) -> Reply:
        """Refuse: files of a stage cannot be locked."""
        raise stage_error(errno.ENOLCK)

    def do_fallocate(self, request: Request) -> Reply:
        """Refuse: space cannot be reserved."""
        raise stage_error(errno.EOPNOTSUPP)

    # --- attributes

    def do_getattr(self, request: Request) -> Reply:
        """Return a node's attributes; an open version keeps its own."""
        flags, _, handle = request.unpack("<IIQ")
        wanted = handle if flags & fuse_wire.GETATTR_FH else None
        return self._attr_out(request.node, wanted)

    def do_setattr(self, request: Request) -> Reply:
        """Refuse a change of size; owner, mode and times are the volume's, as they are."""
        valid, _, number, size = request.unpack("<IIQQ")
        wanted = number if valid & fuse_wire.FATTR_FH else None
        if valid & fuse_wire.FATTR_SIZE:
            handle = self._table.handle(number) if wanted is not None else None
            if handle is None or handle.partial is None:
                raise stage_error(errno.EOPNOTSUPP)
            with handle.lock:
                if size != handle.size:
                    raise self._poison(handle, errno.EINVAL)
        return self._attr_out(request.node, wanted)

    def do_statfs(self, request: Request) -> Reply:
        """Return the disk's facts."""
        return fuse_wire.statfs(str(self.backing))

    # --- files

    def do_create(self, request: Request) -> Reply:
        """Begin a new file; it has no name in the stage yet."""
        flags, _ = request.unpack("<II")
        path = self._child(request.node, request.name(16))
        with contextlib.suppress(FileNotFoundError):
            found = self._stat(path)
            if flags & os.O_EXCL:
                raise stage_error(errno.EEXIST)
            self._check_overwrite(found, flags)
        partial = self.partials / uuid.uuid4().hex
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        facts = os.fstat(descriptor)
        node = self._table.remember(path, facts)
        opener = callers.process_of(request.pid)
        number = self._table.open(Handle(node, descriptor, partial, opener=opener))
        attr = self._attributes(node.id, facts)
        return fuse_wire.entry(node.id, attr) + fuse_wire.opened(number, fuse_wire.FOPEN_DIRECT_IO)

    def do_open(self, request: Request) -> Reply:
        """Open a version for reading, or begin to write the next one."""
        flags, _ = request.unpack("<II")
        node = self._table.node(request.node)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            descriptor = self._open_version(node)
            facts = os.fstat(descriptor)
            seen, node.cached = node.cached, (facts.st_size, facts.st_mtime_ns)
            keep = fuse_wire.FOPEN_KEEP_CACHE if seen == node.cached else 0
            return fuse_wire.opened(self._table.open(Handle(node, descriptor)), keep)
        with contextlib.suppress(FileNotFoundError):
            self._check_overwrite(self._stat(node.path), flags)
        partial = self.partials / uuid.uuid4().hex
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        handle = Handle(node, descriptor, partial, opener=callers.process_of(request.pid))
        return fuse_wire.opened(self._table.open(handle), fuse_wire.FOPEN_DIRECT_IO)

    def do_read(self, request: Request) -> Reply:
        """Read from the version that was opened."""
        number, offset, size = request.unpack("<QQI")
        buffer = self._buffer()[:size]
        descriptor = self._table.handle(number).descriptor
        count = os.preadv(descriptor, [buffer], offset)
        if size >= _LARGE:  # a long sequential read: let the disk work ahead of the requests
            os.posix_fadvise(descriptor, offset + size, _AHEAD, os.POSIX_FADV_WILLNEED)
        return buffer[:count]

    def do_write(self, request: Request) -> Reply:
        """Write at the end of the file; anywhere else is a random write."""
        number, offset, size = request.unpack("<QQI")
        handle = self._table.handle(number)
        with handle.lock:
            if handle.failed:
                raise stage_error(handle.failed)
            if offset != handle.size:
                raise self._poison(handle, errno.EINVAL)
            if handle.published:
                self._continue(handle)
            self._append(handle, request.body[40 : 40 + size])
        return size.to_bytes(4, "little") + bytes(4)

    def do_fsync(self, request: Request) -> Reply:
        """Bring what was written to the disk; it appears at close()."""
        handle = self._table.handle(request.unpack("<Q")[0])
        if handle.partial is not None:
            if handle.failed:
                raise stage_error(handle.failed)
            os.fsync(handle.descriptor)
        return None

    def do_flush(self, request: Request) -> Reply:
        """Follow a close(): the opener's last one moves the file into the stage."""
        handle = self._table.handle(request.unpack("<Q")[0])
        if handle.partial is None:
            return None
        with handle.lock:
            closer = callers.process_of(request.pid)
            if closer not in (handle.opener, 0):
                return None  # a child closes what it inherited; the file is not complete
            handle.closed.set()
            if callers.was_killed(request.pid, handle.opener):
                self._discard(handle, errno.EINTR)
            elif closer and not callers.holds_another(
                handle.opener, self._table.inode(handle.node.id)
            ):
                self._publish(handle)
            if handle.failed:
                raise stage_error(handle.failed)
        return None

    def do_release(self, request: Request) -> Reply:
        """Forget an open file, after its last descriptor is gone."""
        number = request.unpack("<Q")[0]
        handle = self._table.handle(number)
        if handle.partial is not None:
            # Of a process on its way out the kernel awaits no FLUSH: another thread may still have it.
            handle.closed.wait(_FLUSH_SECONDS)
        try:
            with handle.lock:
                if handle.partial is not None:
                    self._publish(handle)
        finally:
            self._table.drop(number)
            os.close(handle.descriptor)
        return None

    # --- directories

    def do_opendir(self, request: Request) -> Reply:
        """Open a directory."""
        return fuse_wire.opened(self._table.open(Handle(self._table.node(request.node))))

    def do_readdir(self, request: Request) -> Reply:
        """Return entries; they are listed when reading begins."""
        number, offset, size = request.unpack("<QQI")
        handle = self._table.handle(number)
        if offset == 0:
            handle.listing = self._list(handle.node)
        reply = b""
        for index in range(offset, len(handle.listing)):
            name, kind, node = handle.listing[index]
            entry = fuse_wire.directory_entry(node, index + 1, kind, name)
            if len(reply) + len(entry) > size:
                break
            reply += entry
        return reply

    def do_releasedir(self, request: Request) -> Reply:
        """Close a directory."""
        self._table.drop(request.unpack("<Q")[0])
        return None

    def do_fsyncdir(self, request: Request) -> Reply:
        """Do nothing: names are in the stage when close() returns."""
        return None

    def do_destroy(self, request: Request) -> Reply:
        """Do nothing: the process ends."""
        return None

    # --- writing

    def _check_overwrite(self, found: os.stat_result, flags: int) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise stage_error(errno.EISDIR)
        if found.st_size and not flags & os.O_TRUNC:
            raise stage_error(errno.EOPNOTSUPP)  # append, or editing in place

    def _append(self, handle: Handle, data: memoryview) -> None:
        while data:
            try:
                if self._is_full():
                    raise stage_error(errno.ENOSPC)
                written = os.pwrite(handle.descriptor, data, handle.size)
            except OSError as error:
                raise self._poison(handle, error.errno or errno.EIO) from None
            handle.size += written
            data = data[written:]

    def _is_full(self) -> bool:
        """Tell whether the account makes the disk full on purpose."""
        if self._full_note is None:
            return False
        try:
            return str(self.backing) in self._full_note.read_text().splitlines()
        except FileNotFoundError:
            return False

    def _poison(self, handle: Handle, number: int) -> OSError:
        """Give a file up: an upload that lost a piece cannot be completed."""
        self._discard(handle, number)
        return stage_error(number)

    def _discard(self, handle: Handle, number: int) -> None:
        handle.failed = handle.failed or number
        if handle.partial is not None and not handle.published:
            handle.partial.unlink(missing_ok=True)

    def _publish(self, handle: Handle) -> None:
        """Move a complete file into the stage, in one step."""
        if handle.published or handle.failed or handle.partial is None:
            return
        place = self._place(handle.node.path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle.partial.replace(place)
        except OSError as error:
            raise self._poison(handle, error.errno or errno.EIO) from None
        handle.published = True

    def _continue(self, handle: Handle) -> None:
        """Go on after a close() by a process that kept another descriptor: on a copy."""
        partial = self.partials / uuid.uuid4().hex
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(handle.descriptor, "rb", closefd=False) as source, partial.open("r+b") as copy:
            source.seek(0)
            shutil.copyfileobj(source, copy, 1 << 20)
        os.close(handle.descriptor)
        handle.descriptor, handle.partial, handle.published = descriptor, partial, False

    # --- nodes and handles

    def _child(self, parent: int, name: str) -> str:
        if name in ("", ".", "..") or "/" in name:
            raise stage_error(errno.EINVAL)
        if name.startswith(HIDDEN):
            raise stage_error(errno.ENOENT)
        path = self._table.node(parent).path
        return f"{path}/{name}" if path else name

    def _place(self, path: str) -> Path:
        return self.backing / path

    def _stat(self, path: str) -> os.stat_result:
        """Return a file's or directory's facts; links are not part of a stage."""
        if not path:  # REMOVE of the last file takes the directory along
            self.backing.mkdir(parents=True, exist_ok=True)
        found = os.lstat(self._place(path))
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise stage_error(errno.ENOENT)
        return found

    def _open_version(self, node: Node) -> int:
        """Open what is in the stage now under the node's name."""
        return os.open(self._place(node.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _entry(self, path: str, facts: os.stat_result) -> bytes:
        node = self._table.remember(path, facts)
        return fuse_wire.entry(node.id, self._attributes(node.id, facts))

    def _attributes(self, number: int, facts: os.stat_result) -> bytes:
        mode = _DIRECTORY_MODE if stat.S_ISDIR(facts.st_mode) else _FILE_MODE
        inode = self._table.inode(number)
        return fuse_wire.attributes(facts, inode=inode, mode=mode, uid=self._uid, gid=self._gid)

    def _attr_out(self, number: int, wanted: int | None) -> bytes:
        attr = self._attributes(number, self._facts(number, wanted))
        node = self._table.node(number)
        # The kernel asks before each read() otherwise. Names are looked up each time, so that a
        # new version is seen at once whatever is remembered of the old one.
        is_complete = not any(handle.partial for handle in self._table.opened(node))
        return fuse_wire.attr_out(attr, 1 if is_complete and node.path else 0)

    def _facts(self, number: int, wanted: int | None) -> os.stat_result:
        """Return the facts of an open file, or of the node's version."""
        if wanted is not None and self._table.handle(wanted).descriptor >= 0:
            return os.fstat(self._table.handle(wanted).descriptor)
        node = self._table.node(number)
        try:
            found = self._stat(node.path)
        except FileNotFoundError:
            found = None
        if not node.path:
            return self._stat("")
        if found is not None and (found.st_dev, found.st_ino) == node.key[1:]:
            return found
        handles = [handle for handle in self._table.opened(node) if handle.descriptor >= 0]
        opened = [os.fstat(handle.descriptor) for handle in handles]
        same = [facts for facts in opened if (facts.st_dev, facts.st_ino) == node.key[1:]]
        for facts in (*same, *opened):
            return facts
        if found is None:
            raise stage_error(errno.ENOENT)
        return found

    def _list(self, node: Node) -> list[tuple[str, int, int]]:
        self._stat(node.path)
        with os.scandir(self._place(node.path)) as found:
            entries = [
                (entry.name, 4 if entry.is_dir(follow_symlinks=False) else 8, entry.inode())
                for entry in found
                if not entry.is_symlink() and not entry.name.startswith(HIDDEN)
            ]
        return [(".", 4, 1), ("..", 4, 1), *sorted(entries)]
