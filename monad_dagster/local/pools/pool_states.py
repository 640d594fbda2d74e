"""The life cycle of a compute pool, as a transition table over an injected clock.

Follows the page "Working with compute pools": a pool is STARTING until it has one node and RESIZING
until it has MIN_NODES; it is RESIZING again whenever nodes are added, because MIN_NODES was raised or
because instances wait for room; nodes that nobody uses are given back down to MIN_NODES. Snowflake
takes minutes for each of these; `Timings` says how long they take here.
"""

import datetime as dt
from dataclasses import dataclass, replace
from enum import StrEnum


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
    (_S.STARTING, "first node"): _S.RESIZING,
    (_S.RESIZING, "complete"): _S.IDLE,
    (_S.IDLE, "placed"): _S.ACTIVE,
    (_S.ACTIVE, "emptied"): _S.IDLE,
    (_S.IDLE, "grow"): _S.RESIZING,
    (_S.ACTIVE, "grow"): _S.RESIZING,
    (_S.IDLE, "idled out"): _S.STOPPING,
    (_S.STARTING, "suspend"): _S.STOPPING,
    (_S.RESIZING, "suspend"): _S.STOPPING,
    (_S.IDLE, "suspend"): _S.STOPPING,
    (_S.ACTIVE, "suspend"): _S.STOPPING,
    (_S.STOPPING, "stopped"): _S.SUSPENDED,
}


@dataclass(frozen=True)
class Timings:
    """How long a pool's nodes take, in seconds; `shrink` is how long a node idles before it goes."""

    start: float = 1.0
    resize: float = 0.5
    stop: float = 1.0
    shrink: float = 60.0


@dataclass(frozen=True)
class Load:
    """What job services want of a pool.

    Attributes:
        num_instances: Instances that hold a node.
        nodes_held: How many nodes there must be for those instances to keep theirs.
        nodes_wanted: How many there must be for the waiting ones as well, MAX_NODES at most.
    """

    num_instances: int = 0
    nodes_held: int = 0
    nodes_wanted: int = 0


@dataclass(frozen=True)
class PoolRules:
    """What is set for a pool; `auto_suspend` of 0 seconds is never."""

    min_nodes: int = 1
    max_nodes: int = 1
    auto_suspend: int = 0
    timings: Timings = Timings()

    def target(self, load: Load) -> int:
        """Return how many nodes a pool should have."""
        return min(self.max_nodes, max(self.min_nodes, load.nodes_held, load.nodes_wanted))


@dataclass(frozen=True)
class PoolClock:
    """A pool's state, since when it holds, and its nodes.

    Attributes:
        state: The state.
        since: When it began; in RESIZING, when the last node came.
        nodes: How many nodes there are, held ones included.
        surplus_since: Since when there are more nodes than needed, or None.
    """

    state: PoolState
    since: dt.datetime
    nodes: int = 0
    surplus_since: dt.datetime | None = None

    def after(self, event: str, at: dt.datetime) -> "PoolClock":
        """Return what follows an event; an event without a transition changes nothing."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            return self
        gone = state in (PoolState.STARTING, PoolState.SUSPENDED)
        return PoolClock(state, at, 0 if gone else self.nodes)

    @property
    def has_nodes(self) -> bool:
        """Tell whether instances can be placed."""
        return self.state in (PoolState.IDLE, PoolState.ACTIVE, PoolState.RESIZING)


def advance(
    pool: PoolClock, now: dt.datetime, rules: PoolRules, load: Load, *, has_capacity: bool = True
) -> PoolClock:
    """Return the pool's state at *now*, after every transition that is due.

    Args:
        pool: The state last known.
        now: The clock's time.
        rules: What is set for the pool.
        load: What job services want of it.
        has_capacity: Whether the cloud has nodes to give.
    """
    while (following := _next(pool, now, rules, load, has_capacity)) != pool:
        pool = following
    return pool


def _next(
    pool: PoolClock, now: dt.datetime, rules: PoolRules, load: Load, has_capacity: bool
) -> PoolClock:
    state, timings = pool.state, rules.timings
    if state is PoolState.STARTING:
        if not has_capacity or not _is_due(pool, timings.start, now):
            return pool
        return replace(pool.after("first node", now), nodes=1)
    if state is PoolState.STOPPING and not load.num_instances:
        return _due(pool, "stopped", timings.stop, now)
    if not pool.has_nodes:
        return pool
    target = rules.target(load)
    if state is PoolState.RESIZING:
        if pool.nodes >= target:
            return pool.after("complete", pool.since)
        if not has_capacity or not _is_due(pool, timings.resize, now):
            return pool
        return replace(pool, nodes=target, since=now)
    if pool.nodes < target:
        return pool.after("grow", now)
    if state is PoolState.IDLE and load.num_instances:
        return replace(pool.after("placed", now), surplus_since=pool.surplus_since)
    if state is PoolState.ACTIVE and not load.num_instances:
        return replace(pool.after("emptied", now), surplus_since=pool.surplus_since)
    if state is PoolState.IDLE and rules.auto_suspend and not load.nodes_wanted:
        stopping = _due(pool, "idled out", rules.auto_suspend, now)
        if stopping != pool:
            return stopping
    return _shrunk(pool, now, rules, target)


def _shrunk(pool: PoolClock, now: dt.datetime, rules: PoolRules, target: int) -> PoolClock:
    """Give back nodes that were not needed for long enough, or that MAX_NODES no longer allows."""
    if pool.nodes <= target:
        return replace(pool, surplus_since=None)
    since = pool.surplus_since or now
    if pool.nodes > rules.max_nodes or (now - since).total_seconds() >= rules.timings.shrink:
        return replace(pool, nodes=target, surplus_since=None)
    return replace(pool, surplus_since=since)


def _is_due(pool: PoolClock, seconds: float, now: dt.datetime) -> bool:
    return pool.since + dt.timedelta(seconds=seconds) <= now


def _due(pool: PoolClock, event: str, seconds: float, now: dt.datetime) -> PoolClock:
    at = pool.since + dt.timedelta(seconds=seconds)
    return pool.after(event, at) if _is_due(pool, seconds, now) else pool
