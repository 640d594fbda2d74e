"""`job_service_costs`: what job services cost, by asset and day, beside what pools were billed.

The account's own records are read: its job history, the labels of job services, and ACCOUNT_USAGE.
Unpartitioned: every materialization writes the last days again, because bills come late.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from monad_dagster.assets.keys import GROUP_OPERATIONS
from monad_dagster.errors import MonadDagsterError, SnowflakeError
from monad_dagster.pipes.client import PipesSPCSClient, query_tag
from monad_dagster.spcs import sql_setup, sql_tables
from monad_dagster.spcs.compute_pool import describe_compute_pool
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.cost import (
    DailyCost,
    JobServiceRun,
    Reconciliation,
    billed_by_day,
    reconcile,
)
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import containers_from_history

COST_TABLE = "JOB_SERVICE_COSTS"
# The job history goes back 30 days.
WINDOW_DAYS = 28
ROWS_SHOWN = 200
_NAME = re.compile(r"^(?P<asset>.+)_[0-9A-F]{10}_\d+$")


def build_cost_asset(
    *,
    name: str = "job_service_costs",
    resource_key: str = "spcs",
    table: str = COST_TABLE,
    window_days: int = WINDOW_DAYS,
) -> dg.AssetsDefinition:
    """Return the asset.

    Args:
        name: Name of the asset.
        resource_key: Resource key of the `PipesSPCSClient` whose job services are counted.
        table: Table in that client's schema that gets the rows.
        window_days: How many days are written again.
    """

    @dg.asset(
        name=name,
        group_name=GROUP_OPERATIONS,
        kinds={"snowflake"},
        required_resource_keys={resource_key},
        description=(
            "Credits of job services by asset and day: estimated from node time, and the share of "
            "what their compute pools were billed. Bills are up to three hours late."
        ),
    )
    def job_service_costs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        client: PipesSPCSClient = getattr(context.resources, resource_key)
        target = client.stage_root.stage.sibling(table)
        now = datetime.now(UTC)
        since = (now - timedelta(days=window_days)).replace(hour=0, minute=0, second=0)
        with client.session(query_tag=query_tag(context)) as session:
            runs = job_service_runs(session, target, since=since, now=now)
            billed = _billed(context, session, since)
            found = reconcile(
                runs,
                billed,
                _families(session, {run.compute_pool for run in runs}),
                now=now,
                credits_per_hour=client.credits_per_hour,
            )
            write_costs(session, target, found.rows, since=since)
        return dg.MaterializeResult(metadata=_metadata(found, target, bool(billed)))

    return job_service_costs


def job_service_runs(
    session: Session, place: QualifiedName, *, since: datetime, now: datetime
) -> list[JobServiceRun]:
    """Read when each job service of a schema held nodes, dropped ones included.

    Args:
        session: Asks.
        place: Any object of the schema.
        since: Job services that were created earlier are left out.
        now: The end of those that still run.
    """
    services = JobServices(session)
    labels = {item.name: item.labels for item in services.list(place.database, place.schema)}
    runs = []
    for row in services.history(created_after=since):
        if (row.get("database_name"), row.get("schema_name")) != (place.database, place.schema):
            continue
        name = place.sibling(str(row["name"]))
        asset = str(labels.get(name, {}).get("asset") or _asset_of_name(name.name))
        runs.append(JobServiceRun(asset, str(row["compute_pool_name"]), _spans(row, now)))
    return runs


def _asset_of_name(name: str) -> str:
    """Read asset and partition out of the name of a dropped job service, whose labels are gone."""
    found = _NAME.match(name)
    return found["asset"].lower() if found else name.lower()


def _spans(row: Mapping[str, Any], now: datetime) -> tuple[tuple[datetime, datetime], ...]:
    end = row.get("completed_time")
    end = end if isinstance(end, datetime) else now
    starts: dict[int, datetime] = {}
    for container in containers_from_history(row):
        at = container.started_on
        if at is not None:
            known = starts.get(container.instance_id, at)
            starts[container.instance_id] = min(known, at)
    return tuple((start, max(start, end)) for start in starts.values())


def _billed(
    context: dg.AssetExecutionContext, session: Session, since: datetime
) -> dict[tuple[Any, str], float]:
    try:
        return billed_by_day(session.execute(sql_tables.pool_usage(since=since)).rows)
    except SnowflakeError as error:
        grant = sql_setup.grant_usage_viewer("<role of the pipeline>")
        context.log.warning(
            f"What pools were billed cannot be read, so there are estimates only: {error} "
            f"An administrator allows it with: {grant}"
        )
        return {}


def _families(session: Session, pools: set[str]) -> dict[str, str]:
    families = {}
    for pool in sorted(pools):
        try:
            families[pool] = describe_compute_pool(session, pool).instance_family
        except MonadDagsterError:  # a pool that was dropped since has no family, and no estimate
            families[pool] = ""
    return families


def write_costs(
    session: Session, table: QualifiedName, rows: list[DailyCost], *, since: datetime
) -> None:
    """Replace the rows of the window in one transaction; older ones stay."""
    session.execute(sql_tables.create_cost_table(table))
    session.execute(sql_tables.begin())
    session.execute(sql_tables.delete_costs(table, since=since.date()))
    if rows:
        plain = [{**asdict(row), "day": row.day.isoformat()} for row in rows]
        session.execute(sql_tables.insert_costs(table, plain))
    session.execute(sql_tables.commit())


def _metadata(found: Reconciliation, table: QualifiedName, has_bills: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/row_count": len(found.rows),
        "dagster/table_name": str(table),
        "credits_estimated": round(found.credits_estimated, 4),
        "costs": _table(found),
    }
    if has_bills:
        metadata["credits_billed"] = round(found.credits_billed, 4)
        metadata["credits_unattributed"] = round(sum(found.unattributed.values()), 4)
    return metadata


def _table(found: Reconciliation) -> dg.TableMetadataValue:
    newest = list(reversed(found.rows))[:ROWS_SHOWN]
    records = [
        dg.TableRecord(
            {
                "day": row.day.isoformat(),
                "asset": row.asset,
                "compute_pool": row.compute_pool,
                "job_services": row.num_job_services,
                "node_hours": round(row.node_seconds / 3600, 4),
                "credits_estimated": _shown(row.credits_estimated),
                "credits_billed": _shown(row.credits_billed),
                "final": "yes" if row.is_final else "no",
            }
        )
        for row in newest
    ]
    kinds = {"job_services": "int", "node_hours": "float"}
    names = (
        *("day", "asset", "compute_pool", "job_services", "node_hours"),
        *("credits_estimated", "credits_billed", "final"),
    )
    columns = [dg.TableColumn(name, kinds.get(name, "string")) for name in names]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _shown(credits: float | None) -> str:
    return "" if credits is None else f"{credits:.4f}"
