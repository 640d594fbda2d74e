"""The life cycle of a compute pool, as a transition table over an injected clock.

Snowflake takes minutes to start nodes; here it takes START_SECONDS. Everything else follows the
page "Working with compute pools".
"""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

START_SECONDS = 1.0
STOP_SECONDS = 1.0


class PoolState(StrEnum):
    """States as SHOW COMPUTE POOLS prints them."""

    STARTING = "STARTING"
    IDLE = "IDLE"
    ACTIVE = "ACTIVE"
    RESIZING = "RESIZING"
    STOPPING = "STOPPING"
    SUSPENDED = "SUSPENDED"


_S = PoolState
TRANSITIONS: dict[tuple[PoolState, str], PoolState] = {
    (_S.SUSPENDED, "resume"): _S.STARTING,
    (_S.STOPPING, "resume"): _S.STARTING,
    (_S.STARTING, "ready"): _S.IDLE,
    (_S.RESIZING, "ready"): _S.IDLE,
    (_S.IDLE, "placed"): _S.ACTIVE,
    (_S.ACTIVE, "emptied"): _S.IDLE,
    (_S.IDLE, "resize"): _S.RESIZING,
    (_S.ACTIVE, "resize"): _S.RESIZING,
    (_S.IDLE, "idled out"): _S.STOPPING,
    (_S.STARTING, "suspend"): _S.STOPPING,
    (_S.RESIZING, "suspend"): _S.STOPPING,
    (_S.IDLE, "suspend"): _S.STOPPING,
    (_S.ACTIVE, "suspend"): _S.STOPPING,
    (_S.STOPPING, "stopped"): _S.SUSPENDED,
}


@dataclass(frozen=True)
class PoolClock:
    """A pool's state and since when it holds."""

    state: PoolState
    since: dt.datetime

    def after(self, event: str, at: dt.datetime) -> "PoolClock":
        """Return what follows an event; an event without a transition changes nothing."""
        state = TRANSITIONS.get((self.state, event))
        return self if state is None else PoolClock(state, at)

    @property
    def has_nodes(self) -> bool:
        """Tell whether instances can be placed."""
        return self.state in (PoolState.IDLE, PoolState.ACTIVE, PoolState.RESIZING)


def advance(
    pool: PoolClock, now: dt.datetime, *, num_instances: int, auto_suspend_seconds: int
) -> PoolClock:
    """Return the pool's state at *now*, after every transition that is due.

    Args:
        pool: The state last known.
        now: The clock's time.
        num_instances: Service instances that hold a node.
        auto_suspend_seconds: Idle time before the pool stops; 0 is never.
    """
    while (following := _next(pool, now, num_instances, auto_suspend_seconds)) != pool:
        pool = following
    return pool


def _next(pool: PoolClock, now: dt.datetime, num_instances: int, auto_suspend: int) -> PoolClock:
    state = pool.state
    if state in (PoolState.STARTING, PoolState.RESIZING):
        return _due(pool, "ready", START_SECONDS, now)
    if state is PoolState.IDLE and num_instances:
        return pool.after("placed", now)
    if state is PoolState.ACTIVE and not num_instances:
        return pool.after("emptied", now)
    if state is PoolState.IDLE and auto_suspend:
        return _due(pool, "idled out", auto_suspend, now)
    if state is PoolState.STOPPING and not num_instances:
        return _due(pool, "stopped", STOP_SECONDS, now)
    return pool


def _due(pool: PoolClock, event: str, seconds: float, now: dt.datetime) -> PoolClock:
    at = pool.since + dt.timedelta(seconds=seconds)
    return pool.after(event, at) if at <= now else pool
