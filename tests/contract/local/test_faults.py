"""Faults of statements and stages, seen through Snowflake's own connector."""

import http.client
import stat
import time

import pytest
import snowflake.connector
from click.testing import CliRunner

from monad_dagster.cli import main
from monad_dagster.errors import LocalAccountError
from monad_dagster.local import LocalAccount


def test_lost_answer_leaves_the_statement_executed(connect, database, faults, rows, admin):
    """The statement is executed, every answer to it is lost, the client gives up."""
    rows(admin, "CREATE TABLE T (A INT)")
    faults.add("lost-answer", statement="insert into t", count=1)
    hasty = connect("ADMIN", database=database, schema="PUBLIC", network_timeout=2)
    with pytest.raises(snowflake.connector.errors.Error) as caught:
        hasty.cursor().execute("INSERT INTO T VALUES (1)")
    assert isinstance(
        caught.value,
        snowflake.connector.errors.OperationalError | snowflake.connector.errors.InterfaceError,
    )
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(1,)]
    rows(hasty, "INSERT INTO T VALUES (2)")
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(2,)]


def test_one_lost_answer_is_healed_by_the_client(database, faults, rows, admin):
    """The client sends the request again with its id and gets the first execution's answer."""
    rows(admin, "CREATE TABLE T (A INT)")
    faults.add("lost-answer", statement="INSERT", count=1, attempts=1)
    assert rows(admin, "INSERT INTO T VALUES (1)") == [(1,)]
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(1,)]
    assert faults.current()[0]["hits"] == 1


def test_http_error_before_execution(database, faults, rows, admin):
    """A 503 before the statement is executed makes the client send it again: executed once."""
    rows(admin, "CREATE TABLE T (A INT)")
    faults.add("http-before", statement="INSERT", status=503)
    rows(admin, "INSERT INTO T VALUES (1)")
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(1,)]


def test_http_error_after_execution(database, faults, rows, admin):
    """A 502 after the statement was executed makes the client ask again: executed once."""
    rows(admin, "CREATE TABLE T (A INT)")
    faults.add("http-after", statement="INSERT", status=502)
    rows(admin, "INSERT INTO T VALUES (1)")
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(1,)]


def test_http_error_that_stays(connect, faults):
    """A statement that is refused each time is never executed; the client gives up in the end."""
    hasty = connect("ADMIN", network_timeout=2)
    faults.add("http-before", statement="CREATE DATABASE NEVER", attempts=0)
    with pytest.raises(snowflake.connector.errors.Error):
        hasty.cursor().execute("CREATE DATABASE NEVER")
    faults.clear()
    assert hasty.cursor().execute("SHOW DATABASES LIKE 'NEVER'").fetchall() == []


def test_statement_error(faults, refused, rows, admin):
    """A statement fails as an internal error of Snowflake does, and is not executed."""
    faults.add("statement-error", statement="create database n*r", count=1)
    errno, sqlstate, message = refused(admin, "CREATE DATABASE NEVER")
    assert (errno, sqlstate) == (603, "XX000")
    assert message.startswith("SQL execution internal error:\nProcessing aborted by error 300002")
    assert rows(admin, "SHOW DATABASES LIKE 'NEVER'") == []


def test_slow_answer(faults, rows, admin):
    """The answer comes late."""
    faults.add("slow-answer", statement="SELECT 17", delay_seconds=0.6)
    started = time.monotonic()
    assert rows(admin, "SELECT 17") == [(17,)]
    assert time.monotonic() - started >= 0.6


def test_expired_token_is_renewed(faults, rows, connect):
    """An expired session token is renewed by the client, and the statement goes through."""
    connection = connect("ADMIN")
    before = connection.rest.token
    faults.add("expired-token", statement="SELECT 18", count=1)
    assert rows(connection, "SELECT 18") == [(18,)]
    assert connection.rest.token != before


def test_expired_master_token_ends_the_session(faults, connect):
    """With the master token expired too the client cannot go on."""
    connection = connect("ADMIN")
    faults.add("expired-token", statement="SELECT 19", count=1, master=True)
    with pytest.raises(snowflake.connector.errors.Error) as caught:
        connection.cursor().execute("SELECT 19")
    assert caught.value.errno in (390114, 390112)


def test_full_disk_fails_put(database, faults, rows, admin, tmp_path):
    """PUT onto a full disk fails with the system's error and leaves no file."""
    (tmp_path / "a.txt").write_text("x" * 10_000)
    rows(admin, "CREATE STAGE S")
    put = f"PUT file://{tmp_path}/a.txt @S/in AUTO_COMPRESS=FALSE"
    faults.add("full-disk", stage=f"{database}.PUBLIC.S")
    with pytest.raises(snowflake.connector.errors.OperationalError) as caught:
        rows(admin, put)
    assert caught.value.errno == 253003
    assert "No space left on device" in caught.value.msg
    assert rows(admin, "LIST @S") == []
    faults.clear()
    assert rows(admin, put)[0][6] == "UPLOADED"


def test_full_disk_fails_blob_upload(account, connect, database, faults, rows, admin):
    """Over HTTP, as connector 5.x uploads, a full disk is status 507; no part of a file stays."""
    rows(admin, "CREATE STAGE S")
    newer = connect("ADMIN", database=database, schema="PUBLIC",
                    internal_application_version="5.2.0")  # fmt: skip
    command = newer.cursor()._execute_helper("PUT file:///tmp/x @S AUTO_COMPRESS=FALSE")["data"]
    info = command["stageInfo"]
    assert info["locationType"] == "GCS"
    faults.add("full-disk", stage="S")
    facts = account.connection("ADMIN")
    http_connection = http.client.HTTPConnection(facts["host"], facts["port"])
    headers = {"Authorization": f"Bearer {info['creds']['GCS_ACCESS_TOKEN']}"}
    path = f"/monad/blob/stages/{info['path']}x"
    http_connection.request("PUT", path, b"y" * 1000, headers)
    response = http_connection.getresponse()
    assert (response.status, response.read()) == (507, b"No space left on device")
    assert rows(admin, "LIST @S") == []


def test_probability_is_repeatable(faults, rows, admin):
    """The same seed hits the same statements again."""
    patterns = []
    for _ in range(2):
        fault = faults.add("slow-answer", statement="SELECT", probability=0.5, seed=7)
        seen = []
        for _ in range(12):
            rows(admin, "SELECT 1")
            seen.append(faults.current()[0]["hits"])
        patterns.append(seen)
        assert faults.clear(fault) == 1
    assert patterns[0] == patterns[1]
    assert 0 < patterns[0][-1] < 12


def test_control_route_needs_its_token(account):
    """The route refuses who cannot read the state directory; the token is the owner's alone."""
    facts = account.connection("ADMIN")
    connection = http.client.HTTPConnection(facts["host"], facts["port"])
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": 'Snowflake Token="x"'}):
        connection.request("POST", "/monad/faults", '{"kind": "slow-answer"}', headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 401
    assert stat.S_IMODE((account.state_dir / "control.token").stat().st_mode) == 0o600


def test_wrong_faults_are_refused(faults):
    """A kind, selector or value that does not exist is refused with what would fit."""
    with pytest.raises(LocalAccountError, match="Known: capacity-error"):
        faults.add("earthquake")
    with pytest.raises(LocalAccountError, match="has no 'pool'"):
        faults.add("slow-answer", pool="P")
    with pytest.raises(LocalAccountError, match="probability is 2"):
        faults.add("slow-answer", probability=2)
    with pytest.raises(LocalAccountError, match="count is 'x'"):
        faults.add("slow-answer", count="x")
    assert faults.current() == []


def test_command_line_and_restart(tmp_path, monkeypatch):
    """The command sets, lists and clears faults; a restart keeps those asked to persist."""
    local = LocalAccount(tmp_path / "local")
    local.start()
    monkeypatch.setenv("MONAD_HOME", str(tmp_path))
    monkeypatch.setenv("MONAD_DEPLOYMENT", "local")
    run = CliRunner().invoke
    try:
        added = run(main, ["local", "fault", "add", "http-after", "--statement", "SELECT 1",
                           "--count", "2", "--option", "status=500"])  # fmt: skip
        assert added.exit_code == 0, added.output
        listed = run(main, ["local", "fault", "list"])
        assert "http-after  statement=SELECT 1, status=500  2" in listed.output
        wrong = run(main, ["local", "fault", "add", "full-disk", "--pool", "P"])
        assert wrong.exit_code == 1
        assert "has no 'pool'" in wrong.output
        assert "Faults removed: 1" in run(main, ["local", "fault", "clear"]).output
        unknown = run(main, ["local", "fault", "clear", "77"])
        assert (unknown.exit_code, "Fault 77 is not set" in unknown.output) == (1, True)
        local.faults.add("slow-answer", statement="SELECT 1")
        local.faults.add("http-before", statement="SELECT 2", status=500, persist=True, seed=5)
        local.stop()
        local.start()
        kept = local.faults.current()
        assert [(f["kind"], f["selectors"], f["options"], f["seed"]) for f in kept] == [
            ("http-before", {"statement": "SELECT 2"}, {"status": 500}, 5)
        ]
    finally:
        local.stop()
