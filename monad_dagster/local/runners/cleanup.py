"""Ends the containers of an account that is being deleted and removes what it left in an engine.

Loads the Docker client only when the account used a container engine.
"""

import json
import os
import signal
from pathlib import Path

from monad_dagster.local.runners import supervise


def kill_containers(state_dir: Path) -> int:
    """Kill every container that a state directory's job services left running; return how many."""
    killed = 0
    for path in (state_dir / "jobs").glob("*/*/*/supervisor.json"):
        try:
            known = json.loads(path.read_text())
            now = supervise.identity(known["pid"])
        except (OSError, ValueError, KeyError):
            continue
        if all(now[key] == known[key] for key in ("pid", "start_ticks", "boot_id")):
            os.kill(known["pid"], signal.SIGKILL)
            killed += 1
    return killed + _clean_engine(state_dir)


def _clean_engine(state_dir: Path) -> int:
    """Remove the account's containers, networks and images from the engine that it used."""
    used = state_dir / "runner" / "engine.json"
    if not used.exists():
        return 0
    from monad_dagster.local.runners import docker_cleanup

    return docker_cleanup.remove_everything(json.loads(used.read_text())["url"], state_dir)
