"""Training by several processes: who this one is, its share of the batches, and one decision for all.

Batches are dealt out in turn, so that every process has as many as the others and none is read
twice. What depends on a clock is decided by the first process.
"""

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import distributed

from monad.config import environment
from monad.errors import EngineError, problem

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


def gpu_used_here() -> bool:
    """Tell whether this process has asked a GPU anything, so that forked ones cannot use it.

    torch knows of its own contexts alone. The driver's count fails until somebody has started it.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 0


def apart(work: Callable[[], Any]) -> Any:
    """Return what *work* returns, done by a forked process.

    A backward pass asks every GPU, even one of weights on the CPU, and processes that are forked
    afterwards cannot use a GPU any more. This is for what comes before a training by several.

    Raises:
        EngineError: The process ended before its work; else what *work* raises.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, sending))
    process.start()
    sending.close()
    try:
        made, error = receiving.recv()
    except EOFError:
        process.join()
        raise EngineError(
            problem(
                "Work before a training by several processes failed",
                f"its process ended with exit code {process.exitcode}",
                "See the log above; with `devices: 1` no process is needed",
            )
        ) from None
    process.join()
    if error is not None:
        raise error
    return made


def alone_in_fork() -> None:
    """Keep a forked process to its one thread: it waits for ever for those of OpenMP before the fork."""
    torch.set_num_threads(1)


def _send(work: Callable[[], Any], to: Connection) -> None:
    alone_in_fork()
    try:
        made, error = work(), None
    except Exception as raised:
        made, error = None, raised
    to.send((made, error))


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
