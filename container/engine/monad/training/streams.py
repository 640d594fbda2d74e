"""Where training batches come from: passes over the data, cut by the clock, made ahead on a thread."""

import dataclasses
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import DataLoader, IterableDataset

from monad.training.ranks import agreed, dealt, gpu_present, rank_and_size

Make = Callable[[int, int], Iterator[Any]]
_VALIDATE_SHARE = 0.05  # of the budget between two validations, at least
_VALIDATE_RATIO = 15.0  # time between validations, as a multiple of what one takes
_SWITCH_SECONDS = 1e-4  # after which the worker lets the thread that feeds the GPU go on
_FIRST_PASS = 20  # batches before the first validation, where several processes train


class Timed(Protocol):
    """What knows how long a validation takes."""

    validation_seconds: float


@dataclasses.dataclass
class Plan:
    """What the trainer is to do.

    Attributes:
        steps_per_epoch: Known number of batches of an epoch.
        learning_rate: Peak rate.
        deadline: `time.monotonic()` at which everything must be done, or None.
        most_steps: Steps after which more training would only fit the rows' noise.
        timed_epochs: Validate by the clock instead of after each pass over the data.
        rate_end: Share of the peak rate that is left at the end.
        averaged: Validate and keep a running average of the weights instead of the last ones.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    deadline: float | None
    started: float
    label: str
    timed_epochs: bool = False
    most_steps: int | None = None
    seed: int = 0
    rate_end: float = 0.02
    averaged: bool = False


class BatchStream(IterableDataset):
    """Yields the batches of one epoch.

    *make* is called with the epoch's number and the number of its batches to leave out, which is
    not zero only for the epoch in which an earlier attempt was interrupted. Batches that are *shared*
    are dealt out to the processes; validation is done by each of them, so that all know the result.
    """

    def __init__(self, make: Make, shared: bool = False) -> None:
        self.make = make
        self.shared = shared
        self.epoch = 0
        self.skip = 0

    def __iter__(self) -> Iterator[Any]:
        epoch, skip = self.epoch, self.skip
        self.epoch, self.skip = self.epoch + 1, 0
        if not self.shared:
            return self.make(epoch, skip)
        return dealt(self.make(epoch, skip * rank_and_size()[1]))


class TimedStream(IterableDataset):
    """Yields batches without end, cut where it is time to validate.

    A pass over little data takes less time than a validation, one over much data more than the
    budget. So what the trainer takes for an epoch ends when a share of the budget has passed. An
    attempt that continues another begins with a pass of its own: *epoch* sets its number.
    """

    def __init__(self, make: Make, plan: Plan, module: "Timed") -> None:
        self.epoch = 0
        self.skip = 0
        self.batches = dealt(self._endless(make))
        self.plan, self.module = plan, module
        self._most = 0.0  # batches of the pass that begins, where processes must agree
        self._given, self._since = 0, 0.0

    def _endless(self, make: Make) -> Iterator[Any]:
        while True:
            found = False
            for batch in make(self.epoch, 0):
                found = True
                yield batch
            if not found:
                return
            self.epoch += 1

    def _pause(self, now: float) -> float:
        whole = (self.plan.deadline or now) - self.plan.started
        return max(_VALIDATE_SHARE * whole, _VALIDATE_RATIO * self.module.validation_seconds)

    def agree(self) -> None:
        """Let several processes agree on the length of the pass that begins, by the first's clock.

        It is called on the main thread, as processes talk to one another there.
        """
        if rank_and_size()[1] == 1:
            return
        now = time.monotonic()
        most = float(_FIRST_PASS)
        if self._given:
            most = self._given * self._pause(now) / max(now - self._since, 1e-6)
        self._most = max(agreed(most)[0], 1.0)
        self._given, self._since = 0, now

    def __iter__(self) -> Iterator[Any]:
        if threading.current_thread() is threading.main_thread():
            self.agree()
        begun = time.monotonic()
        pause = self._pause(begun)
        for batch in self.batches:
            yield batch
            self._given += 1
            if self._most and self._given >= self._most:
                return
            if not self._most and time.monotonic() - begun > pause:
                return


class Prefetched(IterableDataset):
    """Makes batches on a thread while the device works; for devices that do not need the CPU."""

    def __init__(self, inner: IterableDataset, depth: int = 4) -> None:
        self.inner, self.depth = inner, depth

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.inner, TimedStream):
            self.inner.agree()
        ready: queue.Queue = queue.Queue(self.depth)
        stop = threading.Event()

        def put(item: Any) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for batch in self.inner:
                    if not put((batch, None)):
                        return
                put((None, None))
            except BaseException as error:
                put((None, error))

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        patience = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            while True:
                batch, error = ready.get()
                if error is not None:
                    raise error
                if batch is None:
                    return
                yield batch
        finally:
            sys.setswitchinterval(patience)
            stop.set()
            worker.join(timeout=5.0)


def loader(
    make: Make,
    plan: Plan | None = None,
    module: "Timed | None" = None,
) -> DataLoader:
    """Return a loader over batches that are made whole."""
    stream: IterableDataset = BatchStream(make, shared=plan is not None)
    if plan is not None and module is not None and plan.timed_epochs:
        stream = TimedStream(make, plan, module)
    if gpu_present() and plan is not None:
        stream = Prefetched(stream)
    return DataLoader(stream, batch_size=None, num_workers=0)
