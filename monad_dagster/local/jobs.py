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

if TYPE_CHECKING:
    from monad_dagster.local.account import Account


logger = logging.getLogger("monad_dagster.local")


def install(account: "Account") -> None:
    """Give the account its job services; the runner is probed by running a container.

    DIR/runner.json with {"level": "plain"} asks for one isolation level.
    """
    runner = ProcessRunner(account.state_dir, _wanted_level(account.state_dir / "runner.json"))
    logger.warning("Job services run with the %s.", runner.describe())
    images = ImageCache(account.extensions["images"], account.state_dir / "images")
    account.extensions["events"] = EventStore(account.state_dir / "events.sqlite")
    jobs = JobServices(account, Launcher(account, runner, images))
    account.extensions["jobs"] = jobs
    account.extensions["runner"] = runner
    account.on_open(jobs.open)
    account.on_close(account.extensions["events"].close)
    account.on_close(jobs.close)


def _wanted_level(path: Path) -> str | None:
    return json.loads(path.read_text()).get("level") if path.exists() else None
