"""Event columns that lie on the device, where windows of histories are cut out of them.

A GPU trains faster than one thread of Python can fill batches. So the encoded columns are put there
once, and a batch travels as the first and last position of its windows.
"""

from typing import Any

import numpy as np
import torch

from monad.data.batches import Batch, RowReader
from monad.data.fields import ABSENT

SHAPED = "shaped"  # a batch with one of a few fixed shapes, filled up with rows of no events

_PIECE = 2_000_000
_ROUND = 8  # lengths of windows are rounded up to, so that there are fewer different shapes
_SHORT = 64  # windows up to which half of that pays
_BYTES = {"weekday": torch.uint8, "hour": torch.uint8, "source": torch.uint8}


def shapes_for(sizes: np.ndarray, tokens: int, rows: int, most: int) -> list[tuple[int, int]]:
    """Return (rows, length) of at most *most* shapes of batches that windows of *sizes* fit into.

    Of all such lengths these leave the fewest places empty. Batches hold *tokens* places or *rows*
    rows at most.
    """
    if not len(sizes):
        return []
    step = _ROUND if sizes.max() > _SHORT else _ROUND // 2
    rounded, number = np.unique(-(-np.maximum(sizes, 2) // step) * step, return_counts=True)
    upto = np.concatenate([[0], np.cumsum(number)])
    # Places that the shortest windows take, by how many of the rounded lengths they have.
    places = np.full(len(rounded) + 1, np.inf)
    places[0] = 0.0
    chosen: list[np.ndarray] = []
    for _ in range(min(most, len(rounded))):
        # Adding one more shape: windows from `start` on are as long as the longest of them.
        made = places[None, :-1] + (upto[1:, None] - upto[None, :-1]) * rounded[:, None]
        made = np.where(np.tri(len(rounded), dtype=bool), made, np.inf)
        start = made.argmin(1)
        chosen.append(start)
        places = np.concatenate([[0.0], made.min(1)])
    lengths, end = [], len(rounded)
    for start in reversed(chosen):
        if end == 0:
            break
        lengths.append(int(rounded[end - 1]))
        end = int(start[end - 1])
    return [(int(np.clip(tokens // length, 1, rows)), length) for length in sorted(lengths)]


def shaped_windows(begin: np.ndarray, end: np.ndarray, shape: tuple[int, int]) -> Batch:
    """Return a batch that names its windows, of one shape; rows that are missing have no events."""
    missing = shape[0] - len(begin)
    begin, end = (np.concatenate([a, np.zeros(missing, a.dtype)]) for a in (begin, end))
    return windows(begin, end) | {"longest": shape[1], SHAPED: True}


def windows(begin: np.ndarray, end: np.ndarray) -> Batch:
    """Return a batch that names its windows only."""
    size = end - begin
    return {
        "window_begin": torch.from_numpy(begin.astype(np.int64)),
        "window_size": torch.from_numpy(size.astype(np.int64)),
        "longest": -(-max(int(size.max(initial=0)), 1) // _ROUND) * _ROUND,
        "num_followed": int(np.maximum(size - 1, 0).sum()),
    }


class DeviceColumns:
    """All events of a reader, encoded, on one device."""

    def __init__(self, reader: RowReader, device: torch.device) -> None:
        self.device = device
        total = len(reader.store.stream.times)
        parts = [
            reader.columns(np.arange(at, min(at + _PIECE, total))) for at in range(0, total, _PIECE)
        ]
        join = self._joined
        self.codes = [
            join([part["codes"][k] for part in parts], torch.int32)
            for k in range(len(reader.categories))
        ]
        self.numbers = [
            join([part["numbers"][i] for part in parts], torch.float32)
            for i in range(len(reader.numbers))
        ]
        self.gaps = join([part["gaps"] for part in parts], torch.float32)
        self.small = {
            name: join([part[name] for part in parts], kind) for name, kind in _BYTES.items()
        }
        self.complete = sum(
            int(all((part["codes"][k] != ABSENT).all() for part in parts)) << k
            for k in range(len(reader.categories))
        )

    def _joined(self, arrays: list[np.ndarray], kind: torch.dtype) -> torch.Tensor:
        joined = [torch.from_numpy(np.ascontiguousarray(a)).to(kind) for a in arrays]
        return torch.cat(joined).to(self.device)

    def sequences(self, named: Batch) -> Batch:
        """Return what the reader's `sequences` gives for the same windows; asks nothing back."""
        begin = named["window_begin"].to(self.device, non_blocking=True)
        size = named["window_size"].to(self.device, non_blocking=True)
        made = self.cut(begin, size, named["longest"])
        made["followed"] = _followed(size, named["longest"], named["num_followed"])
        return made

    def cut(self, begin: torch.Tensor, size: torch.Tensor, longest: int) -> Batch:
        """Return windows of *longest* places without what depends on their number of events."""
        place = torch.arange(longest, device=self.device)
        valid = place[None, :] < size[:, None]
        index = torch.where(valid, begin[:, None] + place[None, :], begin[:, None])
        made: dict[str, Any] = {"length": size, "valid": valid}
        made["codes"] = [torch.where(valid, column[index].long(), ABSENT) for column in self.codes]
        numbers = [column[index] for column in self.numbers]
        made["numbers"] = (
            torch.stack(numbers, 2) if numbers else self.gaps.new_zeros((*index.shape, 0))
        )
        gaps = torch.where(valid, self.gaps[index], 0.0)
        gaps[:, 0] = 0.0
        made["gaps"] = gaps
        made |= {name: column[index].long() for name, column in self.small.items()}
        made["complete"] = self.complete
        return made


def _followed(size: torch.Tensor, longest: int, total: int) -> torch.Tensor:
    """Return the flat positions of events that another one of their row follows."""
    counts = (size - 1).clamp(min=0)
    first = counts.cumsum(0) - counts
    row = torch.repeat_interleave(
        torch.arange(len(size), device=size.device), counts, output_size=total
    )
    return row * longest + torch.arange(total, device=size.device) - first[row]
