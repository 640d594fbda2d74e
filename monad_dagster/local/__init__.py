"""The embedded local account: start it, stop it, connect to it.

Only what the command line and the definitions need is here; the server is a process of its own
(`serve.py`), so that nothing of it is imported into Dagster.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monad_dagster.local.control import LocalAccount

__all__ = ["LocalAccount"]


def __getattr__(name: str) -> Any:
    # Imported on use: the processes of containers and mounts import this package and start often.
    if name == "LocalAccount":
        from monad_dagster.local.control import LocalAccount

        return LocalAccount
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
