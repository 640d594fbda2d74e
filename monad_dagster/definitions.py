"""The code location: resources for the deployment, and the assembled graph.

`MONAD_DEPLOYMENT=local` (the default) uses the embedded account, `snowflake` the account that the
SNOWFLAKE_* variables name. Nothing is started and nothing is sent while definitions load.
"""

import warnings
from typing import Any

import dagster as dg
from dagster_snowflake import SnowflakeResource

from monad_dagster.assets import build_graph
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.settings import Settings, load_settings

# The connector's own default waits minutes for a host that does not answer.
LOGIN_TIMEOUT_SECONDS = 60


def snowflake_resource(settings: Settings) -> SnowflakeResource:
    """Return the connection of the deployment."""
    names: dict[str, Any] = {
        "role": settings.role,
        "warehouse": settings.warehouse,
        "database": settings.database,
        "schema": settings.schema,
        "login_timeout": LOGIN_TIMEOUT_SECONDS,
    }
    if settings.deployment == "local":
        from monad_dagster.local_connection import LocalSnowflakeResource

        return LocalSnowflakeResource(
            account="LOCAL",
            user="MONAD_PIPELINE",
            authenticator="snowflake",
            state_dir=str(settings.local_state_dir),
            runner=settings.runner,
            **names,
        )
    parameters: dict[str, Any] = dict(settings.snowflake)
    extra = {key: parameters.pop(key) for key in ("token_file_path", "host") if key in parameters}
    if extra:
        parameters["additional_snowflake_connection_args"] = extra
    return SnowflakeResource(**parameters, **names)


def spcs_resource(settings: Settings) -> PipesSPCSClient:
    """Return the client that runs materializations as job services."""
    local = settings.deployment == "local"
    return PipesSPCSClient(
        snowflake=snowflake_resource(settings),
        database=settings.database,
        job_schema=settings.schema,
        stage=settings.stage,
        mount_path=settings.mount_path,
        compute_pool=settings.compute_pool,
        query_warehouse=settings.warehouse,
        gpus=settings.num_gpus,
        # A local statement costs nothing, so waits can be short there.
        poll_interval_seconds=1.0 if local else settings.poll_interval_seconds,
        max_poll_interval_seconds=2.0 if local else 3 * settings.poll_interval_seconds,
        max_queue_seconds=settings.max_queue_seconds,
        max_runtime_seconds=settings.max_runtime_seconds,
        lineage_table="LINEAGE",
        credits_per_hour=settings.credit_rates,
        region_timezone=settings.region_timezone,
        # The local event table is never late.
        log_wait_seconds=10.0 if local else 60.0,
    )


# Observable assets and Pipes sessions are marked beta or preview in Dagster 1.13; the contract tests
# notice when they change, and a warning at every load would hide others.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"dagster\.")
warnings.filterwarnings("ignore", category=dg.PreviewWarning, module=r"dagster\.")

_settings = load_settings()

defs = dg.Definitions(
    **build_graph(_settings),
    resources={"spcs": spcs_resource(_settings)},
    executor=dg.multiprocess_executor.configured(
        # A step waits for a job service; most of its own time would go into imports, which the fork
        # server does once.
        {"start_method": {"forkserver": {"preload_modules": ["monad_dagster.definitions"]}}}
    ),
)
