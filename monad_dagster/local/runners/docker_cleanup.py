"""Removes from a container engine what an account made in it, and nothing else.

Containers and networks are found by the account's label, images by the account's own list.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.runners.base import RunnerError
from monad_dagster.local.runners.docker_client import find_engine
from monad_dagster.local.runners.docker_container import RECORD
from monad_dagster.local.runners.docker_images import EngineImages
from monad_dagster.local.runners.docker_network import remove_networks

if TYPE_CHECKING:
    from docker import APIClient

logger = logging.getLogger("monad_dagster.local")

LABEL = "dev.monad-dagster.account"
RUN_LABEL = "dev.monad-dagster.run-dir"
IMAGES_FILE = "docker_images.json"


def remove_everything(url: str, state_dir: Path) -> int:
    """Remove an account's containers, networks and images; return how many containers."""
    try:
        engine = find_engine(url)
    except RunnerError as error:
        logger.warning("Containers of %s may be left in an engine: %s", state_dir, error)
        return 0
    with engine.client() as client:
        found = _containers(client, state_dir)
        for container in found:
            _remove(client, container["Id"])
        remove_networks(client, _filter(state_dir))
        EngineImages(state_dir / "runner" / IMAGES_FILE).remove(client)
    return len(found)


def remove_leftovers(client: "APIClient", state_dir: Path) -> int:
    """Remove containers whose end is recorded or whose job service is forgotten; return how many.

    They are left when an account or an engine was killed at the wrong moment.
    """
    removed = 0
    for container in _containers(client, state_dir):
        run_dir = Path(container["Labels"].get(RUN_LABEL, ""))
        if _is_needed(run_dir, container["Id"]):
            continue
        _remove(client, container["Id"])
        removed += 1
    return removed


def _is_needed(run_dir: Path, identifier: str) -> bool:
    if (run_dir / "exit.json").exists():
        return False
    for name in (RECORD, "pause.json"):
        try:
            record = json.loads((run_dir / name).read_text())
        except (OSError, ValueError):
            continue
        return record.get("id", identifier) == identifier
    return False


def _containers(client: "APIClient", state_dir: Path) -> list[dict]:
    return client.containers(all=True, filters={"label": _filter(state_dir)})


def _filter(state_dir: Path) -> str:
    return f"{LABEL}={state_dir}"


def _remove(client: "APIClient", identifier: str) -> None:
    from docker.errors import APIError

    try:
        client.remove_container(identifier, v=True, force=True)
    except APIError as error:
        logger.warning("Container %s was not removed: %s", identifier[:12], error)
