"""Short-lived directories on the local disk, and the removal of those that killed processes left.

A process that ends by SIGKILL removes nothing. The next one that needs a directory removes what is
a day old and ours: no transfer of a file takes that long.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_AGE_SECONDS = 86400.0
# The names that this module gives, and nothing else: eight characters are tempfile's.
_OURS = re.compile(r"monad-(get|image|load|log|messages|put)-[a-z0-9_]{8}")
_swept: set[str] = set()


@contextmanager
def scratch_directory(kind: str) -> Iterator[Path]:
    """Provide a directory that is removed afterwards.

    Args:
        kind: What it is for, one of those that `remove_leftovers` knows.
    """
    root = tempfile.gettempdir()
    if root not in _swept:
        _swept.add(root)
        remove_leftovers(Path(root), older_than=time.time() - MAX_AGE_SECONDS)
    with tempfile.TemporaryDirectory(prefix=f"monad-{kind}-", dir=root) as directory:
        yield Path(directory)


def remove_leftovers(root: Path, *, older_than: float) -> int:
    """Remove this user's directories of earlier processes and return how many there were.

    Args:
        root: The temporary directory, which may be everybody's.
        older_than: One that was changed after this time stays.
    """
    num_removed = 0
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if not _OURS.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):  # gone meanwhile: another process sweeps too
                found = entry.stat(follow_symlinks=False)
                if found.st_mtime < older_than and found.st_uid == os.getuid():
                    shutil.rmtree(entry.path)
                    num_removed += 1
    return num_removed
