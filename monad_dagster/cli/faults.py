"""`monad-dagster local fault`: make the running local account fail on purpose."""

from typing import Any

import click

from monad_dagster.cli import context as ctx
from monad_dagster.cli.output import fail, note, print_json, print_table, reports_errors
from monad_dagster.local.faults.fault_store import KINDS

_EFFECTS = "\n".join(f"  {kind.name}: {kind.summary}" for kind in KINDS.values())


@click.group(name="fault")
def fault_group() -> None:
    """Make the running local account fail on purpose.

    Example: monad-dagster local fault list
    """


@fault_group.command(epilog=f"\b\nFaults:\n{_EFFECTS}")
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@click.option("--statement", help="Beginning of the statements to hit; `*` and `?` are wildcards.")
@click.option("--service", help="Name of the job services to hit, plain or with schema.")
@click.option("--pool", help="Name of the compute pools to hit.")
@click.option("--stage", help="Name of the stages to hit, plain or with schema.")
@click.option("--user", help="Only what this user does.")
@click.option("--count", type=int, help="Hit so many, then no more. Default: every one.")
@click.option("--probability", type=float, help="Share of the matching ones to hit. Default: 1.")
@click.option("--seed", type=int, help="Seed of that choice.")
@click.option("--delay-seconds", type=float, help="How late it acts.")
@click.option("--persist", is_flag=True, default=None, help="Keep it when the account restarts.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE",
    help="Of one kind: status, attempts, family, container, duration_seconds, max_bytes, master.",
)  # fmt: skip
@reports_errors
def add(kind: str, options: tuple[str, ...], **fields: Any) -> None:
    """Set a fault.

    Example: monad-dagster local fault add lost-answer --statement 'EXECUTE JOB SERVICE' --count 1
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:
            raise click.BadParameter(f"{option}: write NAME=VALUE", param_hint="--option")
        given[name] = value
    settings = ctx.current_settings()
    ctx.require_local(settings)
    added = ctx.local_account(settings).faults.describe_added(kind, **given)
    note(f"Fault {added['id']} is set: {added['effect']} (seed {added['seed']})")


@fault_group.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def list_faults(as_json: bool) -> None:
    """List the faults that are set and how often each was a hit.

    Example: monad-dagster local fault list --json
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    faults = ctx.local_account(settings).faults.current()
    if as_json:
        print_json(faults)
        return
    if not faults:
        note("No fault is set; monad-dagster local fault add --help lists the kinds")
        return
    rows = [
        (
            f["id"],
            f["kind"],
            _words(f["selectors"] | f["options"]),
            f["count"] or "every",
            f["hits"],
        )
        for f in faults
    ]
    print_table(rows, ["id", "fault", "where", "count", "hits"])


def _words(pairs: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in pairs.items()) or "everywhere"


@fault_group.command()
@click.argument("fault_id", type=int, required=False)
@reports_errors
def clear(fault_id: int | None) -> None:
    """Remove one fault, or all of them.

    Example: monad-dagster local fault clear
    """
    settings = ctx.current_settings()
    ctx.require_local(settings)
    removed = ctx.local_account(settings).faults.clear(fault_id)
    if fault_id is not None and not removed:
        fail(f"Fault {fault_id} is not set. monad-dagster local fault list shows those that are.")
    note(f"Faults removed: {removed}")
