"""Schedules, stopped by default: a GPU is paid for by the minute.

The hours lie outside Snowflake's maintenance windows (Saturday and Sunday night, region-local), in
which a node may be replaced under a running job service.
"""

from collections.abc import Iterator

import dagster as dg

from monad_dagster.assets.keys import FOUNDATION_MODEL, PREDICTIONS, SCENARIO_CHECKPOINT


def build_schedules(scenarios: dg.StaticPartitionsDefinition) -> list[dg.ScheduleDefinition]:
    """Return the weekly pretraining and the daily predictions."""
    weekly = dg.ScheduleDefinition(
        name="weekly_foundation_model",
        cron_schedule="0 3 * * 2",
        target=dg.AssetSelection.assets(FOUNDATION_MODEL),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Pretrain the foundation model every Tuesday.",
    )

    @dg.schedule(
        name="daily_predictions",
        cron_schedule="0 5 * * *",
        target=dg.AssetSelection.assets(PREDICTIONS),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Score every scenario that has a checkpoint.",
    )
    def daily_predictions(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        trained = context.instance.get_materialized_partitions(SCENARIO_CHECKPOINT)
        ready = [name for name in scenarios.get_partition_keys() if name in trained]
        if not ready:
            yield dg.SkipReason(
                "No scenario has a checkpoint. Materialize scenario_checkpoint first."
            )
        day = context.scheduled_execution_time.date().isoformat()
        for name in ready:
            yield dg.RunRequest(run_key=f"{day}-{name}", partition_key=name)

    return [weekly, daily_predictions]
