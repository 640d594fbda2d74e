"""`spec`, `status`, `logs` and `cancel`: job services by name."""

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.output import fail, note, print_json, print_table, reports_errors
from monad_dagster.settings import Settings
from monad_dagster.spcs.identifiers import QualifiedName

_NEXT = "monad-dagster run --scenario churn"


def _name(settings: Settings, text: str) -> QualifiedName:
    return QualifiedName.parse(text, database=settings.database, schema=settings.schema)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def status(as_json: bool) -> None:
    """List the pipeline's job services with their status.

    Example: monad-dagster status
    """
    from monad_dagster.spcs.job_service import JobServices
    from monad_dagster.spcs.job_service_state import RUN_ID_LABEL

    settings = ctx.current_settings()
    with ctx.open_session(settings) as session:
        found = JobServices(session).list(settings.database, settings.schema)
    rows = [
        {
            "name": item.name.name,
            "status": item.raw_status,
            "asset": item.labels.get("asset"),
            "attempt": item.labels.get("attempt"),
            "run_id": item.labels.get(RUN_ID_LABEL),
            "compute_pool": item.compute_pool,
            "created_on": item.created_on,
        }
        for item in found
    ]
    if as_json:
        print_json(rows)
    elif not rows:
        note(f"No job service in {settings.database}.{settings.schema} yet; make one: {_NEXT}")
    else:
        print_table(
            (list(row.values()) for row in rows),
            ["job service", "status", "asset", "attempt", "run", "compute pool", "created on"],
        )  # type: ignore[misc]


@click.command()
@click.argument("job_service")
@click.option("--instance", default=0, show_default=True, help="Which instance of several, from 0.")
@click.option("--lines", default=1000, show_default=True, help="How many of the newest lines.")
@reports_errors
def logs(job_service: str, instance: int, lines: int) -> None:
    """Print the log of a job service that runs, has ended or is gone.

    Example: monad-dagster logs FOUNDATION_MODEL_1A2B3C_1
    """
    settings = ctx.current_settings()
    from monad_dagster.pipes.log_reading import read_log
    from monad_dagster.spcs.identifiers import StagePath
    from monad_dagster.spcs.job_service import JobServices
    from monad_dagster.spcs.stage import StageClient

    name = _name(settings, job_service)
    root = StagePath(QualifiedName(settings.database, settings.schema, settings.stage))
    with ctx.open_session(settings) as session:
        found = read_log(
            JobServices(session),
            StageClient(session),
            root,
            name,
            instance=instance,
            num_lines=lines,
        )
    if found is None:
        fail(
            f"Job service {name} does not exist, and neither {root} nor the event table holds a "
            "log of it. monad-dagster status lists those there are."
        )
    for line in found:
        click.echo(line)
    if not found:
        note(f"Job service {name} has written nothing yet")


@click.command()
@click.argument("job_service")
@reports_errors
def cancel(job_service: str) -> None:
    """Cancel a job service; its record and logs stay.

    Example: monad-dagster cancel FOUNDATION_MODEL_1A2B3C_1
    """
    from monad_dagster.spcs.job_service import JobServices

    settings = ctx.current_settings()
    name = _name(settings, job_service)
    with ctx.open_session(settings) as session:
        if not JobServices(session).cancel(name):
            fail(f"Job service {name} does not exist. monad-dagster status lists those there are.")
    note(f"Cancellation of {name} requested")


@click.command()
@click.argument(
    "asset", type=click.Choice(["foundation_model", "scenario_checkpoint", "predictions"])
)
@click.option(
    "--scenario", default="churn", show_default=True, help="Scenario of a partitioned asset."
)
@click.option("--documented", is_flag=True, help="Print the specification of the documented page.")
@reports_errors
def spec(asset: str, scenario: str, documented: bool) -> None:
    """Print the service specification that an asset would send.

    Example: monad-dagster spec foundation_model
    """
    from monad_dagster.assets.job_services import preview_spec

    settings = ctx.current_settings()
    click.echo(preview_spec(settings, asset, scenario, documented=documented))
