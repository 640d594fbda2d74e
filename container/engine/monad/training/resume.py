# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Checkpoints that are written during training, from which `resume` continues.

    <output>/partial/kept/...            files of scratch that are complete, each copied once
    <output>/partial/<step>/state.ckpt   weights, optimizer, schedule and the place in the epoch
    <output>/partial/<step>/lineage.json the manifest, written last

A partial checkpoint counts only when its manifest is there and every file it names has the size
and digest it says. Nothing is rewritten on the output directory: each step has a directory of its
own, and the older ones are removed after the newer manifest is complete.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint

from monad.errors import CheckpointError, problem
from monad.io.writer import MANIFEST, copy_once, file_digest, publish
from monad.logs import run_logger

PARTIAL = "partial"
_KEPT, _STATE = "kept", "state.ckpt"
_EVERY_SECONDS = 60.0
_COST_SHARE = 20.0  # a checkpoint may cost a twentieth of the time between two of them
_WHOLE = 2  # partial checkpoints that stay, so that one is always complete


@dataclasses.dataclass
class Partial:
    """A complete partial checkpoint.

    Attributes:
        batch: Batches of *epoch* that are done.
        used_seconds: Seconds of training behind it, which a time budget counts.
        scratch: Where the files lay that its callbacks name.
    """

    directory: Path
    step: int
    epoch: int
    batch: int
    used_seconds: float
    scratch: str

    @property
    def state(self) -> Path | None:
        """The training state, or None when it was written before the first step."""
        path = self.directory / _STATE
        return path if path.is_file() else None


def fingerprint(*parts: Any) -> str:
    """Return a digest of the settings that two attempts must share to continue one another."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def newest(output: Path, key: str, scratch: Path) -> Partial | None:
    """Restore the newest complete partial checkpoint's files to *scratch*; None without one."""
    root = output / PARTIAL
    names = [p.name for p in root.glob("*/") if p.name.isdigit()] if root.is_dir() else []
    for name in sorted(names, key=int, reverse=True):
        found = _read(root / name, key)
        if found is None:
            continue
        partial, kept = found
        for entry in kept:
            copy_once(root / _KEPT / entry["path"], scratch / entry["path"])
        run_logger.info("Resume: continuing from step %d in %s", partial.step, partial.directory)
        return partial
    run_logger.info("Resume: no complete partial checkpoint in %s, starting anew", output)
    return None


def _read(directory: Path, key: str) -> tuple[Partial, list[dict[str, Any]]] | None:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stored = manifest["config"]
        kept = stored["kept"]
        partial = Partial(
            directory,
            int(stored["step"]),
            int(stored["epoch"]),
            int(stored["batch"]),
            float(stored["used_seconds"]),
            str(stored["scratch"]),
        )
    except (OSError, ValueError, KeyError) as error:
        run_logger.warning("Partial checkpoint %s is left out: %s", directory, error)
        return None
    if stored["key"] != key:
        run_logger.warning(
            "Partial checkpoint %s is left out: it was made with another configuration", directory
        )
        return None
    files = [(directory / e["path"], e) for e in manifest["files"]]
    files += [(directory.parent / _KEPT / e["path"], e) for e in kept]
    for file, entry in files:
        if not file.is_file() or file_digest(file) != (entry["sha256"], entry["size"]):
            run_logger.warning("Partial checkpoint %s is left out: %s differs", directory, file)
            return None
    return partial, kept


def clear(output: Path, keep_partial: bool) -> None:
    """Remove what an unfinished attempt left in *output*, optionally without its partials."""
    for entry in output.iterdir() if output.is_dir() else ():
        if keep_partial and entry.name == PARTIAL:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class PartialWriter:
    """Writes partial checkpoints of one training to its output directory."""

    def __init__(self, output: Path, scratch: Path, key: str) -> None:
        self.root = output / PARTIAL
        self.scratch = scratch
        self.key = key
        self._copied: dict[str, dict[str, Any]] = {}

    def write(
        self,
        state: Path | None,
        *,
        step: int = 0,
        epoch: int = 0,
        batch: int = 0,
        used_seconds: float = 0.0,
    ) -> None:
        """Copy what is new, then the state, then the manifest; remove older checkpoints."""
        kept = self._keep(state)
        directory = self.root / f"{step:09d}"
        if (directory / MANIFEST).is_file():
            return
        own = self.scratch.parent / f"{self.scratch.name}-partial"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        try:
            if state is not None:
                state.rename(own / _STATE)
            config = {
                "key": self.key,
                "step": step,
                "epoch": epoch,
                "batch": batch,
                "used_seconds": used_seconds,
                "scratch": str(self.scratch),
                "kept": kept,
            }
            publish(own, directory, {"kind": "partial_checkpoint", "config": config})
        finally:
            shutil.rmtree(own, ignore_errors=True)
        self._forget(kept)

    def _keep(self, state: Path | None) -> list[dict[str, Any]]:
        made = []
        for path in sorted(p for p in self.scratch.rglob("*") if p.is_file() and p != state):
            name = path.relative_to(self.scratch).as_posix()
            if name not in self._copied:
                target = self.root / _KEPT / name
                digest, size = file_digest(path)
                if not target.is_file() or file_digest(target) != (digest, size):
                    copy_once(path, target)
                self._copied[name] = {"path": name, "size": size, "sha256": digest}
            made.append(self._copied[name])
        return made

    def _forget(self, kept: list[dict[str, Any]]) -> None:
        numbered = sorted(p for p in self.root.iterdir() if p.name.isdigit())
        for old in numbered[:-_WHOLE]:
            shutil.rmtree(old, ignore_errors=True)
        if len(numbered) <= _WHOLE:
            return
        wanted = {entry["path"] for entry in kept}
        for directory in numbered[-_WHOLE:-1]:
            found = _read(directory, self.key)
            wanted |= {entry["path"] for entry in found[1]} if found else set()
        for path in (self.root / _KEPT).rglob("*"):
            name = path.relative_to(self.root / _KEPT).as_posix()
            if path.is_file() and name not in wanted:
                path.unlink()
                self._copied.pop(name, None)


class ResumeKeeper(Checkpoint):
    """Writes a partial checkpoint at intervals: after given steps, else by the clock.

    A checkpoint that falls due at an epoch's last batch is written at the end of the epoch, after
    its validation, so that nothing of the epoch is left to be done again.
    """

    def __init__(self, writer: PartialWriter, every_steps: int | None, used: float) -> None:
        self.writer = writer
        self.every_steps = every_steps
        self._started = time.monotonic() - used
        self._last = time.monotonic()
        self._cost = 0.0
        self._owed = False

    def _due(self, trainer: Any) -> bool:
        if self.every_steps:
            return trainer.global_step % self.every_steps == 0
        wait = max(_EVERY_SECONDS, _COST_SHARE * self._cost)
        due = time.monotonic() - self._last >= wait
        if trainer.world_size > 1:  # every process must come to the same answer
            due = bool(trainer.strategy.broadcast(due)) if trainer.global_step % 50 == 0 else False
        return due

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when due; at an epoch's last batch wait for the epoch's end."""
        self._owed = self._owed or self._due(trainer)
        if self._owed and not trainer.is_last_batch and not trainer.should_stop:
            self._write(trainer, trainer.current_epoch, batch_idx + 1)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what fell due at the last batch, unless training ends here."""
        if self._owed and not trainer.should_stop:
            self._write(trainer, trainer.current_epoch + 1, 0)

    def _write(self, trainer: Any, epoch: int, batch: int) -> None:
        begun = time.monotonic()
        state = self.writer.scratch / _STATE
        trainer.save_checkpoint(state)
        if trainer.is_global_zero:
            self.writer.write(
                state,
                step=trainer.global_step,
                epoch=epoch,
                batch=batch,
                used_seconds=begun - self._started,
            )
            run_logger.info(
                "Partial checkpoint of step %d written to %s", trainer.global_step, self.writer.root
            )
        self._owed = False
        self._last = time.monotonic()
        self._cost = self._last - begun


@dataclasses.dataclass
class Attempt:
    """One attempt at a training: where it writes, and what it continues from.

    Attributes:
        partial: What it continues from, or None.
    """

    output: Path
    scratch: Path
    key: str
    partial: Partial | None = None

    @staticmethod
    def open(output: Path, scratch: Path, resume: bool, *settings: Any) -> "Attempt":
        """Begin an attempt; with *resume*, from the newest complete partial checkpoint."""
        key = fingerprint(*settings)
        partial = newest(output, key, scratch) if resume else None
        clear(output, keep_partial=partial is not None)
        return Attempt(output, scratch, key, partial)

    @property
    def used(self) -> float:
        """Seconds of training that earlier attempts put in."""
        return self.partial.used_seconds if self.partial else 0.0

    def writer(self) -> PartialWriter:
        """Return the writer of this attempt's partial checkpoints."""
        return PartialWriter(self.output, self.scratch, self.key)

    def finish(self) -> None:
        """Remove the partial checkpoints: the result is complete."""
        shutil.rmtree(self.output / PARTIAL, ignore_errors=True)


def moved_state(partial: Partial, scratch: Path) -> Path:
    """Return a copy of the training state whose callbacks name files of the new *scratch*."""
    assert partial.state is not None
    try:
        content = torch.load(partial.state, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            problem(
                f"The partial checkpoint {partial.directory} cannot be read",
                str(error).splitlines()[0],
                f"Remove {partial.directory} and resume again",
            )
        ) from error
    content["callbacks"] = _replaced(content["callbacks"], partial.scratch, str(scratch))
    path = scratch.parent / f"{scratch.name}-{_STATE}"
    torch.save(content, path)
    return path


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {_replaced(k, old, new): _replaced(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value
