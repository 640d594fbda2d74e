"""Choose the number of CPU threads by measuring, where a time budget makes speed matter.

On a machine or a container that shares its cores, threads that wait for one another at every
operation can cost many times what they bring. Results may differ in the last digit between thread
counts, so this is done only in budgeted training, which depends on the clock anyway.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WIDTH, _ROWS, _REPEATS, _MEASUREMENTS = 64, 2_048, 4, 4
_PAYS = 1.25  # by what threads must be faster than one


def _seconds(x: torch.Tensor, weight: torch.Tensor, most: float) -> float:
    """Return how long some small operations take, or how long they had when that was too long."""
    begun, spent = time.perf_counter(), 0.0
    for _ in range(_REPEATS):
        y = torch.nn.functional.silu(x @ weight)
        x = torch.nn.functional.layer_norm(y @ weight.T + x, (_WIDTH,))
        spent = time.perf_counter() - begun
        if spent >= most:
            break
    return spent


def _slowest(x: torch.Tensor, weight: torch.Tensor, most: float) -> float:
    """Return the slowest of a few measurements; the first that is too slow ends them."""
    _seconds(x, weight, 0.0)  # starts the threads
    slowest = 0.0
    for _ in range(_MEASUREMENTS):
        slowest = max(slowest, _seconds(x, weight, most))
        if slowest >= most:
            break
    return slowest


@contextmanager
def fastest_threads() -> Iterator[None]:
    """Do work of a time budget with the number of threads that is fastest now."""
    most = torch.get_num_threads()
    calibrate_threads(most)
    try:
        yield
    finally:
        torch.set_num_threads(most)


@torch.no_grad()
def calibrate_threads(most: int) -> int:
    """Set and return the fastest of 1, 2, 4 ... *most* threads for small operations."""
    candidates = sorted({1, *(n for n in (2, 4, 8, 16) if n < most), most})
    if len(candidates) == 1:
        return most
    x, weight = torch.randn(_ROWS, _WIDTH), torch.randn(_WIDTH, 4 * _WIDTH) / 8
    # The slowest of a few measurements counts, and more threads must clearly pay: where cores are
    # shared, waiting for a thread that is not scheduled costs far more than the thread brings. So
    # much more that it would cost the budget to find out how much: too slow is enough to know.
    best, fastest = 1, float("inf")
    for count in candidates:
        torch.set_num_threads(count)
        asked = 1.0 if count == 1 else _PAYS
        cost = asked * _slowest(x, weight, fastest / asked)
        if cost < fastest:
            best, fastest = count, cost
    torch.set_num_threads(best)
    return best
