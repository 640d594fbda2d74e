"""What is recorded of a launch, and the one place where a failure becomes Dagster's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import dagster as dg

from monad_dagster.pipes import compat
from monad_dagster.pipes.failures import RULES, Failure, failed_error
from monad_dagster.pipes.ledger import Attempt
from monad_dagster.pipes.metadata import SpcsMetadataSet
from monad_dagster.pipes.wait import Progress
from monad_dagster.spcs.cost import estimate_credits
from monad_dagster.spcs.job_service_state import ContainerState
from monad_dagster.spcs.lineage import LineageInput


@dataclass
class Facts:
    """Everything known of one launch so far; becomes the metadata set."""

    compute_pool: str = ""
    replicas: int | None = None
    job_name: str = ""
    query_id: str | None = None
    status: str | None = None
    instance_family: str | None = None
    image_ref: str | None = None
    image_digest: str | None = None
    image_digest_observed: str | None = None
    spec_sha256: str | None = None
    request_sha256: str | None = None
    spec_yaml: str | None = None
    output_path: str | None = None
    run_directory: str | None = None
    log_path: str | None = None
    log_complete: bool | None = None
    attempt: int | None = None
    reattached: bool | None = None
    resumed: bool | None = None
    resumed_from: str | None = None
    instances: list[dict[str, Any]] = field(default_factory=list)
    queue_seconds: float | None = None
    run_seconds: float | None = None
    restart_count: int | None = None
    exit_code: int | None = None
    credits_estimated: float | None = None
    num_messages: int | None = None
    warnings: Sequence[str] = field(default_factory=list)

    def note_times(self, progress: Progress, credits_per_hour: Mapping[str, float]) -> None:
        """Take durations, and the credits they cost."""
        self.queue_seconds = round(progress.queue_seconds, 3)
        self.run_seconds = round(progress.run_seconds, 3)
        credits_used = estimate_credits(
            self.instance_family or "",
            progress.run_seconds * (self.replicas or 1),
            credits_per_hour=credits_per_hour,
        )
        self.credits_estimated = None if credits_used is None else round(credits_used, 6)

    def note_containers(self, own: Sequence[ContainerState]) -> None:
        """Take exit codes, restarts and the digest that ran, of every instance."""
        if not own:
            return
        codes = [item.last_exit_code for item in own]
        self.exit_code = next((code for code in codes if code), codes[0])
        self.restart_count = sum(item.restart_count for item in own)
        digest = own[0].image_digest.removeprefix("@")
        self.image_digest_observed = digest or self.image_digest_observed
        if len(own) > 1:
            self.instances = [
                {
                    "instance": item.instance_id,
                    "container": item.container_name,
                    "status": item.status,
                    "exit_code": item.last_exit_code,
                    "message": item.message,
                }
                for item in own
            ]

    def metadata(self, failure: Failure | None = None, log_tail: str = "") -> SpcsMetadataSet:
        """Write the facts as metadata."""
        return SpcsMetadataSet(
            job_name=self.job_name or None,
            query_id=self.query_id,
            status=self.status,
            compute_pool=self.compute_pool or None,
            instance_family=self.instance_family,
            image_ref=self.image_ref,
            image_digest=self.image_digest,
            image_digest_observed=self.image_digest_observed,
            spec_sha256=self.spec_sha256,
            request_sha256=self.request_sha256,
            spec=_fenced(self.spec_yaml, "yaml") if self.spec_yaml else None,
            output_path=self.output_path,
            run_directory=self.run_directory,
            log_path=self.log_path,
            log_complete=self.log_complete,
            attempt=self.attempt,
            reattached=self.reattached,
            resumed=self.resumed,
            resumed_from=self.resumed_from,
            instances=_instance_table(self.instances) if self.instances else None,
            replicas=self.replicas,
            queue_seconds=self.queue_seconds,
            run_seconds=self.run_seconds,
            restart_count=self.restart_count,
            exit_code=self.exit_code if failure is None else failure.exit_code,
            credits_estimated=self.credits_estimated,
            failure_class=str(failure.failure_class) if failure else None,
            platform_message=(failure.message or None) if failure else None,
            retry=failure.retry if failure else None,
            advice=RULES[failure.failure_class].advice if failure else None,
            log_tail=_fenced(log_tail) if log_tail else None,
            num_messages=self.num_messages,
            warnings="\n".join(self.warnings) or None,
        )


def _fenced(text: str, language: str = "") -> dg.MarkdownMetadataValue:
    """Show text as it is, with its line breaks; plain text loses them on the asset page."""
    return dg.MetadataValue.md(f"```{language}\n{text.replace('```', chr(39) * 3)}\n```")


def _instance_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord({key: _cell(key, value) for key, value in row.items()}) for row in rows
    ]
    columns = [dg.TableColumn(key, "int" if key == "instance" else "string") for key in rows[0]]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _cell(key: str, value: Any) -> str | int:
    if key == "instance":
        return int(value)
    return "" if value is None else str(value)


def raise_failure(
    context: compat.ExecutionContext,
    attempt: Attempt,
    failure: Failure,
    *,
    facts: Facts,
    log_tail: tuple[str, ...],
    max_retries: int,
    retry_delay_seconds: float,
) -> NoReturn:
    """Turn a failure into a retry or into the step's failure, with everything known attached.

    Raises:
        dagster.RetryRequested: The platform failed and another attempt is allowed.
        dagster.Failure: No attempt follows.
    """
    error = failed_error(
        attempt.name,
        failure,
        seconds=(facts.queue_seconds or 0.0) + (facts.run_seconds or 0.0),
        query_id=facts.query_id,
        log_tail=log_tail,
        log_path=facts.log_path,
    )
    metadata = dict(facts.metadata(failure, "\n".join(log_tail)))
    _observe_failure(context, metadata)
    if failure.retry and context.retry_number < max_retries:
        context.log.warning(f"{error} Attempt {attempt.number + 1} follows.")
        raise dg.RetryRequested(
            max_retries=max_retries, seconds_to_wait=retry_delay_seconds
        ) from error
    if not failure.retry:
        context.instance.add_run_tags(context.run.run_id, {compat.NO_RUN_RETRY_TAG: "false"})
    raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from error


def _observe_failure(context: compat.ExecutionContext, metadata: Mapping[str, Any]) -> None:
    """Show a failed attempt on the asset, where a failure event alone is not seen."""
    if not context.has_assets_def:
        return
    partition = compat.partition_key_of(context)
    for key in sorted(context.selected_asset_keys):
        context.log_event(
            dg.AssetObservation(asset_key=key, partition=partition, metadata=metadata)
        )


def source_tables(metadata: Mapping[str, Any]) -> list[LineageInput]:
    """Read the source tables out of the manifest that the container reported."""
    value = metadata.get("lineage")
    document = getattr(value, "data", value)
    if isinstance(document, str):
        document = json.loads(document)
    tables = document.get("source_tables", []) if isinstance(document, Mapping) else []
    return [
        LineageInput(
            "table",
            str(table.get("name")),
            f"{table.get('row_count')} rows, last altered {table.get('last_altered')}",
        )
        for table in tables
        if isinstance(table, Mapping)
    ]
