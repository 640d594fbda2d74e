"""A Dagster materialization as a Snowflake job service: the Pipes client and what it takes."""

from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.pipes.metadata import SpcsMetadataSet
from monad_dagster.pipes.named_connection import NamedConnection

__all__ = ["LaunchOptions", "NamedConnection", "PipesSPCSClient", "SpcsMetadataSet"]
