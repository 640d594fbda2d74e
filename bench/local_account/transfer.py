"""PUT and GET of one gibibyte, beside the same connector against a server that keeps nothing."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import snowflake.connector

from bench.figures import Figure
from bench.local_account.accounts import admin, local_account

BYTES = 1 << 30
RATIO = 1.2
ROUNDS = 3
ROOT = Path(__file__).parents[2]
CONNECTOR_5 = ROOT / ".venv-conformance/connector5/bin/python"
# What is dirty before a statement would be written during it, so each PUT and the first GET begin
# after a sync. Memory that a virtual machine has given back costs more than the transfer, so each
# file is new and takes the place of one deleted just before; short GETs are repeated.
CLIENT = """
import json, os, pathlib, sys, time, snowflake.connector
arguments, stage, source, target = json.loads(sys.argv[1]), *sys.argv[2:]
with snowflake.connector.connect(**arguments) as connection:
    cursor, times = connection.cursor(), {"PUT": [], "GET": []}
    def run(what, sql):
        started = time.perf_counter()
        rows = cursor.execute(sql).fetchall()
        times[what].append(time.perf_counter() - started)
        assert any(word in str(rows) for word in ("UPLOADED", "DOWNLOADED")), rows
    os.sync()
    pathlib.Path(target, "big.bin").unlink(missing_ok=True)
    cursor.execute(f"remove {stage}/big.bin")
    run("PUT", f"put file://{source} {stage} auto_compress=false overwrite=true")
    os.sync()
    while sum(times["GET"]) < 5 and len(times["GET"]) < 5:
        pathlib.Path(target, "big.bin").unlink(missing_ok=True)
        run("GET", f"get {stage}/big.bin file://{target}/")
print(json.dumps(times))
"""


def one_gibibyte() -> list[Figure]:
    """Alternate between the two servers with both lines of the connector; the quietest counts."""
    folder = Path(tempfile.mkdtemp(prefix="bench-transfer-"))
    try:
        return _measure(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path) -> list[Figure]:
    source, target, kept = folder / "big.bin", folder / "got", folder / "kept"
    target.mkdir()
    kept.mkdir()
    with source.open("wb") as file:
        for _ in range(BYTES >> 20):
            file.write(os.urandom(1 << 20))
    figures = []
    for name, python in {"connector 4": sys.executable, "connector 5": str(CONNECTOR_5)}.items():
        if not Path(python).exists():
            print(f"  {name} is not installed at {python}: make bench installs it")
            continue
        with local_account() as account, _discarding(kept) as discard:
            with snowflake.connector.connect(**admin(account)) as connection:
                connection.cursor().execute("create stage st")
            servers = {"theirs": (discard, "@st"), "ours": (admin(account), "@bench.s.st")}
            seconds: dict[str, list[dict]] = {"theirs": [], "ours": []}
            for index in range(ROUNDS):
                for side in sorted(servers, reverse=index % 2 == 0):  # neither is always first
                    seconds[side].append(_run(python, *servers[side], source, target))
        for what in ("PUT", "GET"):
            mine, other = (
                min(min(times[what]) for times in seconds[side]) for side in ("ours", "theirs")
            )
            peer = f"{'discards' if what == 'PUT' else 'serves'} bytes {other:.2f} s"
            figures.append(
                Figure(f"{what} 1 GiB, {name}", mine / other, "x", RATIO, peer=peer,
                       note=f"{mine:.2f} s")
            )  # fmt: skip
    return figures


def _run(python: str, arguments: dict, stage: str, source: Path, target: Path) -> dict:
    command = [python, "-c", CLIENT, json.dumps(arguments), stage, str(source), str(target)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=target, timeout=300
    )
    assert (target / "big.bin").stat().st_size == BYTES
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def _discarding(kept: Path) -> Iterator[dict]:
    """Start the server that discards; connector 4 is sent to *kept*, as it is sent to a stage."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.local_account.discard", str(BYTES), str(kept)],
        stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        yield {
            "user": "u", "password": "p", "account": "a", "host": "127.0.0.1", "port": port,
            "protocol": "http",
        }  # fmt: skip
    finally:
        server.terminate()
        server.wait()
