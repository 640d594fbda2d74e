"""The embedded local account: start it, stop it, connect to it.

Only what the command line and the definitions need is here; the server is a process of its own
(`serve.py`), so that nothing of it is imported into Dagster.
"""

from monad_dagster.local.control import LocalAccount

__all__ = ["LocalAccount"]
