"""Installs job services into an account: store, runner, controller, statements and functions."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local import (
    job_functions,  # noqa: F401 - registers its handlers
    job_statements,  # noqa: F401 - registers its handlers
)
from monad_dagster.local.event_store import EventStore
from monad_dagster.local.image_rootfs import ImageCache
from monad_dagster.local.job_launch import Launcher
from monad_dagster.local.job_services import JobServices
from monad_dagster.local.runners.process import ProcessRunner
from monad_dagster.local.runners.stage_mount import StageMounts

if TYPE_CHECKING:
    from monad_dagster.local.account import Account


logger = logging.getLogger("monad_dagster.local")


def install(account: "Account") -> None:
    """Give the account its job services; the runner is probed by running a container.

    DIR/runner.json with {"level": "plain"} asks for one isolation level, with {"stage_mounts":
    "off"} (or "strict") for the rules of stage volumes.
    """
    wanted = _wanted(account.state_dir / "runner.json")
    mounts = StageMounts(account.state_dir, wanted.get("stage_mounts"))
    runner = ProcessRunner(account.state_dir, wanted.get("level"), mounts)
    logger.warning("Job services run with the %s; %s.", runner.describe(), mounts.describe())
    images = ImageCache(account.extensions["images"], account.state_dir / "images")
    account.extensions["events"] = EventStore(account.state_dir / "events.sqlite")
    jobs = JobServices(account, Launcher(account, runner, images))
    account.extensions["jobs"] = jobs
    account.extensions["runner"] = runner
    account.extensions["stage_mounts"] = mounts
    account.on_open(jobs.open)
    account.on_close(account.extensions["events"].close)
    account.on_close(jobs.close)


def _wanted(path: Path) -> dict[str, str]:
    return json.loads(path.read_text()) if path.exists() else {}
