"""`setup`, `doctor`, `login` and `init`: what is done once."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.output import (
    EXIT_REFUSED,
    fail,
    note,
    print_json,
    print_table,
    reports_errors,
    step,
)
from monad_dagster.errors import ConfigError, ImageError, problem
from monad_dagster.settings import Settings, default_container_dir

if TYPE_CHECKING:
    from monad_dagster.spcs.account_setup import AccountLayout
    from monad_dagster.spcs.doctor import Finding


def account_layout(settings: Settings) -> "AccountLayout":
    """Return the account's object names from the settings."""
    from monad_dagster.spcs.account_setup import AccountLayout

    local = settings.deployment == "local"
    user = ctx.PIPELINE_USER if local else settings.snowflake.get("user", "")
    return AccountLayout(
        role=settings.role,
        users=(user,) if user else (),
        database=settings.database,
        schema=settings.schema,
        stage=settings.stage,
        image_repository=settings.image_repository,
        warehouse=settings.warehouse,
        compute_pool=settings.compute_pool,
        instance_family=settings.instance_family,
        data_schemas=((settings.data_database, settings.data_schema),),
        create_data_schemas=local,
    )


def apply_setup(settings: Settings) -> None:
    """Run the account set-up; every statement may be repeated."""
    from monad_dagster.spcs.account_setup import apply_setup as apply

    with step("Account set-up"), ctx.open_session(settings, admin=True) as session:
        apply(session, account_layout(settings))


@click.command()
@click.option("--dry-run", is_flag=True, help="Print the statements and send nothing.")
@reports_errors
def setup(dry_run: bool) -> None:
    """Create the pipeline's objects and grants in the account.

    They are role, database, stage, image repository, warehouse and compute pool. Run it with an
    ACCOUNTADMIN-level user. Every statement may be repeated.

    Example: monad-dagster setup --dry-run
    """
    settings = ctx.current_settings()
    if dry_run:
        from monad_dagster.spcs.account_setup import setup_text

        click.echo(setup_text(account_layout(settings)), nl=False)
        return
    apply_setup(settings)
    note("Account set-up applied")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def doctor(as_json: bool) -> None:
    """Check what the pipeline's role may do; print missing grants.

    Example: monad-dagster doctor
    """
    from monad_dagster.spcs.doctor import diagnose

    settings = ctx.current_settings()
    with ctx.open_session(settings) as session:
        findings = diagnose(session, account_layout(settings))
    if settings.deployment == "local":
        findings += _runner_findings(settings)
    if as_json:
        print_json(
            [
                {
                    "check": f.check,
                    "ok": f.ok,
                    "observed": f.observed,
                    "repair": [s.text for s in f.repair],
                }
                for f in findings
            ]
        )
    else:
        print_table(
            (("ok" if f.ok else "FAILS", f.check, f.observed[:100]) for f in findings),
            ["", "check", "observed"],
        )
        for finding in findings:
            for statement in finding.repair:
                click.echo(f"{statement.text};")
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        fail(
            f"{len(failed)} of {len(findings)} checks fail; run the statements above.", EXIT_REFUSED
        )
    note("Every check passes")


def _runner_findings(settings: "Settings") -> "list[Finding]":
    """Say what runs the local account's job services; the account has tried it at its start."""
    from monad_dagster.cli.local import runner_rows
    from monad_dagster.spcs.doctor import Finding

    facts = ctx.local_account(settings).status()
    return [Finding(check, True, observed) for check, observed in runner_rows(facts)]


@click.command()
@reports_errors
def login() -> None:
    """Log the Docker CLI in to the account's image registry.

    The password is a session token, which Docker keeps in its own configuration.

    Example: monad-dagster login
    """
    from monad_dagster.spcs.identifiers import QualifiedName
    from monad_dagster.spcs.image_repository import REGISTRY_USER, ImageRepository

    settings = ctx.current_settings()
    if not shutil.which("docker"):
        raise ImageError(problem("The docker command is missing", "", "Install the Docker CLI"))
    with ctx.open_session(settings) as session:
        name = QualifiedName(settings.database, settings.schema, settings.image_repository)
        repository = ImageRepository(session, name)
        host = repository.url().split("/")[0]
        password = repository.credentials().password
        done = subprocess.run(
            ["docker", "login", "--username", REGISTRY_USER, "--password-stdin", host],
            input=password,
            text=True,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        raise ImageError(problem(f"docker login to {host} failed", done.stderr.strip()))
    note(f"Logged in to {host}")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@reports_errors
def init(directory: Path) -> None:
    """Copy scripts, configs, scenarios and Dockerfile to DIRECTORY.

    Example: monad-dagster init ./container
    """
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(problem(f"{directory} is not empty", "", "Choose a new folder"))
    shutil.copytree(
        default_container_dir(),
        directory,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
    )
    note(
        f"Copied to {directory}. Use it with: export MONAD_CONTAINER_DIR={json.dumps(str(directory.absolute()))}"
    )
