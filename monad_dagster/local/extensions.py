"""Loads the rooms that plug into the account: statement modules and `install(account)` hooks."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

# Importing a module registers its handlers. `install(account)`, where present, may add routes,
# hooks and `account.extensions` entries.
MODULES = (
    "monad_dagster.local.faults_http",
    "monad_dagster.local.functions",
    "monad_dagster.local.ddl",
    "monad_dagster.local.principals",
    "monad_dagster.local.context",
    "monad_dagster.local.grants",
    "monad_dagster.local.show_grants",
    "monad_dagster.local.shows",
    "monad_dagster.local.stages",
    "monad_dagster.local.directory_tables",
    "monad_dagster.local.blobs",
    "monad_dagster.local.file_formats",
    "monad_dagster.local.loading",
    "monad_dagster.local.compute_pools",
    "monad_dagster.local.pool_statements",
    "monad_dagster.local.registry",
    "monad_dagster.local.jobs",
    "monad_dagster.local.ml_jobs",
    "monad_dagster.local.rest",
)


def install_all(account: "Account") -> None:
    """Import every room that exists and let it install itself."""
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            continue
        install = getattr(importlib.import_module(name), "install", None)
        if install is not None:
            install(account)
