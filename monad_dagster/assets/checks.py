"""Asset checks on what the job services reported.

They read the latest materialization's metadata, so that a check costs no statement and no GPU.
"""

import math

import dagster as dg

from monad_dagster.assets.baselines import compare
from monad_dagster.assets.keys import FOUNDATION_MODEL, PREDICTIONS, SCENARIO_CHECKPOINT


def build_checks() -> list[dg.AssetChecksDefinition]:
    """Return one check on finite metrics for each model, and two on the predictions."""
    return [
        _finite_metrics(FOUNDATION_MODEL),
        _finite_metrics(SCENARIO_CHECKPOINT),
        _better_than_baseline(),
        _predictions_have_rows(),
    ]


def _latest_metadata(
    context: dg.AssetCheckExecutionContext, key: dg.AssetKey
) -> dict[str, object] | None:
    """Return the metadata of the newest materialization, None when there is none."""
    event = context.instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    return {name: item.value for name, item in event.asset_materialization.metadata.items()}


def _metrics(metadata: dict[str, object]) -> dict[str, float]:
    return {
        name.removeprefix("metrics/"): float(value)
        for name, value in metadata.items()
        if name.startswith("metrics/") and isinstance(value, int | float)
    }


def _missing() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="The asset was never materialized.")


def _finite_metrics(key: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=key,
        name="finite_metrics",
        description="Every metric the training reported is a finite number.",
    )
    def finite_metrics(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _latest_metadata(context, key)
        if metadata is None:
            return _missing()
        # A number that is not finite travels as text, because JSON has no word for it.
        bad = [
            name
            for name, value in metadata.items()
            if name.startswith("metrics/")
            and (isinstance(value, str) or not math.isfinite(float(str(value))))
        ]
        return dg.AssetCheckResult(
            passed=not bad,
            description=f"Not finite: {', '.join(bad)}" if bad else "All metrics are finite.",
            metadata=dict(_metrics(metadata)),
        )

    return finite_metrics


def _better_than_baseline() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=SCENARIO_CHECKPOINT,
        name="better_than_baseline",
        description="AUROC, MAP or MAE on held-out data beats the naive baseline.",
    )
    def better_than_baseline(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _latest_metadata(context, SCENARIO_CHECKPOINT)
        if metadata is None:
            return _missing()
        metrics = _metrics(metadata)
        found = compare(metrics)
        if found:
            return dg.AssetCheckResult(
                passed=all(item.is_better for item in found),
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(
                    f"{item.metric} is {item.value:.4g}, {item.method or 'the naive baseline'} "
                    f"{item.baseline:.4g}"
                    for item in found
                ),
            )
        return dg.AssetCheckResult(
            passed=True,
            severity=dg.AssetCheckSeverity.WARN,
            description="The training reported no metric with a baseline.",
        )

    return better_than_baseline


def _predictions_have_rows() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=PREDICTIONS, name="has_rows", description="At least one entity was scored."
    )
    def has_rows(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _latest_metadata(context, PREDICTIONS)
        if metadata is None:
            return _missing()
        count = metadata.get("dagster/row_count")
        return dg.AssetCheckResult(
            passed=isinstance(count, int) and count > 0, description=f"{count} rows"
        )

    return has_rows
