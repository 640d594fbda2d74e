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
    """Tell whether the kernel closes the file because a signal ended the process."""
    try:
        parts = Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()
        if not int(parts[6]) & _PF_EXITING:
            return False
        whole = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return bool((int(parts[49]) | int(whole[49])) & 0x7F)
    except (OSError, ValueError, IndexError):
        return False


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
