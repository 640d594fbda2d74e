"""Loads the rooms that plug into the account: statement modules and `install(account)` hooks."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

# Importing a module registers its handlers. `install(account)`, where present, may add routes,
# hooks and `account.extensions` entries.
MODULES = (
    "monad_dagster.local.faults.faults_http",
    "monad_dagster.local.catalog.functions",
    "monad_dagster.local.catalog.ddl",
    "monad_dagster.local.catalog.principals",
    "monad_dagster.local.catalog.context",
    "monad_dagster.local.catalog.session_variables",
    "monad_dagster.local.catalog.grants",
    "monad_dagster.local.catalog.show_grants",
    "monad_dagster.local.catalog.shows",
    "monad_dagster.local.catalog.show_containers",
    "monad_dagster.local.catalog.show_parameters",
    "monad_dagster.local.stages.stage_statements",
    "monad_dagster.local.stages.directory_tables",
    "monad_dagster.local.stages.blobs",
    "monad_dagster.local.stages.local_uploads",
    "monad_dagster.local.engine.file_formats",
    "monad_dagster.local.engine.loading",
    "monad_dagster.local.pools.compute_pools",
    "monad_dagster.local.pools.pool_statements",
    "monad_dagster.local.images.registry",
    "monad_dagster.local.jobs.installing",
    "monad_dagster.local.jobs.ml_jobs",
    "monad_dagster.local.protocol.rest",
)


def install_all(account: "Account") -> None:
    """Import every room that exists and let it install itself."""
    for name in MODULES:
        if importlib.util.find_spec(name) is None:
            continue
        install = getattr(importlib.import_module(name), "install", None)
        if install is not None:
            install(account)
