"""Ten million rows to Arrow: the whole way to the client, the server's part, its memory."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import snowflake.connector

from bench.figures import Figure
from bench.local_account.accounts import (
    admin,
    fakesnow_server,
    forget_peak,
    local_account,
    peak_memory_gib,
)

ROWS = 10_000_000
SPEED_UP, SERVER_RATIO, MEMORY_GIB = 3.0, 2.0, 1.5
TABLE = (
    "create table big as select seq4() as i, seq4() / 7.0::double as d,"
    " 'customer ' || (seq4() % 100000) as s,"
    " dateadd(second, seq4(), '2020-01-01'::timestamp_ntz) as t,"
    " (seq4() % 100000)::number(10, 2) as n"
    f" from table(generator(rowcount => {ROWS}))"
)
# A client of its own for each measurement: nothing is shared but the server.
CLIENT = """
import json, sys, time, resource, snowflake.connector
arguments = json.loads(sys.argv[1])
with snowflake.connector.connect(**arguments) as connection:
    cursor = connection.cursor()
    started = time.perf_counter()
    cursor.execute("select * from big")
    executed = time.perf_counter() - started
    table = cursor.fetch_arrow_all()
    total = time.perf_counter() - started
assert table.num_rows == int(sys.argv[2]) and table.num_columns == 5
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
print(json.dumps({"executed": executed, "total": total, "client_gib": peak}))
"""
DUCKDB = """
import json, sys, time, duckdb, pyarrow as pa
database, target = sys.argv[1:3]
con = duckdb.connect(database, read_only=True)
con.execute("set memory_limit='1GB'")
con.execute("set enable_progress_bar=false")
best = 1e9
for _ in range(3):
    started = time.perf_counter()
    reader = con.sql("select * from big").to_arrow_reader(122880)
    with pa.OSFile(target, "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    best = min(best, time.perf_counter() - started)
print(json.dumps(best))
"""


def ten_million_rows() -> list[Figure]:
    """Compare with fakesnow's own server and with DuckDB writing the same Arrow to disk."""
    with local_account() as account:
        with snowflake.connector.connect(**admin(account)) as connection:
            connection.cursor().execute(TABLE)
        pid = account.status()["pid"]
        forget_peak(pid)
        ours = min((_fetch(admin(account)) for _ in range(3)), key=lambda run: run["total"])
        memory = peak_memory_gib(pid)
        account.stop()
        duckdb = _write_arrow(account.state_dir / "databases/BENCH.db")
    with fakesnow_server() as (arguments, pid):
        with snowflake.connector.connect(**arguments) as connection:
            connection.cursor().execute(TABLE)
        forget_peak(pid)
        theirs = _fetch(arguments)
        their_memory = peak_memory_gib(pid)
    peer = f"fakesnow's server {theirs['total']:.1f} s, {their_memory:.2f} GiB"
    note = f"{ours['total']:.2f} s; client {ours['client_gib']:.2f} GiB"
    return [
        Figure("10 M rows to Arrow, times faster", theirs["total"] / ours["total"], "x",
               SPEED_UP, True, peer, note),
        Figure("10 M rows, server's time to the last chunk", ours["executed"] / duckdb, "x",
               SERVER_RATIO, peer=f"DuckDB writing Arrow {duckdb:.2f} s",
               note=f"{ours['executed']:.2f} s"),
        Figure("10 M rows, server's peak memory", memory, "GiB", MEMORY_GIB),
    ]  # fmt: skip


def _fetch(arguments: dict) -> dict:
    command = [sys.executable, "-c", CLIENT, json.dumps(arguments), str(ROWS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    time.sleep(0.5)
    return json.loads(done.stdout)


def _write_arrow(database: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-arrow-") as folder:
        command = [sys.executable, "-c", DUCKDB, str(database), f"{folder}/big.arrow"]
        # The table lies in the schema S of the database file.
        code = command[2].replace("from big", "from s.big")
        command[2] = code
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)
