"""Gives a volume's files the owner that the specification asks for, where the account may."""

import contextlib
import os
from collections.abc import Iterable

from monad_dagster.local.runners.base import Mount


def give_files(mounts: Iterable[Mount]) -> None:
    """Change the owner of volumes with `uid` or `gid`; only an account that is root can."""
    if os.geteuid() != 0:
        return
    for mount in mounts:
        if mount.source is None or (mount.uid is None and mount.gid is None):
            continue
        if os.path.ismount(mount.source):  # served by the account, with the owner asked for
            continue
        uid = -1 if mount.uid is None else mount.uid
        gid = -1 if mount.gid is None else mount.gid
        for folder, _, files in os.walk(mount.source):
            for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118
                with contextlib.suppress(
                    OSError
                ):  # gone meanwhile, or a file system without owners
                    found = os.lstat(path)
                    if found.st_uid != mount.uid or found.st_gid != mount.gid:
                        os.chown(path, uid, gid, follow_symlinks=False)
