"""A Dagster materialization as a Snowflake job service: the Pipes client and what it takes.

The names below are imported when they are asked for: reading a log from the command line needs
neither Dagster nor dagster-snowflake, whose import costs seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monad_dagster.pipes.client import PipesSPCSClient
    from monad_dagster.pipes.launch import LaunchOptions
    from monad_dagster.pipes.metadata import SpcsMetadataSet
    from monad_dagster.pipes.named_connection import NamedConnection

__all__ = ["LaunchOptions", "NamedConnection", "PipesSPCSClient", "SpcsMetadataSet"]

_MODULES = {
    "LaunchOptions": "launch",
    "NamedConnection": "named_connection",
    "PipesSPCSClient": "client",
    "SpcsMetadataSet": "metadata",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
