"""The toy asset as a code location, for Dagster's own commands."""

from tests.contract.pipes.toy_run import toy_definitions

defs = toy_definitions()
