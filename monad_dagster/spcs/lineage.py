"""The LINEAGE table: one row for each edge of a materialization.

It answers "what produced these predictions" in SQL, for people who have no Dagster at hand.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from monad_dagster.spcs import sql_lineage
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName


@dataclass(frozen=True)
class LineageInput:
    """One thing a materialization was made from.

    Attributes:
        kind: `asset`, `table` or `image`.
        name: Its name.
        version: Its data version, digest, or row count and last-altered time.
    """

    kind: str
    name: str
    version: str | None = None


@dataclass(frozen=True)
class LineageRecord:
    """One materialization with everything it was made from.

    Attributes:
        asset: The asset that was materialized.
        version: Its data version.
        inputs: What it was made from; one row each, and one row when there is nothing.
        partition: The partition, if any.
        location: Where the output is, as a stage path.
        run_id: The Dagster run.
        job_service: The job service that did it.
        query_id: Query id of its EXECUTE JOB SERVICE.
        details: Anything else, written as JSON.
    """

    asset: str
    version: str
    inputs: Sequence[LineageInput] = ()
    partition: str | None = None
    location: str | None = None
    run_id: str | None = None
    job_service: str | None = None
    query_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def lineage_rows(record: LineageRecord, *, now: datetime) -> list[dict[str, Any]]:
    """Spread a record over one row for each of its edges."""
    common = {
        "recorded_at": now.replace(tzinfo=None),
        "output_asset": record.asset,
        "output_partition": record.partition,
        "output_version": record.version,
        "output_location": record.location,
        "run_id": record.run_id,
        "job_service": record.job_service,
        "query_id": record.query_id,
        "details": json.dumps(dict(record.details), sort_keys=True) if record.details else None,
    }
    edges = record.inputs or (None,)
    return [
        {
            **common,
            "input_kind": edge.kind if edge else None,
            "input_name": edge.name if edge else None,
            "input_version": edge.version if edge else None,
        }
        for edge in edges
    ]


def record_lineage(session: Session, table: QualifiedName, record: LineageRecord) -> None:
    """Write one materialization's edges with one statement."""
    rows = lineage_rows(record, now=datetime.now(UTC))
    session.execute(sql_lineage.insert_lineage(table, rows))
