"""Stages: PUT, GET, LIST, REMOVE and COPY INTO."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from snowflake.connector.errors import ProgrammingError
from snowflake.connector.pandas_tools import write_pandas


@pytest.fixture
def stage(admin, database):
    """Return a stage with the encryption whose md5 is the file's."""
    admin.cursor().execute("CREATE STAGE S ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    return "@S"


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three small files."""
    for name, content in (("a.txt", "alpha"), ("b.txt", "beta"), ("c.bin", "gamma")):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_put_list_get_round_trip(admin, stage, folder, rows, tmp_path):
    """Files put on a stage are listed with size and md5 and come back unchanged."""
    put = rows(admin, f"PUT file://{folder}/*.txt {stage}/in/ AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
    assert [(r[0], r[6]) for r in put] == [("a.txt", "UPLOADED"), ("b.txt", "UPLOADED")]
    listed = rows(admin, f"LIST {stage}/in/")
    assert [r[:3] for r in listed] == [
        ("s/in/a.txt", 5, hashlib.md5(b"alpha").hexdigest()),
        ("s/in/b.txt", 4, hashlib.md5(b"beta").hexdigest()),
    ]
    target = tmp_path / "out"
    target.mkdir()
    assert rows(admin, f"GET {stage}/in/a.txt file://{target}/")[0][2] == "DOWNLOADED"
    assert (target / "a.txt").read_text() == "alpha"


def test_put_compresses_by_default_and_skips_what_exists(admin, stage, folder, rows):
    """PUT appends .gz by default and skips a file that exists unless OVERWRITE is given."""
    assert rows(admin, f"PUT file://{folder}/a.txt {stage}")[0][1] == "a.txt.gz"
    plain = f"PUT file://{folder}/b.txt {stage} AUTO_COMPRESS=FALSE"
    assert rows(admin, plain)[0][6] == "UPLOADED"
    assert rows(admin, plain)[0][6] in {"SKIPPED", "UPLOADED"}


def test_put_with_comment_quotes_and_bind(connect, database, stage, folder, rows):
    """PUT understands comments, quoted locations and a bound stage, as real clients send them."""
    connection = connect("ADMIN", paramstyle="qmark", database=database, schema="PUBLIC")
    sql = f"PUT /* c */ 'file://{folder}/c.bin' '@\"{database}\".PUBLIC.S/q' AUTO_COMPRESS=FALSE;"
    assert rows(connection, sql)[0][6] == "UPLOADED"
    assert rows(connection, f"PUT 'file://{folder}/c.bin' ? AUTO_COMPRESS=FALSE", "@S/bound")
    assert [r[0] for r in rows(connection, "LS @S")] == ["s/bound/c.bin", "s/q/c.bin"]


def test_remove_works_on_prefixes(admin, stage, folder, rows):
    """REMOVE deletes every path that starts with the given text."""
    for name in ("run1", "run10", "run2"):
        rows(admin, f"PUT file://{folder}/a.txt {stage}/{name}/ AUTO_COMPRESS=FALSE")
    removed = rows(admin, f"REMOVE {stage}/run1")
    assert removed == [("s/run1/a.txt", "removed"), ("s/run10/a.txt", "removed")]
    assert [r[0] for r in rows(admin, f"LIST {stage}")] == ["s/run2/a.txt"]


def test_list_with_pattern(admin, stage, folder, rows):
    """PATTERN is a regular expression over the whole path."""
    rows(admin, f"PUT file://{folder}/* {stage}/p AUTO_COMPRESS=FALSE")
    assert [r[0] for r in rows(admin, f"LIST {stage} PATTERN='.*[.]bin'")] == ["s/p/c.bin"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "../../../../tmp/x"])
def test_paths_cannot_leave_the_stage(admin, stage, folder, refused, path):
    """A PUT to a path outside the stage is refused."""
    assert "Invalid stage path" in refused(admin, f"PUT file://{folder}/a.txt {stage}/{path}")[2]


def test_stage_privileges(admin, pipeline, database, stage, folder, refused):
    """A role without privileges does not see a stage; READ alone does not allow PUT."""
    fqn = f"{database}.PUBLIC.S"
    assert refused(pipeline, f"LIST @{fqn}")[0] == 2003
    for grant in (
        f"USAGE ON DATABASE {database}",
        f"USAGE ON SCHEMA {database}.PUBLIC",
        f"READ ON STAGE {fqn}",
    ):
        admin.cursor().execute(f"GRANT {grant} TO ROLE MONAD_ROLE")
    assert pipeline.cursor().execute(f"LIST @{fqn}").fetchall() == []
    assert refused(pipeline, f"PUT file://{folder}/a.txt @{fqn}")[:2] == (3001, "42501")


def test_copy_parquet_by_name_and_csv_by_position(admin, stage, tmp_path, rows, refused):
    """COPY INTO loads Parquet by column name and CSV by position, each file once."""
    frame = pd.DataFrame({"id": [1, 2], "name": ["a", None], "price": [1.5, 2.25]})
    frame.to_parquet(tmp_path / "f.parquet")
    frame.to_csv(tmp_path / "f.csv", index=False)
    rows(admin, f"PUT file://{tmp_path}/f.parquet {stage} AUTO_COMPRESS=FALSE")
    rows(admin, f"PUT file://{tmp_path}/f.csv {stage}")
    rows(admin, "CREATE TABLE T (ID INT, NAME VARCHAR, PRICE NUMBER(10,2))")
    by_name = (
        f"COPY INTO T FROM {stage}/f.parquet FILE_FORMAT = (TYPE = PARQUET)"
        " MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE"
    )
    assert rows(admin, by_name)[0][:4] == ("s/f.parquet", "LOADED", 2, 2)
    assert rows(admin, by_name) == [("Copy executed with 0 files processed.",)]
    assert (
        refused(
            admin, f"COPY INTO T FROM {stage}/f.parquet FILE_FORMAT = (TYPE = PARQUET) FORCE=TRUE"
        )[0]
        == 2019
    )
    csv = (
        f"COPY INTO T FROM {stage} FILES = ('f.csv.gz') FILE_FORMAT = (TYPE = CSV SKIP_HEADER = 1)"
    )
    assert rows(admin, csv)[0][1:4] == ("LOADED", 2, 2)
    assert rows(admin, "SELECT COUNT(*), COUNT(NAME), SUM(PRICE)::FLOAT FROM T") == [(4, 2, 7.5)]


def test_failed_copy_loads_nothing(admin, stage, tmp_path, rows):
    """A COPY that fails in one file leaves the table as it was."""
    (tmp_path / "1.csv").write_text("1\n2\n")
    (tmp_path / "2.csv").write_text("3\nthree\n")
    rows(admin, f"PUT file://{tmp_path}/*.csv {stage}")
    rows(admin, "CREATE TABLE T (ID INT)")
    with pytest.raises(ProgrammingError, match="not recognized"):
        rows(admin, f"COPY INTO T FROM {stage} FILE_FORMAT = (TYPE = CSV)")
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(0,)]


def test_write_pandas(admin, database, rows):
    """write_pandas creates a table from a data frame and appends to it."""
    frame = pd.DataFrame(
        {
            "ID": [1, 2],
            "STAMP": pd.to_datetime(["2020-01-01 10:00:00", "2021-05-05 00:00:00"]),
            "OK": [True, False],
        }
    )
    for expected in (2, 4):
        done, _, count, _ = write_pandas(
            admin, frame, "WP", auto_create_table=True, use_logical_type=True
        )
        assert (done, count) == (True, 2)
        assert rows(admin, "SELECT COUNT(*) FROM WP") == [(expected,)]
    assert rows(admin, "SELECT MAX(STAMP)::VARCHAR FROM WP")[0][0].startswith("2021-05-05")


def test_temporary_stage_ends_with_its_session(connect, database, rows):
    """A temporary stage disappears when its session closes."""
    first = connect("ADMIN", database=database, schema="PUBLIC")
    rows(first, "CREATE TEMPORARY STAGE TS")
    first.close()
    second = connect("ADMIN", database=database, schema="PUBLIC")
    assert rows(second, "SHOW STAGES") == []


PUT_SLOWLY = """
import json, sys, time
import snowflake.connector
from snowflake.connector.local_storage_client import SnowflakeLocalStorageClient as Client
whole = Client._upload_chunk
def slowly(self, chunk_id, chunk):
    half = len(chunk) // 2
    with open(self.full_dst_file_name, "rb+") as file:
        file.write(chunk[:half])
    print("half", flush=True)
    time.sleep(60)
    whole(self, chunk_id, chunk)
Client._upload_chunk = slowly
facts, statement = json.loads(sys.argv[1]), sys.argv[2]
snowflake.connector.connect(**facts).cursor().execute(statement)
"""


def test_killed_client_leaves_no_part_of_a_file(account, admin, database, stage, rows, tmp_path):
    """A client that dies half way through a PUT changes nothing on the stage."""
    path = tmp_path / "big.bin"
    path.write_bytes(b"old")
    put = f"PUT file://{path} {stage}/in AUTO_COMPRESS=FALSE OVERWRITE=TRUE"
    rows(admin, put)
    path.write_bytes(os.urandom(8 * 2**20))
    facts = account.connection("ADMIN") | {"database": database, "schema": "PUBLIC"}
    command = [sys.executable, "-c", PUT_SLOWLY, json.dumps(facts), put]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"half\n"
        client.kill()
    time.sleep(0.1)  # longer than the account takes to look again
    assert [row[:2] for row in rows(admin, f"LIST {stage}")] == [("s/in/big.bin", 3)]
    rows(admin, put)
    assert [row[:2] for row in rows(admin, f"LIST {stage}")] == [("s/in/big.bin", 8 * 2**20)]


def test_uploads_are_seen_without_a_further_statement(
    account, admin, database, stage, rows, tmp_path
):
    """Who reads the stage's files directly, as a mounted container does, sees them at once."""
    (tmp_path / "seen").write_bytes(b"x" * 100)
    rows(admin, f"PUT file://{tmp_path}/seen {stage} AUTO_COMPRESS=FALSE")
    location = account.state_dir / "stages" / database / "PUBLIC" / "S" / "seen"
    deadline = time.monotonic() + 10
    while not location.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert location.read_bytes() == b"x" * 100
