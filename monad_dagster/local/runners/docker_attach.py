"""Finds the containers of a run directory again, and gives back what an instance held.

Works from what lies in the run directory, so it needs no runner: an account that runs other
containers otherwise still accounts for those that an engine runs.
"""

import json
import time
from pathlib import Path
from typing import Any

from monad_dagster.local.runners.docker_client import Engine
from monad_dagster.local.runners.docker_container import (
    LOST_SECONDS,
    RECORD,
    DockerContainer,
    read_record,
    remove_container,
)
from monad_dagster.local.runners.supervise import write_json

PAUSE = "pause.json"  # in an instance's directory: the container that holds its network


def attach(
    engine: Engine, run_dir: Path, *, lost_seconds: float = LOST_SECONDS
) -> DockerContainer | None:
    """Return the container of a run directory, or None when none was started there."""
    record = read_record(run_dir)
    if record is None:
        return None
    if "id" not in record and not _recover(engine, run_dir, record):
        return None
    return DockerContainer(engine, run_dir, lost_seconds=lost_seconds)


def _recover(engine: Engine, run_dir: Path, record: dict[str, Any]) -> bool:
    """Find a container whose account was killed while it started it."""
    from docker.errors import NotFound

    with engine.client() as client:
        try:
            found = client.inspect_container(record["name"])
        except NotFound:
            return False
        if found["State"]["Status"] == "created":
            client.remove_container(record["name"], force=True)
            return False
    write_json(run_dir / RECORD, {**record, "id": found["Id"], "started_at": time.time()})
    return True


def end_instance(engine: Engine, instance_dir: Path) -> None:
    """Remove the container that held an instance's network, if there is one."""
    place = instance_dir / PAUSE
    if place.exists():
        remove_container(engine, str(json.loads(place.read_text())["id"]))
        place.unlink(missing_ok=True)
