"""A code location with one partitioned asset, as light as a run worker allows.

Everything it needs lies in one directory, named by an environment variable: the connection, and a
plan for each partition.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_snowflake import SnowflakeResource

from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.launch import LaunchOptions

HOME_VARIABLE = "CHAOS_HOME"
IMAGE = "/monad_db/data_schema/image_repository/toy:1"
MAX_PARTITIONS = 1000
NUM_STEPS = 3  # as in chaos_job.py, which runs where this cannot be imported
RESULTS_ARE_IN = "every message has arrived; the result is about to be recorded"
JOBS = {"in_process": "in_process_job", "multiprocess": "multiprocess_job"}


def partition_key(number: int) -> str:
    """Return the key of a partition."""
    return f"c{number:03d}"


class CrashPoint:
    """Ends this process at its n-th statement, before it is sent or after it was answered.

    Attributes:
        at: Which statement; None never.
        after: Whether the answer has come by then.
    """

    at: int | None = None
    after: bool = False
    _count: int = 0

    @classmethod
    def statement(cls) -> int:
        """Count a statement."""
        cls._count += 1
        return cls._count

    @classmethod
    def reached(cls, number: int, *, after: bool) -> None:
        """Die here if this is the place."""
        if number == cls.at and after is cls.after:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingSnowflakeResource(SnowflakeResource):
    """The connection resource, with a crash point around every statement."""

    @contextmanager
    def get_connection(self, raw_conn: bool = True) -> Iterator[Any]:
        """Open a connection whose cursors pass the crash point."""
        with super().get_connection(raw_conn=raw_conn) as connection:
            open_cursor = connection.cursor

            def cursor(*arguments: Any, **options: Any) -> Any:
                opened = open_cursor(*arguments, **options)
                execute = opened.execute

                def crashing(*arguments: Any, **options: Any) -> Any:
                    number = CrashPoint.statement()
                    CrashPoint.reached(number, after=False)
                    try:
                        return execute(*arguments, **options)
                    finally:  # an error is an answer too
                        CrashPoint.reached(number, after=True)

                opened.execute = crashing
                return opened

            connection.cursor = cursor
            yield connection


def home() -> Path:
    """Return the directory of this experiment."""
    return Path(os.environ[HOME_VARIABLE])


def build_client() -> PipesSPCSClient:
    """Build the client of this process's experiment."""
    return build_client_of(home())


def build_client_of(directory: Path) -> PipesSPCSClient:
    """Build the client with short intervals over the connection of an experiment."""
    arguments = json.loads((directory / "connection.json").read_text())
    names = ("host", "port", "protocol")
    direct = ("account", "user", "password", "role", "warehouse", "database", "schema")
    settings = json.loads((directory / "client.json").read_text())
    return PipesSPCSClient(
        snowflake=CrashingSnowflakeResource(
            **{name: arguments[name] for name in direct},
            additional_snowflake_connection_args={name: arguments[name] for name in names},
        ),
        image=IMAGE,
        gpus=0,
        poll_interval_seconds=0.4,
        max_poll_interval_seconds=1.2,
        observation_interval_seconds=0.0,
        retry_delay_seconds=0.2,
        statement_timeout_seconds=8,
        **settings,
    )


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(
        [partition_key(number) for number in range(MAX_PARTITIONS)]
    )
)
def toy(context: dg.AssetExecutionContext, client: PipesSPCSClient):
    """Run the chaos job; a plan may hold the result back after it has come."""
    plan = json.loads((home() / "plans" / f"{context.partition_key}.json").read_text())
    results = client.run(
        context=context,
        command=["python"],
        args=[
            "/app/monad_stage/scripts/chaos_job.py",
            *("--stage", "/app/monad_stage"),
            *("--output", "{output_path}"),
            *("--partition", context.partition_key),
        ],
        output_path="toy",
        inputs={"stage_contents": "v1"},
        options=LaunchOptions(
            compute_pool=plan.get("pool"), max_queue_seconds=plan.get("max_queue_seconds")
        ),
    ).get_results(implicit_materializations=False)
    if plan.get("hold_result"):
        context.log.info(RESULTS_ARE_IN)
        while not (home() / "gates" / context.partition_key).exists():
            time.sleep(0.02)
    return results


def _definitions() -> dg.Definitions:
    executors = {
        "in_process_job": dg.in_process_executor,
        "multiprocess_job": dg.multiprocess_executor,
    }
    jobs = [
        dg.define_asset_job(name, selection="toy", executor_def=executor)
        for name, executor in executors.items()
    ]
    return dg.Definitions(assets=[toy], jobs=jobs, resources={"client": build_client()})


def in_process_job() -> dg.JobDefinition:
    """Build the job that runs its step in the run worker."""
    return _definitions().resolve_job_def("in_process_job")


def multiprocess_job() -> dg.JobDefinition:
    """Build the job that runs its step in a process of its own."""
    return _definitions().resolve_job_def("multiprocess_job")
