"""SNOWFLAKE.ACCOUNT_USAGE.SNOWPARK_CONTAINER_SERVICES_HISTORY from the pools' own history.

Node-seconds are counted while a pool is billed, by pool and hour; the view shows an hour three
hours after its end, as late as Snowflake may be. Only one credit rate is public; the credits of
other families are NULL here.
"""

import datetime as dt
import decimal
import threading
from typing import TYPE_CHECKING, Any

from monad_dagster.local.protocol.results import Column, ResultSet, number, table, text, timestamp

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.catalog.catalog import CatalogObject
    from monad_dagster.local.session import Session

SCHEMA = "ACCOUNT_USAGE"
VIEW = "SNOWPARK_CONTAINER_SERVICES_HISTORY"
LATENCY = dt.timedelta(hours=3)
HOUR = dt.timedelta(hours=1)
CREDITS_PER_HOUR = {"GPU_NV_S": decimal.Decimal("0.57")}  # the one that a quickstart names
COLLECTION = "pool_usage"
STORE_SECONDS = 5.0

COLUMNS: list[Column] = [
    timestamp("START_TIME"), timestamp("END_TIME"), text("COMPUTE_POOL_NAME"),
    number("COMPUTE_POOL_ID"), text("IS_EXCLUSIVE"), text("APPLICATION_NAME"),
    number("APPLICATION_ID"), number("CREDITS_USED", 9),
]  # fmt: skip


class PoolUsage:
    """Counts the nodes of compute pools."""

    def __init__(self, account: "Account") -> None:
        self._account = account
        self._lock = threading.Lock()
        self._counted_to: dict[int, dt.datetime] = {}
        self._rows: dict[str, dict[str, Any]] = account.catalog.documents(COLLECTION)
        self._changed: set[str] = set()
        self._stored_at: dt.datetime | None = None
        _ensure_view(account)
        account.on_close(self.store)

    def charge(self, pool: "CatalogObject", num_nodes: int, family: str) -> None:
        """Count *num_nodes* from the last call to now; a time without calls is not counted."""
        now = self._account.clock()
        with self._lock:
            since = self._counted_to.get(pool.id)
            self._counted_to[pool.id] = now
            while since is not None and num_nodes and since < now:
                start = since.replace(minute=0, second=0, microsecond=0)
                until = min(now, start + HOUR)
                key = f"{pool.id}|{start.isoformat()}"
                row = self._rows.setdefault(
                    key,
                    {"id": pool.id, "pool": pool.name, "family": family,
                     "start": start.isoformat(), "node_seconds": 0.0},
                )  # fmt: skip
                row["node_seconds"] += num_nodes * (until - since).total_seconds()
                self._changed.add(key)
                since = until
        self._store_now_and_then(now)

    def _store_now_and_then(self, now: dt.datetime) -> None:
        if self._stored_at is None or (now - self._stored_at).total_seconds() >= STORE_SECONDS:
            self._stored_at = now
            self.store()

    def store(self) -> None:
        """Keep what was counted."""
        with self._lock:
            changed = {key: dict(self._rows[key]) for key in self._changed}
            self._changed.clear()
        for key, row in changed.items():
            self._account.catalog.put_document(COLLECTION, key, row)

    def view(self) -> ResultSet:
        """Return the view's rows, newest first."""
        horizon = self._account.clock() - LATENCY
        with self._lock:
            rows = sorted(self._rows.values(), key=lambda row: row["start"], reverse=True)
        out = []
        for row in rows:
            start = dt.datetime.fromisoformat(row["start"])
            if start + HOUR > horizon:
                continue
            rate = CREDITS_PER_HOUR.get(row["family"])
            hours = decimal.Decimal(str(row["node_seconds"])) / 3600
            used = None if rate is None else round(hours * rate, 9)
            out.append((start, start + HOUR, row["pool"], row["id"], "false", None, None, used))
        return table(COLUMNS, out)


def _ensure_view(account: "Account") -> None:
    catalog = account.catalog
    if catalog.get("SCHEMA", SCHEMA, "SNOWFLAKE") is None:
        catalog.create(
            "SCHEMA", SCHEMA, "ACCOUNTADMIN", database="SNOWFLAKE", properties={"SYSTEM": True}
        )
        catalog.grant("USAGE", "SCHEMA", SCHEMA, "PUBLIC", database="SNOWFLAKE")
    if catalog.get("VIEW", VIEW, "SNOWFLAKE", SCHEMA) is None:
        catalog.create(
            "VIEW", VIEW, "ACCOUNTADMIN", database="SNOWFLAKE", schema=SCHEMA,
            properties={"COMPUTED": True},
        )  # fmt: skip


def view_of(session: "Session") -> ResultSet:
    """Return the view for a statement of *session*, whose privilege was checked."""
    return session.account.extensions["compute_pools"].usage.view()
