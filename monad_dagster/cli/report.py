"""The short report at the end of a run: assets, versions, job services, metrics, predictions."""

import json
from typing import Any

import click

from monad_dagster.assets.baselines import compare, is_baseline
from monad_dagster.cli.output import note, print_json, print_table, reports_errors
from monad_dagster.errors import ConfigError, problem
from monad_dagster.settings import Settings, dagster_home

_PIPELINE = ("image", "stage_contents", "foundation_model", "scenario_checkpoint", "predictions")
_PARTITIONED = ("scenario_checkpoint", "predictions")


@click.command()
@click.option("--scenario", default="churn", show_default=True, help="Scenario to report on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def report(scenario: str, as_json: bool) -> None:
    """Print the report of the latest materializations again.

    Example: monad-dagster report --scenario churn
    """
    from monad_dagster.cli import context as ctx

    settings = ctx.current_settings()
    if as_json:
        print_json(collect(settings, scenario))
    else:
        print_report(settings, scenario)


def print_report(
    settings: Settings, scenario: str, *, elapsed_seconds: float | None = None
) -> None:
    """Print what the latest materializations of *scenario* are."""
    rows = collect(settings, scenario)
    click.echo()
    print_table(
        (
            (
                row["asset"],
                (row["data_version"] or "not materialized")[:19],
                row["job_service"] or "-",
                row["status"],
                _seconds(row["duration_seconds"]),
            )
            for row in rows
        ),
        ["Asset", "Data version", "Job service", "Status", "Duration"],
    )
    for row in rows:
        _print_metrics(row)
        if row["preview"]:
            click.echo(f"\nFirst predictions ({row['rows']} rows):\n{row['preview']}")
            if row["location"]:
                click.echo(f"All of them: {row['location']}")
    click.echo()
    if elapsed_seconds is not None:
        note(f"Done in {_seconds(elapsed_seconds)}.")
    note("Open the UI: make ui (or monad-dagster ui)")
    if settings.deployment == "local":
        note("The local account goes on running; end it: make clean, or monad-dagster local stop")


def collect(settings: Settings, scenario: str) -> list[dict[str, Any]]:
    """Read the latest materialization of each pipeline asset from the Dagster instance."""
    import dagster as dg

    home = dagster_home(settings)
    if not (home / "dagster.yaml").exists():
        raise ConfigError(
            problem(
                "There is no run to report",
                f"{home} has no Dagster home",
                "Make one: monad-dagster run",
            )
        )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [_asset_row(instance, name, scenario) for name in _PIPELINE]


def _asset_row(instance: Any, name: str, scenario: str) -> dict[str, Any]:
    import dagster as dg

    from monad_dagster.assets.keys import data_version_of

    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(name),
            asset_partitions=[scenario] if name in _PARTITIONED else None,
        ),
        limit=1,
    ).records
    row: dict[str, Any] = {
        "asset": name,
        "data_version": None,
        "job_service": None,
        "status": "MISSING",
        "duration_seconds": None,
        "metrics": {},
        "preview": None,
        "rows": None,
        "location": None,
    }
    if not records:
        return row
    event = records[0].asset_materialization
    metadata = {key: value.value for key, value in event.metadata.items()}
    started = metadata.get("started_at_seconds")
    run_seconds = metadata.get("spcs/run_seconds")
    row.update(
        data_version=data_version_of(event),
        job_service=metadata.get("spcs/job_name"),
        status=metadata.get("spcs/status", "DONE"),
        duration_seconds=run_seconds
        if run_seconds is not None
        else (records[0].timestamp - started if started else metadata.get("duration_seconds")),
        metrics={
            k.removeprefix("metrics/"): v for k, v in metadata.items() if k.startswith("metrics/")
        },
        preview=_preview(metadata.get("preview")),
        rows=metadata.get("dagster/row_count"),
        location=metadata.get("spcs/output_path"),
    )
    return row


def _print_metrics(row: dict[str, Any]) -> None:
    """Print the numbers of one asset, each beside its naive baseline when it has one."""
    shown = {
        name: value for name, value in row["metrics"].items() if isinstance(value, int | float)
    }
    if not shown:
        return
    naive = {item.metric: item for item in compare(shown)}
    lines = []
    for name, value in sorted(shown.items()):
        if is_baseline(name):
            continue
        rival = naive.get(name)
        text = f"{_number(rival.baseline)} ({rival.method or 'naive'})" if rival else ""
        lines.append((name, _number(value), text))
    click.echo(f"\n{row['asset']}")
    print_table(lines, ["metric", "value", "naive baseline"])


def _preview(value: Any) -> str | None:
    """Turn the preview metadata (text, or rows as JSON) into text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, indent=1)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
