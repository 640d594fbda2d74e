"""Installs job services into an account: store, runner, controller, statements and functions."""

import json
import logging
from typing import TYPE_CHECKING

from monad_dagster.local import (
    job_functions,  # noqa: F401 - registers its handlers
    job_statements,  # noqa: F401 - registers its handlers
)
from monad_dagster.local.event_store import EventStore
from monad_dagster.local.image_pull import probe_pull
from monad_dagster.local.image_rootfs import ImageCache
from monad_dagster.local.job_launch import Launcher
from monad_dagster.local.job_services import JobServices
from monad_dagster.local.runners.choice import choose_runners

if TYPE_CHECKING:
    from monad_dagster.local.account import Account


logger = logging.getLogger("monad_dagster.local")


def install(account: "Account") -> None:
    """Give the account its job services; runners are chosen once the account listens."""
    images = ImageCache(account.extensions["images"], account.state_dir / "images")
    account.extensions["events"] = EventStore(account.state_dir / "events.sqlite")
    launcher = Launcher(account, images)
    jobs = JobServices(account, launcher)
    account.extensions["jobs"] = jobs
    account.on_open(lambda: choose(account, launcher))
    account.on_open(jobs.open)
    account.on_close(account.extensions["events"].close)
    account.on_close(jobs.close)


def choose(account: "Account", launcher: Launcher) -> None:
    """Choose the runners by running containers that call the account back.

    Raises:
        RunnerError: The runner that was asked for is not available.
    """
    chosen = choose_runners(
        account.state_dir, account.address, probe_pull(account), wanted_runner(account)
    )
    logger.warning("Job services run with %s.", chosen.describe())
    launcher.runners = chosen
    account.extensions["runners"] = chosen
    account.on_close(chosen.close)


def wanted_runner(account: "Account") -> str:
    """Return the runner asked for: at the start of the account, else by DIR/runner.json.

    The file holds {"runner": "plain"}, one of the names in `runners.choice.SETTINGS`.
    """
    path = account.state_dir / "runner.json"
    stored = json.loads(path.read_text()).get("runner") if path.exists() else None
    return account.extensions.get("wanted_runner") or stored or "auto"
