"""What is written down after a materialization, apart from Dagster's own records."""

from collections.abc import Sequence

from dagster import MaterializeResult

from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes import compat, outcome
from monad_dagster.pipes.launch import LaunchRequest
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.lineage import LineageInput, LineageRecord, record_lineage


def write_lineage(
    context: compat.ExecutionContext,
    session: Session,
    table: QualifiedName | None,
    request: LaunchRequest,
    facts: outcome.Facts,
    results: Sequence[MaterializeResult],
) -> None:
    """Write one row for each edge of each result; a refusal is logged and loses no result."""
    if table is None:
        return
    for result in results:
        record = LineageRecord(
            asset=result.asset_key.to_user_string() if result.asset_key else "",
            version=result.data_version.value if result.data_version else "",
            inputs=(*request.inputs, *_observed_inputs(request, facts, result)),
            partition=compat.partition_key_of(context),
            location=facts.output_path,
            run_id=context.run.run_id,
            job_service=facts.job_name,
            query_id=facts.query_id,
            details=request.options.lineage_details,
        )
        try:
            record_lineage(session, table, record)
        except MonadDagsterError as error:
            context.log.error(f"Lineage rows were not written to {table}: {error}")


def _observed_inputs(
    request: LaunchRequest, facts: outcome.Facts, result: MaterializeResult
) -> list[LineageInput]:
    """Return the image that ran and the source tables the container says it read."""
    found = []
    if facts.image_ref and not any(item.kind == "image" for item in request.inputs):
        digest = facts.image_digest_observed or facts.image_digest
        found.append(LineageInput("image", facts.image_ref, digest))
    return found + outcome.source_tables(result.metadata or {})
