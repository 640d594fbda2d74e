"""Runs the toy asset as a Dagster run of its own process: python -m … INSTANCE CONNECTION SECONDS."""

import json
import os
import sys
from pathlib import Path

import dagster as dg

from tests.contract.pipes.conftest import build_client, toy_asset

CONNECTION_VARIABLE = "TOY_CONNECTION"
SECONDS_VARIABLE = "TOY_SECONDS"
EXECUTOR_VARIABLE = "TOY_EXECUTOR"
RETRIES_VARIABLE = "TOY_RETRIES"


def toy_job():
    """Return the asset job."""
    return toy_definitions().resolve_job_def("toy_asset_job")


def toy_definitions():
    """Build the code; the connection comes from a file, so that a child process can build it."""
    arguments = json.loads(Path(os.environ[CONNECTION_VARIABLE]).read_text())
    retries = int(os.environ.get(RETRIES_VARIABLE, "0"))
    asset = toy_asset(
        *("--seconds", os.environ.get(SECONDS_VARIABLE, "0")),
        retry_policy=dg.RetryPolicy(max_retries=retries) if retries else None,
    )
    several = os.environ.get(EXECUTOR_VARIABLE) == "multiprocess"
    executor = dg.multiprocess_executor if several else dg.in_process_executor
    job = dg.define_asset_job("toy_asset_job", selection="toy", executor_def=executor)
    return dg.Definitions(
        assets=[asset],
        jobs=[job],
        resources={"client": build_client(arguments)},
        executor=executor,
    )


def main() -> None:
    """Run the job once, under the run id that the caller chose."""
    directory, run_id = sys.argv[1:3]
    with dg.DagsterInstance.get() if directory == "-" else instance_in(directory) as instance:
        job = toy_job()
        run = instance.create_run_for_job(job, run_id=run_id)
        from dagster._core.execution.api import execute_run

        execute_run(dg.reconstructable(toy_job), run, instance)


def instance_in(directory):
    """Open the Dagster instance of a directory."""
    return dg.DagsterInstance.from_config(directory)


if __name__ == "__main__":
    main()
