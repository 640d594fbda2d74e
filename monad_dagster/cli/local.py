"""`monad-dagster local`: the embedded account's life cycle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.faults import fault_group
from monad_dagster.cli.output import note, print_json, print_table, reports_errors

_ACCOUNT_KEYS = ("account", "host", "port", "protocol", "user", "role", "database", "schema")


@click.group(name="local")
def local_group() -> None:
    """Start, stop and inspect the embedded local account.

    Example: monad-dagster local start
    """


local_group.add_command(fault_group)


@local_group.command()
@click.option(
    "--port", default=0, help="Port on 127.0.0.1; 0 keeps the last one or picks a free one."
)
@click.option("--host", default="127.0.0.1", help="Address; beyond loopback it needs TLS.")
@click.option("--tls-cert", type=click.Path(exists=True), help="Certificate file (PEM).")
@click.option("--tls-key", type=click.Path(exists=True), help="Key file of the certificate (PEM).")
@reports_errors
def start(port: int, host: str, tls_cert: str | None, tls_key: str | None) -> None:
    """Start the account unless it already answers.

    Example: monad-dagster local start --port 8085
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("TLS needs both --tls-cert and --tls-key")
    options = ["--host", host]
    if tls_cert and tls_key:
        options += ["--tls-cert", str(Path(tls_cert).resolve())]
        options += ["--tls-key", str(Path(tls_key).resolve())]
    connection = ctx.local_account(settings).start(port=port, options=options)
    note(f"Local account on {connection['protocol']}://{connection['host']}:{connection['port']}")
    note(f"State in {settings.local_state_dir}")


@local_group.command()
@reports_errors
def stop() -> None:
    """Stop the account; its state stays.

    Example: monad-dagster local stop
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    ctx.local_account(settings).stop()
    note("Local account stopped")


@local_group.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def status(as_json: bool) -> None:
    """Say whether the account runs, where, and which runner it uses.

    Example: monad-dagster local status --json
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    facts = ctx.local_account(settings).status()
    if as_json:
        print_json(facts)
    else:
        rows = [(key, value) for key, value in sorted(facts.items()) if key != "runner"]
        print_table([*rows, *runner_rows(facts)], ["", "value"])


def runner_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what `status` says about runners: which are in use, and why the others are not."""
    runner = facts.get("runner") or {}
    rows = [("runner setting", str(runner["setting"]))] if runner else []
    rows += [(f"runner {kind}", text) for kind, text in runner.get("in_use", {}).items()]
    rows += [
        (f"runner {kind}", f"not used: {text}") for kind, text in runner.get("refused", {}).items()
    ]
    return rows


@local_group.command()
@click.confirmation_option(prompt="Delete every database, stage and image of the local account?")
@reports_errors
def reset() -> None:
    """Stop the account and delete its state.

    Example: monad-dagster local reset --yes
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    ctx.local_account(settings).reset()
    note(f"Removed {settings.local_state_dir}")


@local_group.command()
@click.option(
    "--user", default=ctx.PIPELINE_USER, show_default=True, help="ADMIN or MONAD_PIPELINE."
)
@click.option("--show-password", is_flag=True, help="Print the generated password too.")
@click.option("--toml", "as_toml", is_flag=True, help="Print a connections.toml section.")
@reports_errors
def connection(user: str, show_password: bool, as_toml: bool) -> None:
    """Print how a client connects; the password stays hidden unless asked for.

    Example: monad-dagster local connection --user ADMIN --toml --show-password
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    account = ctx.local_account(settings)
    parameters = {
        key: value
        for key, value in account.connection(user).items()
        if key in _ACCOUNT_KEYS or (key == "password" and show_password)
    }
    password_file = settings.local_state_dir / "credentials.json"
    if not as_toml:
        hidden = {} if show_password else {"password_file": str(password_file)}
        print_json(parameters | hidden)
        return
    click.echo("[connections.monad_local]")
    for key, value in parameters.items():
        click.echo(f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"')
    if not show_password:
        # A comment, because clients know no such parameter.
        click.echo(f"# password: see {password_file}, or add --show-password")
