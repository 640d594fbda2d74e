"""Training by several processes: who this one is, its share of the batches, and one decision for all.

Batches are dealt out in turn, so that every process has as many as the others and none is read
twice. What depends on a clock is decided by the first process.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import distributed

from monad.config import environment

# Names of the check in torch 2.11 and 2.13.
_ASKS_A_GPU = ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check")


def gpu_present() -> bool:
    """Tell whether a GPU can be used, without a context on it: forked processes need that."""
    environment.ask_gpus_without_context()
    return torch.cuda.is_available()


def several_devices(devices: Any) -> bool:
    """Tell whether `devices` names more than one: then processes are forked, one for each."""
    if devices == "auto":
        return False
    if isinstance(devices, list):
        return len(devices) > 1
    count = int(devices)
    return (torch.cuda.device_count() if count < 0 else count) > 1


def leave_gpus_alone(optimizer: torch.optim.Optimizer) -> None:
    """Keep an optimizer of weights on a CPU from asking the GPU, whether it is capturing.

    Before each step torch asks that of any optimizer, and processes that are forked afterwards
    cannot use a GPU any more.
    """
    for name in _ASKS_A_GPU:
        setattr(optimizer, name, lambda: None)


def rank_and_size() -> tuple[int, int]:
    """Return this process's number and how many there are; (0, 1) outside of such a training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def dealt(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield this process's batches: each in turn gets one; an incomplete last turn is left out."""
    rank, size = rank_and_size()
    if size == 1:
        yield from batches
        return
    while len(turn := list(islice(batches, size))) == size:
        yield turn[rank]


def agreed(*values: float) -> tuple[float, ...]:
    """Return the first process's values."""
    held = [values]
    if rank_and_size()[1] > 1:
        distributed.broadcast_object_list(held, src=0)
    return held[0]
