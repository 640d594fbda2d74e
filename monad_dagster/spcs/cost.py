"""Credits of job services, estimated from node time, and reconciled with what pools were billed.

Snowflake bills nodes, per pool and hour, not job services. The estimate is node-seconds times a
configured rate; no rate is invented: only one is publicly confirmed, the rest is configuration.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

# Snowflake's quickstart names this one; all others are in the Service Consumption Table.
KNOWN_CREDITS_PER_HOUR: Mapping[str, float] = {"GPU_NV_S": 0.57}
# How late the rows of ACCOUNT_USAGE may be.
USAGE_LATENCY = timedelta(hours=3)


def estimate_credits(
    instance_family: str,
    node_seconds: float,
    *,
    credits_per_hour: Mapping[str, float] | None = None,
) -> float | None:
    """Estimate the credits of *node_seconds*, or None for a family without a rate.

    Args:
        instance_family: The pool's family.
        node_seconds: Seconds of running time, summed over the nodes used.
        credits_per_hour: Configured rates by family; they win over the known one.
    """
    rate = {**KNOWN_CREDITS_PER_HOUR, **(credits_per_hour or {})}.get(instance_family)
    if rate is None:
        return None
    return max(0.0, node_seconds) * rate / 3600


@dataclass(frozen=True)
class JobServiceRun:
    """When one job service held nodes.

    Attributes:
        asset: The asset it was launched for.
        compute_pool: Its pool.
        spans: Start and end of each instance.
    """

    asset: str
    compute_pool: str
    spans: tuple[tuple[datetime, datetime], ...] = ()


@dataclass
class DailyCost:
    """The job services of one asset on one pool and day (UTC).

    Attributes:
        day: The day.
        asset: The asset.
        compute_pool: The pool.
        num_job_services: Job services that ran on the day.
        node_seconds: Their running time on the day, summed over nodes.
        credits_estimated: Node time at the configured rate; None without a rate.
        credits_billed: Their share, by node time, of what the pool was billed on the day, idle
            nodes included; None while the account does not show it.
        is_final: Whether the account has shown the whole day.
    """

    day: date
    asset: str
    compute_pool: str
    num_job_services: int = 0
    node_seconds: float = 0.0
    credits_estimated: float | None = None
    credits_billed: float | None = None
    is_final: bool = False


@dataclass
class Reconciliation:
    """What job services are estimated to have cost, beside what their pools were billed.

    Attributes:
        rows: One for each asset, pool and day, oldest first.
        unattributed: Credits by (day, pool) that were billed while no job service of ours ran.
    """

    rows: list[DailyCost] = field(default_factory=list)
    unattributed: dict[tuple[date, str], float] = field(default_factory=dict)

    @property
    def credits_estimated(self) -> float:
        """The sum of the estimates that there are."""
        return sum(row.credits_estimated or 0.0 for row in self.rows)

    @property
    def credits_billed(self) -> float:
        """The sum of what was billed, attributed or not."""
        return sum(row.credits_billed or 0.0 for row in self.rows) + sum(self.unattributed.values())


def reconcile(
    runs: Iterable[JobServiceRun],
    billed: Mapping[tuple[date, str], float],
    families: Mapping[str, str],
    *,
    now: datetime,
    credits_per_hour: Mapping[str, float] | None = None,
) -> Reconciliation:
    """Put estimates and bills side by side, by asset, pool and day.

    Args:
        runs: The job services.
        billed: Credits of each pool and day.
        families: Instance family of each pool.
        now: The time; younger days are not final.
        credits_per_hour: Configured rates.
    """
    found: dict[tuple[date, str, str], DailyCost] = {}
    for run in runs:
        for day, seconds in _seconds_by_day(run.spans).items():
            key = (day, run.compute_pool, run.asset)
            row = found.setdefault(key, DailyCost(day, run.asset, run.compute_pool))
            row.num_job_services += 1
            row.node_seconds += seconds
    totals: dict[tuple[date, str], float] = defaultdict(float)
    for row in found.values():
        totals[row.day, row.compute_pool] += row.node_seconds
    for row in found.values():
        place = (row.day, row.compute_pool)
        family = families.get(row.compute_pool, "")
        row.credits_estimated = estimate_credits(
            family, row.node_seconds, credits_per_hour=credits_per_hour
        )
        row.is_final = _end_of(row.day) + USAGE_LATENCY <= now
        if place in billed and totals[place]:
            row.credits_billed = billed[place] * row.node_seconds / totals[place]
    idle = {place: used for place, used in billed.items() if not totals.get(place)}
    return Reconciliation([found[key] for key in sorted(found)], idle)


def _seconds_by_day(spans: Iterable[tuple[datetime, datetime]]) -> dict[date, float]:
    seconds: dict[date, float] = defaultdict(float)
    for start, end in spans:
        at, until = start.astimezone(UTC), end.astimezone(UTC)
        while at < until:
            following = min(_end_of(at.date()), until)
            seconds[at.date()] += (following - at).total_seconds()
            at = following
    return dict(seconds)


def _end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def billed_by_day(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[date, str], float]:
    """Sum the rows of SNOWPARK_CONTAINER_SERVICES_HISTORY by day and pool."""
    found: dict[tuple[date, str], float] = defaultdict(float)
    for row in rows:
        start, credits_used = row.get("start_time"), row.get("credits_used")
        if isinstance(start, datetime) and credits_used is not None:
            found[start.astimezone(UTC).date(), str(row["compute_pool_name"])] += float(
                credits_used
            )
    return dict(found)
