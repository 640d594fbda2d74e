"""Starts, stops and finds the server process of a local account.

The server is detached: it outlives the command that started it and is found again through
DIR/server.json and its lock.
"""

import fcntl
import http.client
import importlib.util
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monad_dagster.errors import LocalAccountError, problem
from monad_dagster.local.faults.faults_client import FaultControl
from monad_dagster.local.runners.cleanup import kill_containers
from monad_dagster.local.runners.stage_mount import release_all

_MARKER = "monad-local-account"  # as in serve.py, which this module does not import
_START_ERROR = "The account does not start: "  # as in serve.py
_EXIT_ARGUMENTS = 2  # argparse
_STOP_SECONDS = 20.0


def _check_packages(names: tuple[str, ...] = ("fakesnow", "pyarrow", "uvicorn")) -> None:
    """Refuse to start without the extra `local`, which a plain installation does not have."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalAccountError(
            problem(
                "The local account cannot start",
                f"not installed: {', '.join(missing)}",
                "Install the extras of a local run: pip install 'monad-dagster[local,engine]'",
            )
        )


class LocalAccount:
    """A local account in a state directory.

    Args:
        state_dir: Where databases, stages, images and job services are kept.
        runner: What runs containers, a name in `runners.choice.SETTINGS`; empty lets the account
            choose, or DIR/runner.json.
    """

    def __init__(self, state_dir: Path | str, *, runner: str = "") -> None:
        self.state_dir = Path(state_dir).resolve()
        self.runner = runner

    def start(
        self, *, port: int = 0, wait_seconds: float = 30, options: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Start the server unless one answers, and return connection arguments.

        Args:
            port: The port to listen on; 0 keeps the last one or takes a free one.
            wait_seconds: How long to wait for the server's first answer.
            options: Further options of `serve.py`, such as --host, --tls-cert and --tls-key.

        Raises:
            LocalAccountError: It did not answer in time.
        """
        if self._answers():
            self._check_runner()
            return self.connection()
        _check_packages()
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [
            sys.executable, "-m", "monad_dagster.local.serve",
            "--state-dir", str(self.state_dir), "--port", str(port), *options,
        ]  # fmt: skip
        if self.runner:
            command += ["--runner", self.runner]
        log = self.state_dir / "server.log"
        start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, cwd=self.state_dir, env=_environment(),
            )  # fmt: skip
        self._wait_until_ready(process, wait_seconds, log, start)
        return self.connection()

    def _check_runner(self) -> None:
        """Refuse to go on with an account that runs containers otherwise than asked for."""
        facts = (self._server() or {}).get("runner") or {}
        if self.runner in ("", "auto", facts.get("setting")):
            return
        raise LocalAccountError(
            problem(
                f"The local account does not use runner {self.runner}",
                f"It was started with runner {facts.get('setting')}",
                "Stop it with `monad-dagster local stop`, then start it again",
            )
        )

    def _wait_until_ready(
        self, process: "subprocess.Popen[bytes]", wait_seconds: float, log: Path, start: int
    ) -> None:
        deadline = time.monotonic() + wait_seconds
        while time.monotonic() < deadline:
            if self._answers():
                return
            code = process.poll()
            if code == 3 and self._is_locked():
                time.sleep(0.05)  # another process is starting it; wait for that one
            elif code is not None:
                break
            time.sleep(0.03)
        output = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
        # What the server says of its start, else what it says of its arguments.
        reason = output.rpartition(_START_ERROR)
        if not reason[1] and process.poll() == _EXIT_ARGUMENTS:
            reason = output.rpartition(": error: ")
        if reason[1]:
            raise LocalAccountError(
                problem(
                    f"The local account in {self.state_dir} did not start",
                    reason[2].strip().partition("\n")[0],
                    look=f"Full output: {log}",
                )
            )
        tail = output[-800:].strip()
        ended = process.poll()
        how = f"within {wait_seconds:.0f} s" if ended is None else f"and ended with code {ended}"
        raise LocalAccountError(
            problem(
                f"The local account in {self.state_dir} did not start {how}",
                f"Its last output: {tail!r}" if tail else "It printed nothing",
                "Stop other users of the directory with `monad-dagster local stop`, then start again",
                f"Full output: {log}",
            )
        )

    def stop(self) -> bool:
        """Stop the server; tell whether one was running."""
        facts = self._server()
        if facts is None or not self._is_locked():
            return False
        pid = int(facts["pid"])
        if not _is_server(pid, self.state_dir):
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._is_locked() and time.monotonic() < deadline:
            time.sleep(0.03)
        if self._is_locked() and _is_server(pid, self.state_dir):
            os.kill(pid, signal.SIGKILL)
            while self._is_locked():
                time.sleep(0.03)
        return True

    def status(self) -> dict[str, Any]:
        """Return whether the server runs, where it listens and how large its state is."""
        facts = self._server() or {}
        running = self._answers()
        return {
            "running": running,
            "state_dir": str(self.state_dir),
            "exists": self._is_ours(),
            **(
                {
                    key: facts[key]
                    for key in ("pid", "host", "port", "started_at", "runner", "stage_mounts")
                    if key in facts
                }
                if running
                else {}
            ),
        }

    def reset(self) -> None:
        """Stop the server and delete the state directory.

        Raises:
            LocalAccountError: The directory is not a local account's.
        """
        if not self.state_dir.exists():
            return
        if not self._is_ours():
            raise LocalAccountError(
                problem(
                    f"{self.state_dir} was not deleted",
                    f"It holds no {_MARKER} file, so it is not a local account's state",
                    "Give the state directory of a local account",
                )
            )
        self.stop()
        kill_containers(self.state_dir)
        release_all(self.state_dir)
        shutil.rmtree(self.state_dir, ignore_errors=True)
        shutil.rmtree(self.state_dir, ignore_errors=True)  # what an ending container just wrote

    def connection(self, user: str = "MONAD_PIPELINE") -> dict[str, Any]:
        """Return arguments for `snowflake.connector.connect`; works from any process.

        Raises:
            LocalAccountError: The account is not running or does not know the user.
        """
        facts = self._server()
        if facts is None or not self._is_locked():
            raise self._not_running()
        users = json.loads((self.state_dir / "credentials.json").read_text())["users"]
        if user not in users:
            raise LocalAccountError(
                problem(
                    f"The local account has no user {user}",
                    f"It knows {', '.join(sorted(users))}",
                    "Use one of those",
                    str(self.state_dir / "credentials.json"),
                )
            )
        admin = user == "ADMIN"
        return {
            "account": facts["account"],
            "host": facts["host"],
            "port": facts["port"],
            "protocol": facts["protocol"],
            "user": user,
            "password": users[user],
            "role": "ACCOUNTADMIN" if admin else "MONAD_ROLE",
            "warehouse": "MONAD_WAREHOUSE",
            "database": "MONAD_DB",
            "schema": "DATA_SCHEMA",
        }

    @property
    def faults(self) -> FaultControl:
        """Set, list and clear faults of the running account."""
        facts = self._server()
        if facts is None or not self._is_locked():
            raise self._not_running()
        token = (self.state_dir / "control.token").read_text()
        return FaultControl(facts["host"], facts["port"], token)

    def _not_running(self) -> LocalAccountError:
        return LocalAccountError(
            problem(
                f"The local account in {self.state_dir} is not running",
                "It has no server.json or nothing holds its lock",
                "Start it with `monad-dagster local start`",
            )
        )

    def _server(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.state_dir / "server.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def _is_ours(self) -> bool:
        return (self.state_dir / _MARKER).is_file()

    def _is_locked(self) -> bool:
        """Tell whether a server holds the state directory's lock."""
        try:
            with (self.state_dir / "server.lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _answers(self) -> bool:
        facts = self._server()
        if facts is None or not self._is_locked():
            return False
        probe = _probe(facts)
        try:
            probe.request("GET", "/monad/ready")
            return probe.getresponse().status == 200
        except OSError:
            return False
        finally:
            probe.close()


def _probe(facts: dict[str, Any]) -> http.client.HTTPConnection:
    """Return a connection that asks only whether the server is up, and sends no secret."""
    if facts.get("protocol") != "https":
        return http.client.HTTPConnection(facts["host"], facts["port"], timeout=2)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(facts["host"], facts["port"], timeout=2, context=context)


def _is_server(pid: int, state_dir: Path) -> bool:
    """Tell whether *pid* is this account's server, so that a reused pid is never signalled."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return "monad_dagster.local.serve" in words and str(state_dir) in words


def _environment() -> dict[str, str]:
    """Let the server find this package where the parent found it."""
    package_root = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)  # noqa: TID251 - handed on, not read
    paths = [package_root, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    environment["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
    return environment
