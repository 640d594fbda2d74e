"""One gibibyte through a stage volume's mount and through a plain directory."""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench.figures import Figure
from monad_dagster.local.images.image_rootfs import Image, ImageConfig
from monad_dagster.local.runners.base import Mount, RunRequest
from monad_dagster.local.runners.stage_mount import StageMounts, release

BYTES, PIECE = 1 << 30, 1 << 20


def one_gibibyte() -> list[Figure]:
    """Write and read sequentially, alternating, three times each."""
    folder = Path(tempfile.mkdtemp(prefix="bench-mount-"))
    try:
        return _measure(folder)
    finally:
        release(folder / "run")
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path) -> list[Figure]:
    plain, run_dir = folder / "stages", folder / "run"
    plain.mkdir()
    run_dir.mkdir()
    mounts = StageMounts(folder)
    if mounts.mode == "off":
        print(f"  no figures: {mounts.describe()}")
        return []
    image = Image("sha256:none", folder, ImageConfig())
    request = RunRequest(run_dir, "bench", image, mounts=(Mount("/st", plain, stage=True),))
    mounted = mounts.prepare(request).mounts[0].source
    assert mounted is not None
    times: dict[str, list[tuple[float, float, float]]] = {"plain": [], "mount": []}
    for _ in range(3):
        times["plain"].append(_pass(plain / "a", plain / "a"))
        times["mount"].append(_pass(mounted / "b", plain / "b"))
    figures = []
    for index, what in enumerate(("write", "read from disk", "read from memory")):
        ours, theirs = (statistics.median(t[index] for t in times[k]) for k in ("mount", "plain"))
        figures.append(
            Figure(f"stage mount, {what} 1 GiB", ours, "s", peer=f"plain directory {theirs:.2f} s")
        )
    return figures


def _pass(path: Path, on_disk: Path) -> tuple[float, float, float]:
    block = os.urandom(PIECE)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(BYTES // PIECE):
            file.write(block)
    written = time.perf_counter() - started
    _forget(path, on_disk)
    cold, warm = _read(path), _read(path)
    path.unlink()
    return written, cold, warm


def _read(path: Path) -> float:
    started = time.perf_counter()
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            size += len(piece)
    assert size == BYTES
    return time.perf_counter() - started


def _forget(path: Path, on_disk: Path) -> None:
    """Take both files out of the page cache."""
    for each in {path, on_disk}:
        with each.open("rb") as file:
            os.fsync(file.fileno()) if each == on_disk else None
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
