"""Who closes a file: what /proc says about the process behind a request; standard library only."""

import contextlib
import os
from pathlib import Path

_PF_EXITING = 0x4  # the kernel's flag of a process on its way out


def process_of(thread: int) -> int:
    """Return the process of a thread; 0 when it cannot be seen."""
    try:
        for line in Path(f"/proc/{thread}/status").read_text().splitlines():
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def was_killed(thread: int, process: int) -> bool:
    """Tell whether the kernel closes the file because a signal ended the process.

    A thread that closes a file waits for the answer, so it is there to be looked at. One that is
    being killed does not wait: then the process tells, and if that is gone too, it was killed.
    """
    closer, leader = _leaving(thread), _leaving(process)
    if closer is None and leader is None:
        return True
    is_exiting, _ = closer or leader or (False, 0)
    return is_exiting and any(found[1] & 0x7F for found in (closer, leader) if found is not None)


def _leaving(task: int) -> tuple[bool, int] | None:
    """Return whether a task is on its way out and its exit code; None when it cannot be seen."""
    try:
        parts = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
        return bool(int(parts[6]) & _PF_EXITING), int(parts[49])
    except (OSError, ValueError, IndexError):
        return None


def holds_another(process: int, inode: int) -> bool:
    """Tell whether a process has a further descriptor of the file that it closes."""
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{process}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                text = path.read_text()
                if f"ino:\t{inode}\n" in text and _is_writable(text):
                    return True
    return False


def _is_writable(fdinfo: str) -> bool:
    flags = next(line for line in fdinfo.splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
