"""When to look again: growing intervals with jitter, on a clock that tests can replace."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """Time and sleep, replaceable in tests."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Backoff:
    """An interval that grows while nothing happens and shrinks when something does.

    Attributes:
        base: Shortest interval in seconds.
        maximum: Longest interval in seconds.
        factor: Growth at each idle look.
        jitter: Random part of the interval, so that many waiters do not look at once.
        random: Draws between 0 and 1.
    """

    base: float
    maximum: float
    factor: float = 1.3
    jitter: float = 0.2
    random: Callable[[], float] = field(default=random.random)
    _current: float = field(default=0.0, init=False)

    def next_delay(self, *, active: bool) -> float:
        """Return how long to wait before the next look.

        Args:
            active: Whether the last look found something new.
        """
        if active or not self._current:
            self._current = self.base
        else:
            self._current = min(self._current * self.factor, self.maximum)
        return self._current * (1 - self.jitter + 2 * self.jitter * self.random())


class Due:
    """Says when a repeated action is due."""

    def __init__(self, backoff: Backoff, clock: Clock) -> None:
        """Make the action due at once."""
        self._backoff = backoff
        self._clock = clock
        self.at = clock.now()

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        return self._clock.now() >= self.at

    def done(self, *, active: bool) -> None:
        """Note that the action was just done and plan the next time."""
        self.at = self._clock.now() + self._backoff.next_delay(active=active)

    def now(self) -> None:
        """Make the action due at once."""
        self.at = self._clock.now()


class RateLimit:
    """Lets one event through in each interval."""

    def __init__(self, interval_seconds: float, now: Callable[[], float]) -> None:
        """Let the first event through."""
        self._interval_seconds = interval_seconds
        self._now = now
        self._last: float | None = None
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Whether an event may pass now; if so it counts."""
        with self._lock:
            now = self._now()
            if self._last is not None and now - self._last < self._interval_seconds:
                return False
            self._last = now
            return True
