"""Installs job services into an account: store, runner, controller, statements and functions."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.images.image_pull import probe_pull
from monad_dagster.local.images.image_rootfs import ImageCache
from monad_dagster.local.jobs import job_functions, job_statements  # noqa: F401 - registers its handlers
from monad_dagster.local.jobs.event_store import EventStore
from monad_dagster.local.jobs.job_launch import Launcher
from monad_dagster.local.jobs.job_metrics import INTERVAL_SECONDS
from monad_dagster.local.jobs.job_services import JobServices
from monad_dagster.local.runners.choice import choose_runners
from monad_dagster.local.runners.stage_mount import StageMounts

if TYPE_CHECKING:
    from monad_dagster.local.account import Account


logger = logging.getLogger("monad_dagster.local")


def install(account: "Account") -> None:
    """Give the account its job services; runners are chosen once the account listens.

    DIR/runner.json with {"runner": "plain"} asks for one runner, with {"stage_mounts": "off"} (or
    "strict") for the rules of stage volumes. DIR/event_table.json with
    {"delay_seconds": 120, "metric_seconds": 10} lets logs, events and metrics arrive late, as they
    do on Snowflake, and says how often containers are measured.
    """
    wanted = _read(account.state_dir / "runner.json")
    settings = _read(account.state_dir / "event_table.json")
    images = ImageCache(account.extensions["images"], account.state_dir / "images")
    account.extensions["events"] = EventStore(
        account.state_dir / "events.sqlite", account.clock,
        settings.get("delay_seconds", 0.0),
    )  # fmt: skip
    launcher = Launcher(account, images)
    jobs = JobServices(account, launcher)
    jobs.metrics.interval_seconds = settings.get("metric_seconds", INTERVAL_SECONDS)
    account.extensions["jobs"] = jobs
    account.extensions["stage_mounts"] = StageMounts(account.state_dir, wanted.get("stage_mounts"))
    account.on_open(lambda: choose(account, launcher, wanted.get("runner")))
    account.on_open(jobs.open)
    account.on_close(account.extensions["events"].close)
    account.on_close(jobs.close)


def choose(account: "Account", launcher: Launcher, stored: str | None) -> None:
    """Choose the runners by running containers that call the account back.

    Args:
        account: The account, listening.
        launcher: Who uses them.
        stored: What runner.json asks for; what the start of the account asks for comes first.

    Raises:
        RunnerError: The runner that was asked for is not available.
    """
    wanted = account.extensions.get("wanted_runner") or stored or "auto"
    chosen = choose_runners(account.state_dir, account.address, probe_pull(account), wanted)
    mounts = account.extensions["stage_mounts"]
    logger.warning("Job services run with %s; %s.", chosen.describe(), mounts.describe())
    launcher.runners = chosen
    account.extensions["runners"] = chosen
    account.on_close(chosen.close)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
