"""A Dagster materialization as a Snowflake job service: the Pipes client and what it takes."""

from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.pipes.metadata import SpcsMetadataSet

__all__ = ["LaunchOptions", "PipesSPCSClient", "SpcsMetadataSet"]
