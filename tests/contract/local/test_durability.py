"""The server process: start, stop, kill, restart, reset."""

import os
import signal
import subprocess
import sys

import pytest
import snowflake.connector

from monad_dagster.errors import LocalAccountError
from monad_dagster.local import LocalAccount


def run(local, *statements):
    """Run statements as the administrator and return the last one's rows."""
    rows = []
    with snowflake.connector.connect(**local.connection("ADMIN")) as connection:
        for sql in statements:
            rows = connection.cursor().execute(sql).fetchall()
    return rows


def test_everything_survives_a_kill(tmp_path):
    """After SIGKILL and a restart, tables, stages, files, roles and grants are there."""
    local = LocalAccount(tmp_path / "state")
    local.start()
    (tmp_path / "f.txt").write_text("kept")
    try:
        run(
            local,
            "CREATE ROLE R",
            "GRANT ROLE R TO USER MONAD_PIPELINE",
            "CREATE WAREHOUSE MONAD_WAREHOUSE",
            "GRANT USAGE ON WAREHOUSE MONAD_WAREHOUSE TO ROLE R",
            "CREATE DATABASE D",
            "CREATE STAGE S",
            "CREATE TABLE T (A INT)",
            "INSERT INTO T VALUES (1), (2)",
            "GRANT USAGE ON DATABASE D TO ROLE R",
            "GRANT USAGE ON SCHEMA D.PUBLIC TO ROLE R",
            "GRANT SELECT ON TABLE T TO ROLE R",
            f"PUT file://{tmp_path}/f.txt @S AUTO_COMPRESS=FALSE",
        )
        lasting = snowflake.connector.connect(**local.connection("ADMIN"))
        lasting.cursor().execute("CREATE TEMPORARY STAGE D.PUBLIC.GONE")  # fmt: skip
        os.kill(local.status()["pid"], signal.SIGKILL)
        local.start()
        assert [r[1] for r in run(local, "SHOW STAGES IN ACCOUNT")] == ["S"]
        assert run(local, "LIST @D.PUBLIC.S")[0][0] == "s/f.txt"
        arguments = local.connection() | {"role": "R", "database": "D", "schema": "PUBLIC"}
        with snowflake.connector.connect(**arguments) as connection:
            assert connection.cursor().execute("SELECT SUM(A) FROM T").fetchall() == [(3,)]
    finally:
        local.stop()
    assert not local.status()["running"]


def test_start_twice_gives_one_server(tmp_path):
    """Starting a running account changes nothing."""
    local = LocalAccount(tmp_path / "state")
    try:
        first = local.start()
        pid = local.status()["pid"]
        assert LocalAccount(tmp_path / "state").start() == first
        assert local.status()["pid"] == pid
    finally:
        assert local.stop()
    assert not local.stop()


def test_connection_says_how_to_start(tmp_path):
    """Asking for a connection of a stopped account says what to do."""
    with pytest.raises(LocalAccountError, match="monad-dagster local start"):
        LocalAccount(tmp_path / "none").connection()


def test_reset_refuses_a_foreign_directory(tmp_path):
    """Only a local account's own directory is ever deleted."""
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(LocalAccountError, match="not deleted"):
        LocalAccount(tmp_path).reset()
    assert (tmp_path / "precious.txt").exists()


def test_other_hosts_need_tls(tmp_path):
    """The server refuses to listen beyond loopback without a certificate."""
    command = [
        sys.executable,
        "-m",
        "monad_dagster.local.serve",
        "--state-dir",
        str(tmp_path),
        "--host",
        "0.0.0.0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "not loopback" in done.stderr
