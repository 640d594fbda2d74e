"""Open what a command needs: settings, the local account, connections."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.errors import ConfigError, problem
from monad_dagster.settings import Settings, load_settings

if TYPE_CHECKING:
    from monad_dagster.local import LocalAccount
    from monad_dagster.spcs.connection import Session

ADMIN_USER = "ADMIN"
PIPELINE_USER = "MONAD_PIPELINE"
# Settings are named as Dagster's SnowflakeResource names them; the connector has other names for
# two, and passes over what it does not know.
_CONNECTOR_NAMES = {
    "private_key_path": "private_key_file",
    "private_key_password": "private_key_file_pwd",
}


def current_settings(overrides: dict[str, str] | None = None) -> Settings:
    """Read the settings, with the command's own options on top."""
    from monad_dagster.settings import merged_environment

    return load_settings(merged_environment(overrides or {}))


def local_account(settings: Settings) -> "LocalAccount":
    """Return the embedded account of these settings; it may not be running yet."""
    from monad_dagster.local import LocalAccount

    return LocalAccount(settings.local_state_dir, runner=settings.runner)


def connection_parameters(settings: Settings, *, admin: bool = False) -> dict[str, Any]:
    """Return keyword arguments for the connector, starting the local account when needed."""
    if settings.deployment == "local":
        account = local_account(settings)
        account.start()
        return account.connection(ADMIN_USER if admin else PIPELINE_USER)
    parameters: dict[str, Any] = {
        _CONNECTOR_NAMES.get(name, name): value for name, value in settings.snowflake.items()
    }
    if not admin:
        parameters |= {
            "role": settings.role,
            "warehouse": settings.warehouse,
            "database": settings.database,
            "schema": settings.schema,
        }
    return parameters


@contextmanager
def open_session(settings: Settings, *, admin: bool = False) -> Iterator["Session"]:
    """Open a session on the account and close it afterwards."""
    from monad_dagster.spcs.connection import Session

    parameters = connection_parameters(settings, admin=admin)

    def connect() -> Any:
        import snowflake.connector

        return snowflake.connector.connect(**parameters)

    with Session(connect, query_tag={"tool": "monad-dagster cli"}) as session:
        yield session


def require_local(settings: Settings) -> None:
    """Refuse a command that only makes sense on the local account."""
    if settings.deployment != "local":
        raise ConfigError(
            problem(
                "This command works on the local account only",
                f"MONAD_DEPLOYMENT is {settings.deployment}",
                "Set MONAD_DEPLOYMENT=local",
            )
        )


def existing_file(path: Path, what: str) -> Path:
    """Return *path* made absolute, or say which file is missing."""
    if not path.is_file():
        raise ConfigError(problem(f"The {what} does not exist", f"looked for {path}"))
    return path.absolute()
