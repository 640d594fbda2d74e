"""Installs job services into an account: store, runner, controller, statements and functions."""

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


def install(account: "Account") -> None:
    """Give the account its job services; the runner is probed by running a container."""
    runner = ProcessRunner(account.state_dir)
    images = ImageCache(account.extensions["images"], account.state_dir / "images")
    account.extensions["events"] = EventStore(account.state_dir / "events.sqlite")
    jobs = JobServices(account, Launcher(account, runner, images))
    account.extensions["jobs"] = jobs
    account.extensions["runner"] = runner
    account.on_open(jobs.open)
    account.on_close(account.extensions["events"].close)
    account.on_close(jobs.close)
