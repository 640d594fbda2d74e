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
REPEATS = 2
ROOT = Path(__file__).parents[2]
CONNECTOR_5 = ROOT / ".venv-conformance/connector5/bin/python"
CLIENT = """
import json, sys, time, snowflake.connector
arguments, stage, source, target = json.loads(sys.argv[1]), *sys.argv[2:]
with snowflake.connector.connect(**arguments) as connection:
    cursor, times = connection.cursor(), []
    for sql in (f"put file://{source} {stage} auto_compress=false overwrite=true",
                f"get {stage}/big.bin file://{target}/"):
        started = time.perf_counter()
        rows = cursor.execute(sql).fetchall()
        times.append(time.perf_counter() - started)
        assert any(word in str(rows) for word in ("UPLOADED", "DOWNLOADED")), rows
print(json.dumps(times))
"""


def one_gibibyte() -> list[Figure]:
    """Alternate between the two servers, twice, with both lines of the connector."""
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
        ours, theirs = [], []
        with local_account() as account, _discarding(kept) as discard:
            with snowflake.connector.connect(**admin(account)) as connection:
                connection.cursor().execute("create stage st")
            shutil.copy(source, kept / "big.bin")
            for _ in range(REPEATS):
                theirs.append(_run(python, discard, "@st", source, target))
                ours.append(_run(python, admin(account), "@bench.s.st", source, target))
        for index, what in enumerate(("PUT", "GET")):
            mine, other = (min(t[index] for t in runs) for runs in (ours, theirs))
            peer = f"{'discards' if what == 'PUT' else 'serves'} bytes {other:.2f} s"
            figures.append(
                Figure(f"{what} 1 GiB, {name}", mine / other, "x", RATIO, peer=peer,
                       note=f"{mine:.2f} s")
            )  # fmt: skip
    return figures


def _run(python: str, arguments: dict, stage: str, source: Path, target: Path) -> list[float]:
    for path in target.iterdir():
        path.unlink()
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
