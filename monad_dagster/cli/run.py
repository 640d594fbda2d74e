"""`monad-dagster run`: the whole pipeline in one command, and `ui` to watch it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.data import load_user_tables, prepare_sample
from monad_dagster.cli.output import EXIT_FAILED, fail, note, reports_errors
from monad_dagster.cli.report import print_report
from monad_dagster.cli.runlog import RunLogFilter
from monad_dagster.errors import ConfigError, problem
from monad_dagster.settings import Settings, child_environment, dagster_home

# Everything but the assets that look back at what runs have cost.
PIPELINE_SELECTION = "not group:operations"
DEFINITIONS = "monad_dagster.definitions"

# The dagster command calls itself superseded at every start.
_QUIET = {"PYTHONWARNINGS": "ignore::FutureWarning"}

# Small, explicit instance configuration: no telemetry, logs kept beside the runs.
_DAGSTER_YAML = """telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
"""


@click.command()
@click.option(
    "--scenario", default="churn", show_default=True, help="Scenario to train and predict."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of CSV or Parquet files to load."
)
@click.option("--config", type=click.Path(path_type=Path), help="Foundation-model YAML.")
@click.option("--scenarios", type=click.Path(path_type=Path), help="Folder of scenario files.")
@click.option(
    "--database", help="Database the tables are in (default: HM_KAGGLE, or the folder's name)."
)
@click.option(
    "--customers",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Customers in the sample data.",
)
@click.option(
    "--transactions",
    type=click.IntRange(min=1),
    default=500_000,
    show_default=True,
    help="Transactions in the sample data.",
)
@click.option("--prediction-date", help="Score as of this day, such as 2020-09-22.")
@click.option(
    "--select",
    default=PIPELINE_SELECTION,
    show_default=True,
    help="Asset selection; one of its assets must have scenarios as partitions.",
)
@click.option("--verbose", is_flag=True, help="Show every line of the run log.")
@reports_errors
def run(
    scenario: str,
    data: Path | None,
    config: Path | None,
    scenarios: Path | None,
    database: str | None,
    customers: int,
    transactions: int,
    prediction_date: str | None,
    select: str,
    verbose: bool,
) -> None:
    """Set up, load, materialize the five assets and print a report.

    Example: monad-dagster run --scenario churn
    """
    started = time.monotonic()
    overrides = _overrides(data, config, scenarios, database)
    settings = ctx.current_settings(overrides)
    _check_scenario(settings, scenario)
    _check_input(settings, data, prediction_date)
    if settings.deployment == "local":
        _prepare_local_account(settings)
        if data:
            load_user_tables(settings, data)
        else:
            prepare_sample(settings, customers=customers, transactions=transactions)
    code = materialize(
        settings,
        overrides,
        scenario,
        select=select,
        verbose=verbose,
        prediction_date=prediction_date,
    )
    if code:
        fail(
            problem(
                f"The run for scenario {scenario} failed",
                f"dagster ended with exit code {code}",
                "Correct the cause named above and run the same command again; finished assets stay",
                f"Full log: {_run_log(settings)}",
            ),
            EXIT_FAILED,
        )
    print_report(settings, scenario, elapsed_seconds=time.monotonic() - started)


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Port on 127.0.0.1.",
)
@reports_errors
def ui(port: int) -> None:
    """Serve the Dagster UI and its daemon for this project.

    Example: monad-dagster ui --port 3001
    """
    settings = ctx.current_settings()
    if settings.deployment == "local":
        ctx.local_account(settings).start()
    write_dagster_yaml(settings)
    note(f"Dagster UI on http://localhost:{port}")
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        DEFINITIONS,
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    # In place of this process: dagster stops its webserver, daemon and code server on an
    # interrupt, which a parent that waits for it would cut short.
    os.execve(sys.executable, command, child_environment(settings, _QUIET))


def materialize(
    settings: Settings,
    overrides: dict[str, str],
    scenario: str,
    *,
    select: str,
    verbose: bool,
    prediction_date: str | None = None,
) -> int:
    """Materialize through the dagster CLI and return its exit code."""
    write_dagster_yaml(settings)
    log_path = _run_log(settings)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize"),
        *("--select", select, "--partition", scenario, "-m", DEFINITIONS),
    ]
    if prediction_date:
        config = {"ops": {"predictions": {"config": {"prediction_date": prediction_date}}}}
        command += ["--config-json", json.dumps(config)]
    what = "the pipeline" if select == PIPELINE_SELECTION else select
    note(f"Materializing {what} for scenario {scenario} ...")
    shown = RunLogFilter(verbose=verbose)
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=child_environment(settings, overrides | _QUIET),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            text = shown.render(line)
            if text:
                note(text)
    return process.returncode


def write_dagster_yaml(settings: Settings) -> None:
    """Create the Dagster home with a small configuration, unless the user has one."""
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(_DAGSTER_YAML)


def _overrides(
    data: Path | None, config: Path | None, scenarios: Path | None, database: str | None
) -> dict[str, str]:
    """Turn the command's options into settings for this process and its children."""
    overrides: dict[str, str] = {}
    if config:
        overrides["MONAD_CONFIG_FILE"] = str(ctx.existing_file(config, "foundation-model config"))
    if scenarios:
        overrides["MONAD_SCENARIOS_DIR"] = str(scenarios.absolute())
    if data and not data.is_dir():
        raise ConfigError(problem("The data folder does not exist", f"looked for {data}"))
    if database:
        overrides["MONAD_DATA_DATABASE"] = database.upper()
    elif data:
        name = "".join(c if c.isalnum() else "_" for c in data.absolute().name).upper()
        overrides["MONAD_DATA_DATABASE"] = name if name[:1].isalpha() else f"D_{name}"
    return overrides


def _check_scenario(settings: Settings, scenario: str) -> None:
    """Refuse a scenario that has no file before anything is started."""
    from monad_dagster.assets.scenarios import check_scenario, discover_scenarios

    known = {found.name: found for found in discover_scenarios(settings.scenarios)}
    if scenario not in known:
        raise ConfigError(
            problem(
                f"Scenario {scenario} does not exist",
                f"{settings.scenarios} has {', '.join(sorted(known))}",
                f"Add {settings.scenarios / (scenario + '.py')} or choose another",
            )
        )
    check_scenario(known[scenario])


def _check_input(settings: Settings, data: Path | None, prediction_date: str | None) -> None:
    """Refuse before anything is started what would otherwise fail after minutes of training."""
    from monad_dagster.assets.job_services import load_model_config
    from monad_dagster.assets.prediction_date import check_prediction_date

    config = load_model_config(settings)
    check_prediction_date(prediction_date, config)
    if not data:
        return
    if settings.deployment != "local":
        raise ConfigError(
            problem(
                "--data is for the local account",
                f"MONAD_DEPLOYMENT is {settings.deployment}",
                f"Load the tables once with `monad-dagster load --data {data}`, then run without "
                "--data",
            )
        )
    from monad_dagster.sample_data.tables import discover_tables

    held = {table.name for table in discover_tables(data)}
    target = (settings.data_database, settings.data_schema)
    missing = {
        table.table
        for table in config.tables
        if (table.database, table.schema) == target and table.table not in held
    }
    if missing:
        raise ConfigError(
            problem(
                f"{settings.fm_config} reads tables that {data} does not have",
                f"missing: {', '.join(sorted(missing))}; there: {', '.join(sorted(held))}",
                "Give a foundation-model YAML of your own with --config",
                "configs/online_retail.yaml in the container folder, an example with one table",
            )
        )


def _prepare_local_account(settings: Settings) -> None:
    """Start the local account and apply the account set-up, both harmless when repeated."""
    from monad_dagster.cli.account import apply_setup

    connection = ctx.local_account(settings).start()
    note(f"Local account on {connection['protocol']}://{connection['host']}:{connection['port']}")
    apply_setup(settings)


def _run_log(settings: Settings) -> Path:
    return settings.home.absolute() / "logs" / "run.log"
