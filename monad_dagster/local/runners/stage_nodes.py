"""What the kernel holds of a stage volume: nodes, which are versions of files, and open files."""

import errno
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from monad_dagster.local.runners import fuse_wire


def stage_error(number: int) -> OSError:
    """Return the error that answers a request."""
    return OSError(number, os.strerror(number))


@dataclass
class Node:
    """One version of a file, or a directory, as the kernel knows it."""

    id: int
    path: str
    key: tuple[str, int, int]  # path, device and inode: a new version is a new node
    lookups: int = 0
    cached: tuple[int, int] | None = None  # size and time of what the kernel's pages hold
    handles: set[int] = field(default_factory=set)


@dataclass
class Handle:
    """An open file or directory; `partial` is the file being written."""

    node: Node
    descriptor: int = -1
    partial: Path | None = None
    size: int = 0
    opener: int = 0
    published: bool = False
    failed: int = 0  # the errno that close() reports; the file never appears
    listing: list[tuple[str, int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: threading.Event = field(default_factory=threading.Event)  # by its opener, and looked at


class NodeTable:
    """The nodes and open files of one volume."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        root = Node(fuse_wire.ROOT_ID, "", ("", 0, 0), lookups=1)
        self._nodes = {root.id: root}
        self._by_key = {root.key: root}
        self._handles: dict[int, Handle] = {}
        self._last_node = fuse_wire.ROOT_ID
        self._last_handle = 0
        # No file of another mount may look like one of this (see callers.holds_another).
        self._first_inode = (1 + secrets.randbelow(1 << 30)) << 32

    @property
    def num_writers(self) -> int:
        """How many files are being written."""
        with self._lock:
            return sum(handle.partial is not None for handle in self._handles.values())

    def inode(self, number: int) -> int:
        """Return the inode number that a node shows."""
        return self._first_inode + number

    def node(self, number: int) -> Node:
        """Return a node that the kernel knows."""
        with self._lock:
            found = self._nodes.get(number)
        if found is None:
            raise stage_error(errno.ESTALE)
        return found

    def handle(self, number: int) -> Handle:
        """Return an open file or directory."""
        return self._handles[number]

    def opened(self, node: Node) -> list[Handle]:
        """Return what is open of a node."""
        with self._lock:
            return [self._handles[number] for number in node.handles]

    def remember(self, path: str, facts: os.stat_result) -> Node:
        """Return the node of a version with one more reference by the kernel."""
        key = (path, facts.st_dev, facts.st_ino)
        with self._lock:
            node = self._by_key.get(key)
            if node is None:
                self._last_node += 1
                node = Node(self._last_node, path, key)
                self._nodes[node.id] = self._by_key[key] = node
            node.lookups += 1
            return node

    def forget(self, number: int, lookups: int) -> None:
        """Take references away; a node without one is gone."""
        with self._lock:
            node = self._nodes.get(number)
            if node is None or number == fuse_wire.ROOT_ID:
                return
            node.lookups -= lookups
            if node.lookups <= 0:
                del self._nodes[number]
                if self._by_key.get(node.key) is node:
                    del self._by_key[node.key]

    def open(self, handle: Handle) -> int:
        """Give an open file its number."""
        with self._lock:
            self._last_handle += 1
            self._handles[self._last_handle] = handle
            handle.node.handles.add(self._last_handle)
            return self._last_handle

    def drop(self, number: int) -> None:
        """Forget an open file."""
        with self._lock:
            handle = self._handles.pop(number)
            handle.node.handles.discard(number)
