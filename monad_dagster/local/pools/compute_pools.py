"""The states of compute pools on the account's clock; the statements are in pool_statements.py.

A pool has no machines: its nodes are a capacity that job services are placed on, with the shape
of the instance family. What a pool's suspension takes away (container logs) is taken away.
"""

import datetime as dt
import threading
from typing import TYPE_CHECKING, Any

from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.faults import faults_jobs
from monad_dagster.local.pools.pool_states import PoolClock, PoolState, advance
from monad_dagster.local.pools.pool_usage import PoolUsage
from monad_dagster.spcs.instance_families import InstanceFamily, load_instance_families

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.jobs.job_services import JobServices

KIND = "COMPUTE POOL"
CLOUD = "aws"


def install(account: "Account") -> None:
    """Give the account its compute pools."""
    account.extensions["compute_pools"] = ComputePools(account)


def pools_of(account: "Account") -> "ComputePools":
    """Return the account's compute pools."""
    return account.extensions["compute_pools"]


class ComputePools:
    """States of all compute pools, kept in the catalog."""

    def __init__(self, account: "Account") -> None:
        self.account = account
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

    def refresh(self, name: str) -> PoolClock:
        """Bring a pool's state up to the account's clock and return it."""
        with self.lock:
            pool = self.get(name)
            if pool is None:
                return PoolClock(PoolState.SUSPENDED, self.account.clock())
            before = _clock_of(pool)
            self._charge(pool, before)
            if self.lacks_capacity(pool, before):
                return before
            after = advance(
                before,
                self.account.clock(),
                num_instances=self._jobs.num_instances(name) if self._jobs else 0,
                auto_suspend_seconds=int(pool.properties["AUTO_SUSPEND_SECS"]),
            )
            self._store(name, before, after)
            return after

    def _charge(self, pool: CatalogObject, clock: PoolClock) -> None:
        active, idle, _ = self.num_nodes(pool, clock)
        self.usage.charge(pool, active + idle, pool.properties["INSTANCE_FAMILY"])

    def lacks_capacity(self, pool: CatalogObject, clock: PoolClock) -> bool:
        """Tell whether a pool that starts gets no nodes."""
        starting = clock.state is PoolState.STARTING
        return starting and faults_jobs.lacks_capacity(self.account.faults, pool)

    def send(self, name: str, event: str) -> PoolClock:
        """Apply resume, suspend or resize to a pool."""
        with self.lock:
            before = self.refresh(name)
            after = before.after(event, self.account.clock())
            self._store(name, before, after)
            return after

    def _store(self, name: str, before: PoolClock, after: PoolClock) -> None:
        if after == before:
            return
        facts: dict[str, Any] = {"STATE": after.state.value, "SINCE": after.since.timestamp()}
        if after.state is PoolState.STARTING:
            facts["RESUMED_ON"] = after.since.timestamp()
        self.account.catalog.update(KIND, name, touch=False, **facts)
        if after.state is PoolState.SUSPENDED and self._jobs:
            self._jobs.nodes_gone(name)

    def num_nodes(self, pool: CatalogObject, clock: PoolClock) -> tuple[int, int, int]:
        """Return (active, idle, target) nodes."""
        if clock.state in (PoolState.SUSPENDED, PoolState.STARTING):
            target = 0 if clock.state is PoolState.SUSPENDED else int(pool.properties["MIN_NODES"])
            return 0, 0, target
        active = len(self.occupied_nodes(pool.name))
        total = max(active, int(pool.properties["MIN_NODES"]))
        if clock.state is PoolState.STOPPING:
            return active, 0, 0
        return active, total - active, total


def _clock_of(pool: CatalogObject) -> PoolClock:
    since = dt.datetime.fromtimestamp(pool.properties["SINCE"], dt.UTC)
    return PoolClock(PoolState(pool.properties["STATE"]), since)
