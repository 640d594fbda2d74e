"""The states of compute pools on the account's clock; the statements are in pool_statements.py.

A pool has no machines: its nodes are a capacity that job services are placed on, with the shape
of the instance family. What a pool's suspension takes away (container logs) is taken away.
"""

import datetime as dt
import json
import threading
from typing import TYPE_CHECKING, Any

from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.faults import faults_jobs
from monad_dagster.local.pools.pool_states import (
    Load,
    PoolClock,
    PoolRules,
    PoolState,
    Timings,
    advance,
)
from monad_dagster.local.pools.pool_usage import PoolUsage
from monad_dagster.spcs.instance_families import InstanceFamily, load_instance_families

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.jobs.job_services import JobServices

KIND = "COMPUTE POOL"
CLOUD = "aws"


def install(account: "Account") -> None:
    """Give the account its compute pools.

    DIR/compute_pools.json with {"start": 1, "resize": 0.5, "stop": 1, "shrink": 60} says how many
    seconds nodes take to come, to be added, to go, and how long an unneeded one stays.
    """
    settings = account.state_dir / "compute_pools.json"
    timings = Timings(**json.loads(settings.read_text())) if settings.exists() else Timings()
    account.extensions["compute_pools"] = ComputePools(account, timings)


def pools_of(account: "Account") -> "ComputePools":
    """Return the account's compute pools."""
    return account.extensions["compute_pools"]


class ComputePools:
    """States of all compute pools, kept in the catalog."""

    def __init__(self, account: "Account", timings: Timings | None = None) -> None:
        self.account = account
        self.timings = timings or Timings()
        self.families = load_instance_families(CLOUD)
        # One lock for pools and job services: each looks at the other while it changes.
        self.lock = threading.RLock()
        self.usage = PoolUsage(account)

    @property
    def _jobs(self) -> "JobServices | None":
        return self.account.extensions.get("jobs")

    def family(self, pool: CatalogObject) -> InstanceFamily:
        """Return a pool's instance family."""
        return self.families[pool.properties["INSTANCE_FAMILY"]]

    def get(self, name: str) -> CatalogObject | None:
        """Return a pool without regard to privileges."""
        return self.account.catalog.get(KIND, name)

    def occupied_nodes(self, name: str) -> set[int]:
        """Return the nodes that hold service instances."""
        return self._jobs.occupied_nodes(name) if self._jobs else set()

    def clock(self, pool: CatalogObject) -> PoolClock:
        """Return a pool's state as it was last refreshed."""
        properties = pool.properties
        state = PoolState(properties["STATE"])
        nodes = properties.get("NODES")
        if nodes is None:  # a pool of an earlier version, or one that was just created
            occupied = max(self.occupied_nodes(pool.name), default=-1) + 1
            has_none = state in (PoolState.STARTING, PoolState.SUSPENDED)
            nodes = 0 if has_none else max(occupied, int(properties["MIN_NODES"]))
        return PoolClock(
            state, _time(properties["SINCE"]), nodes, _time_or_none(properties.get("SURPLUS_SINCE"))
        )

    def refresh(self, name: str) -> PoolClock:
        """Bring a pool's state up to the account's clock and return it."""
        with self.lock:
            pool = self.get(name)
            if pool is None:
                return PoolClock(PoolState.SUSPENDED, self.account.clock())
            before = self.clock(pool)
            self._charge(pool, before)
            load, _ = self._load(pool)
            has_capacity = not self.lacks_capacity(pool, before)
            now = self.account.clock()
            after = advance(before, now, self._rules(pool), load, has_capacity=has_capacity)
            self._store(name, before, after)
            return after

    def _rules(self, pool: CatalogObject) -> PoolRules:
        numbers = ("MIN_NODES", "MAX_NODES", "AUTO_SUSPEND_SECS")
        return PoolRules(*(int(pool.properties[key]) for key in numbers), timings=self.timings)

    def _load(self, pool: CatalogObject) -> tuple[Load, int]:
        if self._jobs is None:
            return Load(), 0
        return self._jobs.load(pool.name, self.family(pool), int(pool.properties["MAX_NODES"]))

    def _charge(self, pool: CatalogObject, clock: PoolClock) -> None:
        num_nodes = clock.nodes if clock.has_nodes else len(self.occupied_nodes(pool.name))
        self.usage.charge(pool, num_nodes, pool.properties["INSTANCE_FAMILY"])

    def lacks_capacity(self, pool: CatalogObject, clock: PoolClock) -> bool:
        """Tell whether a pool that starts or grows gets no nodes."""
        wants_nodes = clock.state in (PoolState.STARTING, PoolState.RESIZING)
        return wants_nodes and faults_jobs.lacks_capacity(self.account.faults, pool)

    def num_without_room(self, pool: CatalogObject, clock: PoolClock) -> int:
        """Return how many instances wait although the pool has all the nodes it may have."""
        return self._load(pool)[1] if clock.has_nodes else 0

    def send(self, name: str, event: str) -> PoolClock:
        """Apply resume or suspend to a pool."""
        with self.lock:
            before = self.refresh(name)
            after = before.after(event, self.account.clock())
            self._store(name, before, after)
            return after

    def _store(self, name: str, before: PoolClock, after: PoolClock) -> None:
        if after == before:
            return
        surplus = after.surplus_since
        facts: dict[str, Any] = {
            "STATE": after.state.value,
            "SINCE": after.since.timestamp(),
            "NODES": after.nodes,
            "SURPLUS_SINCE": None if surplus is None else surplus.timestamp(),
        }
        if after.state is PoolState.STARTING:
            facts["RESUMED_ON"] = after.since.timestamp()
        self.account.catalog.update(KIND, name, touch=False, **facts)
        if after.state is PoolState.SUSPENDED and self._jobs:
            self._jobs.nodes_gone(name)

    def num_nodes(self, pool: CatalogObject, clock: PoolClock) -> tuple[int, int, int]:
        """Return (active, idle, target) nodes."""
        if clock.state is PoolState.SUSPENDED:
            return 0, 0, 0
        if clock.state is PoolState.STARTING:
            return 0, 0, int(pool.properties["MIN_NODES"])
        active = len(self.occupied_nodes(pool.name))
        if clock.state is PoolState.STOPPING:
            return active, 0, 0
        target = self._rules(pool).target(self._load(pool)[0])
        if clock.state is not PoolState.RESIZING:
            target = max(target, clock.nodes)  # a surplus stays until it idled for long enough
        return active, max(0, clock.nodes - active), target


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _time_or_none(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else _time(seconds)
