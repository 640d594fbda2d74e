"""What every command shares: tables, JSON, progress and the exit codes.

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 cannot connect,
4 Snowflake refused, 5 job service failed.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from monad_dagster.errors import (
    ConfigError,
    ConnectionFailedError,
    JobServiceFailedError,
    MonadDagsterError,
    SnowflakeError,
    SpecError,
)

P = ParamSpec("P")
R = TypeVar("R")

EXIT_FAILED = 1
EXIT_ARGUMENTS = 2
EXIT_CONNECTION = 3
EXIT_REFUSED = 4
EXIT_JOB_SERVICE = 5
# Packages of the extra `local` that commands import themselves.
_OPTIONAL = ("numpy", "pyarrow", "duckdb")


def exit_code(error: MonadDagsterError) -> int:
    """Return the documented exit code for an error."""
    if isinstance(error, ConfigError | SpecError):
        return EXIT_ARGUMENTS
    if isinstance(error, ConnectionFailedError):
        return EXIT_CONNECTION
    if isinstance(error, JobServiceFailedError):
        return EXIT_JOB_SERVICE
    if isinstance(error, SnowflakeError):
        return EXIT_REFUSED
    return EXIT_FAILED


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print *message* on stderr and leave with *code*."""
    click.echo(f"Error: {message}", err=True)
    raise SystemExit(code)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the project's errors into one message and an exit code, without a traceback."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except MonadDagsterError as error:
            fail(str(error), exit_code(error))
        except ModuleNotFoundError as error:
            if error.name not in _OPTIONAL:
                raise
            fail(
                f"The package {error.name} is not installed. This command needs an extra: "
                "pip install 'monad-dagster[local]'",
                EXIT_ARGUMENTS,
            )

    return wrapper


def print_table(rows: Iterable[Sequence[Any]], headers: Sequence[str]) -> None:
    """Print rows as aligned columns on stdout."""
    texts = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [
        max([len(header), *(len(row[i]) for row in texts)]) for i, header in enumerate(headers)
    ]
    for line in [list(headers), ["-" * width for width in widths], *texts]:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def print_json(value: Any) -> None:
    """Print *value* as JSON for machines."""
    click.echo(json.dumps(value, indent=2, default=str))


def note(message: str) -> None:
    """Print one progress line on stderr."""
    click.echo(message, err=True)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Announce a step; on a terminal its detail line is rewritten in place."""
    live = sys.stderr.isatty()
    note(f"{title} ...")

    def detail(text: str) -> None:
        if live:
            click.echo(f"\r\x1b[2K  {text}", err=True, nl=False)

    try:
        yield detail
    finally:
        if live:
            click.echo("\r\x1b[2K", err=True, nl=False)
