"""The Dagster UI of this project in a real browser, over the local account and toy scripts."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import snowflake.connector
from playwright.sync_api import Browser, Page, sync_playwright

from monad_dagster.local import LocalAccount
from monad_dagster.settings import Settings, merged_environment
from tests.support.toy_account import prepare_toy_account

_ROOT = Path(__file__).parents[2]
_TOY_CONTAINER = _ROOT / "tests" / "e2e" / "toy_container"
_SUPPORT = _ROOT / "container" / "scripts" / "job_support.py"
_READY_SECONDS = 120

# The browser talks to the page under test only; a root user needs --no-sandbox.
_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class ServedUi:
    """A running Dagster UI with the account behind it."""

    url: str
    container_dir: Path
    account: LocalAccount

    def graphql(self, query: str) -> dict[str, Any]:
        """Ask the webserver what the page itself would ask."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["data"]

    def latest_run(self) -> tuple[str, str]:
        """Return id and status of the newest run, or two empty strings."""
        data = self.graphql("{runsOrError(limit: 1){... on Runs{results{runId status}}}}")
        results = data["runsOrError"]["results"]
        return (results[0]["runId"], results[0]["status"]) if results else ("", "")

    def job_services(self) -> list[tuple[str, str]]:
        """Return name and status of every job service the account knows."""
        with snowflake.connector.connect(**self.account.connection("ADMIN")) as connection:
            cursor = connection.cursor()
            cursor.execute("SHOW JOB SERVICES IN ACCOUNT")
            columns = [column.name for column in cursor.description]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
        return [(row["name"], row["status"]) for row in rows]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.fail("No chromium on PATH. Install the package chromium and run make browser again.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh browser window."""
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    window = context.new_page()
    window.set_default_timeout(30_000)
    yield window
    context.close()


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedUi]:
    """The webserver and daemon as `monad-dagster ui` starts them."""
    folder = tmp_path_factory.mktemp("browser")
    container = folder / "container"
    shutil.copytree(_TOY_CONTAINER, container)
    shutil.copy(_SUPPORT, container / "scripts")
    account = LocalAccount(folder / "home" / "local")
    account.start()
    try:
        prepare_toy_account(account, Settings(home=folder / "home"))
        with _ServedProcess(folder, container) as url:
            yield ServedUi(url, container, account)
    finally:
        account.stop()


class _ServedProcess:
    """`monad-dagster ui` as a process, from ready to gone."""

    def __init__(self, folder: Path, container: Path) -> None:
        self.log = folder / "ui.log"
        self.port = _free_port()
        self.environment = merged_environment(
            {
                "MONAD_HOME": str(folder / "home"),
                "MONAD_CONTAINER_DIR": str(container),
                "MONAD_POLL_INTERVAL_SECONDS": "0.5",
                "DAGSTER_HOME": str(folder / "dagster_home"),
                "DAGSTER_DISABLE_TELEMETRY": "1",
            }
        )

    def __enter__(self) -> str:
        command = [
            str(Path(sys.executable).parent / "monad-dagster"),
            "ui",
            "--port",
            str(self.port),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{url}/server_info", timeout=5).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
            else:
                return url
        self.__exit__()
        pytest.fail(f"The Dagster UI did not start:\n{self.log.read_text()[-3000:]}")

    def __exit__(self, *_: object) -> None:
        # dagster dev stops webserver, daemon and code server on SIGINT.
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            pytest.fail(f"The Dagster UI did not stop:\n{self.log.read_text()[-3000:]}")
        assert not _processes_of(self.environment["DAGSTER_HOME"])


def _processes_of(dagster_home: str) -> list[str]:
    """Return the webservers and daemons on this Dagster home; code servers end by heartbeat."""
    wanted = f"DAGSTER_HOME={dagster_home}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "dagster_webserver" in command or "dagster._daemon" in command:
                    found.append(command)
        except OSError:
            continue  # it ended, or it is another user's
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
