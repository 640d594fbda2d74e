"""The account of the client's contract tests, for statements without Dagster."""

from tests.contract.pipes.conftest import account, session

__all__ = ["account", "session"]
