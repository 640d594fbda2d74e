"""The Snowflake resource of a local deployment: finds, and if need be starts, the local account.

Port and generated password are read when a connection is opened, so a code location that was loaded
before the account was restarted keeps working.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_snowflake import SnowflakeResource
from pydantic import Field


class LocalSnowflakeResource(SnowflakeResource):
    """A `SnowflakeResource` whose account is the embedded one in `state_dir`."""

    state_dir: str = Field(description="State folder of the local account.")
    runner: str = Field(default="auto", description="What runs the local account's job services.")

    @property
    def _connection_args(self) -> Mapping[str, Any]:
        from monad_dagster.local import LocalAccount

        account = LocalAccount(Path(self.state_dir), runner=self.runner)
        account.start()
        chosen = {
            key: value
            for key in ("role", "warehouse", "database")
            if (value := getattr(self, key)) is not None
        }
        return {
            **account.connection(self.user),
            **chosen,
            "schema": self.schema_,
            # Other cloud endpoints are never asked for: the local account is on loopback only.
            "platform_detection_timeout_seconds": 0,
        }
