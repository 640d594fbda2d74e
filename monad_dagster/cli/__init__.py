"""`monad-dagster`: the command line of the pipeline.

Commands are imported when they are called, so that `monad-dagster --help` stays fast.
"""

import importlib
from typing import Any

import click

# Command name to "module:attribute" below monad_dagster.cli.
_COMMANDS = {
    "run": "run:run",
    "ui": "run:ui",
    "report": "report:report",
    "setup": "account:setup",
    "doctor": "account:doctor",
    "login": "account:login",
    "init": "account:init",
    "load": "data:load",
    "sample": "data:sample",
    "spec": "jobs:spec",
    "status": "jobs:status",
    "logs": "jobs:logs",
    "cancel": "jobs:cancel",
    "local": "local:local_group",
}


class _LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List every command in the order of the table above."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        found: Any = getattr(importlib.import_module(f"monad_dagster.cli.{module}"), attribute)
        return found


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="monad-dagster")
def main() -> None:
    """Run behavioural foundation models as Snowflake job services.

    Settings are MONAD_* environment variables, also in a file .env; README.md says which.

    Example: monad-dagster run --scenario churn
    """
