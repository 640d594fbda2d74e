"""The server process of the local account: `python -m monad_dagster.local.serve --state-dir DIR`.

It holds a lock on the state directory, listens on loopback only unless TLS is given, and writes
DIR/server.json once it answers.
"""

import argparse
import contextlib
import datetime as dt
import fcntl
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKER = "monad-local-account"
_LOCK = "server.lock"
SERVER_FILE = "server.json"
START_ERROR = "The account does not start: "  # control.py looks for it in the server's output


def is_loopback(host: str) -> bool:
    """Tell whether *host* can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="monad_dagster.local.serve", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--log-level", default="warning")
    parser.add_argument("--runner", help="what runs containers; see runners/choice.py")
    args = parser.parse_args(argv)
    if not is_loopback(args.host) and not (args.tls_cert and args.tls_key):
        parser.error(
            f"host {args.host} is not loopback. Give --tls-cert and --tls-key, or use 127.0.0.1."
        )
    args.state_dir = args.state_dir.resolve()
    args.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    (args.state_dir / MARKER).touch()
    with open_lock(args.state_dir) as lock:
        if lock is None:
            sys.stderr.write(f"Another server already uses {args.state_dir}.\n")
            return 3
        # Left by a killed server; a client that finds it would not wait for the open hooks.
        (args.state_dir / SERVER_FILE).unlink(missing_ok=True)
        _serve(args)
    return 0


@contextlib.contextmanager
def open_lock(state_dir: Path) -> Any:
    """Hold the state directory's lock; yield None when another process holds it."""
    with (state_dir / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def _serve(args: argparse.Namespace) -> None:
    import uvicorn

    from monad_dagster.local.account import Account
    from monad_dagster.local.protocol.app import create_app

    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    account = Account(args.state_dir)
    account.extensions["wanted_runner"] = args.runner
    listener = _listen(args)
    if is_loopback(args.host):
        send_unpaced(listener)
    host, port = listener.getsockname()[:2]
    host = _reachable(host)
    account.address = (host, port)
    account.protocol = "https" if args.tls_cert else "http"
    config = uvicorn.Config(
        create_app(account), log_level=args.log_level, access_log=False, lifespan="off",
        timeout_graceful_shutdown=3, timeout_keep_alive=75,
        ssl_certfile=args.tls_cert, ssl_keyfile=args.tls_key,
    )  # fmt: skip
    server = uvicorn.Server(config)
    opener = threading.Thread(
        target=_announce, args=(server, account, args, host, port), daemon=True
    )
    opener.start()
    try:
        server.run(sockets=[listener])
    finally:
        _forget(args.state_dir)
        account.close()
        logging.shutdown()
        # Threads of statements that nobody waits for any more must not keep the process alive.
        os._exit(0)


def _reachable(host: str) -> str:
    """Return an address that this machine's own clients and containers can connect to."""
    return "127.0.0.1" if ipaddress.ip_address(host).is_unspecified else host


def _listen(args: argparse.Namespace) -> socket.socket:
    """Listen on the port asked for, else on the last one: containers that still run know it."""
    remembered = args.state_dir / "port"
    if args.port == 0 and remembered.exists():
        with contextlib.suppress(OSError, ValueError):
            return socket.create_server((args.host, int(remembered.read_text())), backlog=1024)
    listener = socket.create_server((args.host, args.port), backlog=1024)
    remembered.write_text(str(listener.getsockname()[1]))
    return listener


def send_unpaced(listener: socket.socket) -> None:
    """Let connections send as fast as they can; there is no congestion on loopback.

    A host whose default is BBR spaces segments by timers, which a gigabyte's GET notices.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _announce(server: Any, account: Any, args: argparse.Namespace, host: str, port: int) -> None:
    """Write server.json once the server listens, then run the open hooks."""
    import time

    from monad_dagster.local.runners.base import RunnerError

    while not server.started:
        time.sleep(0.01)
    try:
        account.open(host, port)
    except RunnerError as error:
        sys.stderr.write(f"{START_ERROR}{error}\n")
        sys.stderr.flush()
        server.should_exit = True
        return
    facts = {
        "pid": os.getpid(),
        "host": host,
        "port": port,
        "protocol": account.protocol,
        "account": account.name,
        "stage_mounts": account.extensions["stage_mounts"].describe(),
        "started_at": dt.datetime.now(dt.UTC).isoformat(),
        "runner": account.extensions["runners"].facts(),
    }
    path = args.state_dir / SERVER_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts, indent=2))
    temporary.rename(path)


def _forget(state_dir: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        facts = json.loads((state_dir / SERVER_FILE).read_text())
        if facts.get("pid") == os.getpid():
            (state_dir / SERVER_FILE).unlink()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
