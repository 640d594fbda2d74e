"""A connection that Snowflake's own configuration file describes, by its name.

The same file serves the connector and the `snow` command, so neither an account name nor a secret
needs to be in the code or in the environment of a code location.
"""

from collections.abc import Mapping
from typing import Any

from dagster_snowflake import SnowflakeResource
from pydantic import Field, model_validator

from monad_dagster.errors import ConfigError, problem


class NamedConnection(SnowflakeResource):
    """A `SnowflakeResource` that takes its parameters from `connections.toml`.

    Where that file is, which connection is the default one, and what may be in it, Snowflake's
    page "Connecting using the connections.toml file" says. Fields that are set here win over the
    file's.
    """

    connection_name: str | None = Field(
        default=None, description="Name of the connection; the default one if not given."
    )
    user: str = Field(default="", description="User login name; the file's if not given.")

    @model_validator(mode="before")
    @classmethod
    def validate_authentication(cls, values: Any) -> Any:
        """Accept a resource without credentials: the file has them."""
        return values

    @property
    def _connection_args(self) -> Mapping[str, Any]:
        from snowflake.connector.config_manager import CONFIG_MANAGER

        given = {key: value for key, value in super()._connection_args.items() if value != ""}
        configured: Any = CONFIG_MANAGER
        name = self.connection_name or str(configured["default_connection_name"])
        known = sorted(configured["connections"])
        if name not in known:
            raise ConfigError(
                problem(
                    f"Snowflake connection {name!r} is not configured",
                    f"connections.toml names {', '.join(known) or 'none'}",
                    "Add it there, or give another connection_name or a SnowflakeResource",
                    "The file is in ~/.snowflake or in SNOWFLAKE_HOME",
                )
            )
        return {**given, "connection_name": name}
