"""Every name that Dagster does not promise to keep, in one place.

A contract test imports this module and calls what it can, so that an upgrade of Dagster fails
here and nowhere else.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetObservation,
    AssetRecordsFilter,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Failure,
    OpExecutionContext,
    RetryRequested,
)
from dagster._core.definitions.metadata.metadata_set import NamespacedMetadataSet
from dagster._core.execution.stats import StepEventStatus
from dagster._core.pipes.reattach import (
    PipesLaunchHandle,
    _latest_handle_in_run,
    record_external_launch,
    record_external_reattach,
)
from dagster._core.storage.tags import (
    ASSET_RESUME_RETRY_TAG,
    AUTO_MATERIALIZE_TAG,
    AUTOMATION_CONDITION_TAG,
    RESUME_RETRY_TAG,
    RETRY_ON_ASSET_OR_OP_FAILURE_TAG,
)

ExecutionContext = OpExecutionContext | AssetExecutionContext
INTERRUPTS = (DagsterExecutionInterruptedError, KeyboardInterrupt)
# What a step raises on purpose.
VERDICTS = (Failure, RetryRequested)
# Dagster's run retries look at this tag; it is the only layer that `allow_retries` does not reach.
NO_RUN_RETRY_TAG = RETRY_ON_ASSET_OR_OP_FAILURE_TAG

__all__ = [
    "INTERRUPTS",
    "NO_RUN_RETRY_TAG",
    "VERDICTS",
    "DagsterExecutionInterruptedError",
    "ExecutionContext",
    "NamespacedMetadataSet",
    "PipesLaunchHandle",
    "deferred_interrupts",
    "deployment_id",
    "forbid_run_retry",
    "forget_input_version",
    "latest_handle_in_run",
    "latest_observation",
    "launched_by_automation",
    "partition_key_of",
    "record_external_launch",
    "record_external_reattach",
    "report_canceling",
    "report_to_run",
    "run_has_been_ended",
    "run_is_cancelling",
    "selected_assets",
    "step_key_of",
    "step_succeeded",
    "tagged_as_retry",
]


def partition_key_of(context: ExecutionContext) -> str | None:
    """Return the partition of what the step computes.

    A run may have a partition while one of its assets has none; the step's own definition counts.
    """
    if not context.has_partition_key:
        return None
    if context.has_assets_def and context.assets_def.partitions_def is None:
        return None
    return context.partition_key


def selected_assets(context: ExecutionContext) -> set[AssetKey]:
    """Return every asset that the run computes."""
    return set(context.job_def.asset_layer.selected_asset_keys)


def step_key_of(context: ExecutionContext) -> str:
    """Return the key of the executing step."""
    return context.get_step_execution_context().step.key


def forget_input_version(context: ExecutionContext, key: AssetKey) -> None:
    """Make Dagster read an input's version again: it was observed after the step started."""
    context.get_step_execution_context().wipe_input_asset_version_info(key)


def deployment_id(instance: DagsterInstance) -> str | None:
    """Return what tells this Dagster instance from every other: the id of its run storage."""
    read = getattr(instance.run_storage, "get_run_storage_id", None)
    return str(read()) if read is not None else None


def latest_handle_in_run(
    instance: DagsterInstance, run_id: str, step_key: str, client_name: str
) -> PipesLaunchHandle | None:
    """Return the newest launch recorded for a step in one run."""
    return _latest_handle_in_run(instance, run_id, step_key, client_name)


def launched_by_automation(run: DagsterRun) -> bool:
    """Whether an automation condition asked for the run, and no person did."""
    return any(
        run.tags.get(tag) == "true" for tag in (AUTOMATION_CONDITION_TAG, AUTO_MATERIALIZE_TAG)
    )


def latest_observation(
    instance: DagsterInstance, key: AssetKey, partition: str | None
) -> AssetObservation | None:
    """Return the newest observation of an asset's partition that is newer than its output."""
    found = instance.fetch_observations(
        AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None),
        limit=1,
    ).records
    if not found:
        return None
    made = instance.fetch_materializations(
        AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None),
        limit=1,
    ).records
    if made and made[0].storage_id > found[0].storage_id:
        return None
    return found[0].asset_observation


def tagged_as_retry(run: DagsterRun) -> bool:
    """Whether Dagster says the run retries its parent from failure."""
    return any(run.tags.get(tag) == "true" for tag in (RESUME_RETRY_TAG, ASSET_RESUME_RETRY_TAG))


def step_succeeded(instance: DagsterInstance, run_id: str, step_key: str) -> bool:
    """Whether a step of an earlier run ended well."""
    stats = instance.get_run_step_stats(run_id, [step_key])
    return any(stat.status == StepEventStatus.SUCCESS for stat in stats)


def report_to_run(instance: DagsterInstance, run_id: str, message: str) -> None:
    """Write a line into the event log of a run that may have ended; nothing if it is absent."""
    run = instance.get_run_by_id(run_id)
    if run is not None:
        instance.report_engine_event(message, dagster_run=run)


def run_is_cancelling(context: ExecutionContext) -> bool:
    """Whether a user asked for the end of the run; the status is set before the signal is sent."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status in (
        DagsterRunStatus.CANCELING,
        DagsterRunStatus.CANCELED,
    )


def run_has_been_ended(context: ExecutionContext) -> bool:
    """Whether somebody has ended the run, or declared it lost, without this process being told."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status in (
        DagsterRunStatus.CANCELING,
        DagsterRunStatus.CANCELED,
        DagsterRunStatus.FAILURE,
    )


def forbid_run_retry(context: ExecutionContext) -> None:
    """Keep automatic run retries away from the failure of a step of this run."""
    context.instance.add_run_tags(context.run.run_id, {NO_RUN_RETRY_TAG: "false"})


def report_canceling(context: ExecutionContext) -> None:
    """Record that a user ended the run, which a terminal's Ctrl-C does not do by itself.

    Without it Dagster would call the run failed, and a RetryPolicy would start the step again.
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and run.status is DagsterRunStatus.STARTED:
        context.instance.report_run_canceling(run)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Hold signals back until the block is through, then raise the interruption.

    Dagster's own helper forgets a signal that arrived inside, and one that arrives between its last
    look and the return of the old handlers; here the old handlers are back before anyone looks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {n: signal.signal(n, lambda number, _: received.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise DagsterExecutionInterruptedError
