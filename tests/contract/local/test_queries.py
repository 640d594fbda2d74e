"""Queries over the protocol: results, binds, long-poll, asynchronous submission, cancel."""

import datetime as dt
import decimal
import threading
import time

import pytest
from snowflake.connector.errors import ProgrammingError

SLOW = "SELECT SUM(SQRT(range)) FROM RANGE(100000000000)"


def test_types_survive_the_trip(admin, database, rows):
    """Values of every common type come back as Python values of that type."""
    admin.cursor().execute(
        "CREATE TABLE T (I INT, N NUMBER(12,2), F FLOAT, S VARCHAR, B BOOLEAN, D DATE,"
        " TS TIMESTAMP_NTZ, V VARIANT)"
    )
    admin.cursor().execute(
        "INSERT INTO T SELECT 7, 1.25, 0.5, 'it''s', TRUE, '2020-02-29', '1969-12-31 23:59:59.5',"
        " PARSE_JSON('{\"a\": [1]}')"
    )
    (row,) = rows(admin, "SELECT * FROM T")
    assert row[:7] == (
        7, decimal.Decimal("1.25"), 0.5, "it's", True, dt.date(2020, 2, 29),
        dt.datetime(1969, 12, 31, 23, 59, 59, 500000),
    )  # fmt: skip
    assert row[7] == '{"a":[1]}'


def test_sum_of_numbers_is_exact(admin, database, rows):
    """A sum over NUMBER is a NUMBER, not a float."""
    admin.cursor().execute("CREATE TABLE T AS SELECT 1.10::NUMBER(10,2) AS N, 3::INT AS I")
    assert rows(admin, "SELECT SUM(N), SUM(I) FROM T") == [(decimal.Decimal("1.10"), 3)]


def test_unnamed_columns_are_named_by_their_text(admin):
    """A column without an alias is named by its expression in upper case."""
    cursor = admin.cursor().execute("SELECT count(*), current_role(), 1 + 1, 'x' AS y")
    assert [c.name for c in cursor.description] == ["COUNT(*)", "CURRENT_ROLE()", "1 + 1", "Y"]


def test_large_result_arrives_in_chunks(admin, database):
    """A result larger than the first chunk arrives whole and in order, also as Arrow."""
    sql = "SELECT range AS ID, 'row ' || range AS S FROM RANGE(1500000) ORDER BY range"
    cursor = admin.cursor().execute(sql)
    batches = cursor.get_result_batches()
    assert len(batches) > 1
    table = cursor.fetch_arrow_all()
    assert table.num_rows == 1_500_000
    assert table.column("ID").to_pylist() == list(range(1_500_000))


def test_empty_result_keeps_its_columns(admin):
    """A query without rows still describes its columns, timestamps included."""
    cursor = admin.cursor().execute("SELECT 1 AS A, CURRENT_TIMESTAMP() AS T WHERE 1 = 0")
    assert cursor.fetchall() == []
    assert [c.name for c in cursor.description] == ["A", "T"]


def test_binds_in_every_style(connect, database, rows):
    """Positional and pyformat binds reach the statement as values, never as SQL."""
    evil = "x'; DROP DATABASE MONAD_DB; --"
    qmark = connect("ADMIN", paramstyle="qmark")
    assert rows(qmark, "SELECT ?, ?, ?", 1, evil, None) == [(1, evil, None)]
    assert rows(connect("ADMIN"), "SELECT %s, %s", evil, 2.5)[0][0] == evil
    assert rows(
        qmark, "SELECT COUNT(*) FROM IDENTIFIER(?)", f"{database}.INFORMATION_SCHEMA.TABLES"
    ) == [(0,)]


def test_executemany_inserts_every_row(connect, database, rows):
    """Inserting many rows at once reports and stores all of them, in both parameter styles."""
    for style, mark in (("qmark", "?"), ("pyformat", "%s")):
        connection = connect("ADMIN", paramstyle=style, database=database, schema="PUBLIC")
        connection.cursor().execute("CREATE OR REPLACE TABLE T (A INT, B VARCHAR)")
        cursor = connection.cursor()
        cursor.executemany(
            f"INSERT INTO T VALUES ({mark}, {mark})", [(1, "a"), (2, "b"), (3, None)]
        )
        assert cursor.rowcount == 3
        assert rows(connection, "SELECT COUNT(*), COUNT(B) FROM T") == [(3, 2)]


def test_asynchronous_query(admin):
    """An asynchronous query is submitted, watched and fetched by its query id."""
    cursor = admin.cursor()
    cursor.execute_async("SELECT COUNT(*) FROM RANGE(1000)")
    query_id = cursor.sfqid
    while admin.is_still_running(admin.get_query_status(query_id)):
        time.sleep(0.02)
    cursor.get_results_from_sfqid(query_id)
    assert cursor.fetchall() == [(1000,)]


def test_asynchronous_failure_is_reported_on_fetch(admin):
    """A failing asynchronous query is accepted; its error comes with the status."""
    cursor = admin.cursor()
    cursor.execute_async("SELECT * FROM MONAD_DB.DATA_SCHEMA.NO_SUCH_TABLE")
    query_id = cursor.sfqid
    while admin.is_still_running(admin.get_query_status(query_id)):
        time.sleep(0.02)
    with pytest.raises(ProgrammingError, match="does not exist or not authorized"):
        admin.get_query_status_throw_if_error(query_id)


def test_another_users_result_is_not_readable(admin, pipeline, rows, refused):
    """RESULT_SCAN of another user's query id finds nothing."""
    query_id = admin.cursor().execute("SELECT 'secret'").sfqid
    assert refused(pipeline, f"SELECT * FROM TABLE(RESULT_SCAN('{query_id}'))")[0] == 709


def test_timeout_cancels_the_statement(admin, rows):
    """A client-side time-out ends the statement, and the session goes on."""
    started = time.monotonic()
    with pytest.raises(ProgrammingError) as caught:
        admin.cursor().execute(SLOW, timeout=1)
    assert caught.value.errno == 604
    assert time.monotonic() - started < 20
    assert rows(admin, "SELECT 1") == [(1,)]


def test_cancel_query_from_another_session(admin, connect):
    """SYSTEM$CANCEL_QUERY ends a running statement of another session of the user."""
    cursor = admin.cursor()
    cursor.execute_async(SLOW)
    other = connect("ADMIN").cursor()
    assert (
        "terminated" in other.execute(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')").fetchone()[0]
    )
    while admin.is_still_running(admin.get_query_status(cursor.sfqid)):
        time.sleep(0.02)
    assert admin.get_query_status(cursor.sfqid).name == "ABORTED"


def test_result_scan_of_a_show(admin, rows):
    """SHOW results can be queried with RESULT_SCAN and LAST_QUERY_ID."""
    rows(admin, "SHOW ROLES")
    sql = 'SELECT "name" FROM TABLE(RESULT_SCAN(LAST_QUERY_ID())) WHERE "name" = \'SYSADMIN\''
    assert rows(admin, sql) == [("SYSADMIN",)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELEC 1", (1003, "42000")),
        ("SELECT 'open", (1003, "42000")),
        ("SELECT * FROM NO_DB.S.T", (2003, "02000")),
        ("SELECT * FROM MONAD_DB.DATA_SCHEMA.NOPE", (2003, "42S02")),
        ("DROP TABLE MONAD_DB.DATA_SCHEMA.NOPE", (2003, "42S02")),
        ("USE SCHEMA MONAD_DB.NOPE", (2043, "02000")),
        ("SELECT NO_SUCH_FUNCTION(1)", (2140, "42601")),
        ("SELECT 'x'::INT", (100038, "22018")),
        ("CREATE TASK T AS SELECT 1", (2, "0A000")),
        ("CREATE DATABASE MONAD_DB", (2002, "42710")),
    ],
)
def test_errors_carry_snowflakes_numbers(admin, refused, sql, expected):
    """Errors have Snowflake's number and SQL state, and never break the connection."""
    assert refused(admin, sql)[:2] == expected


def test_sessions_in_parallel(connect, admin, database):
    """Sixteen sessions write and read one table at once without errors or lost rows."""
    admin.cursor().execute("CREATE TABLE T (WORKER INT, N INT)")
    failures = []

    def work(worker):
        try:
            connection = connect("ADMIN", database=database, schema="PUBLIC")
            for n in range(5):
                connection.cursor().execute(f"INSERT INTO T VALUES ({worker}, {n})")
                connection.cursor().execute("SELECT COUNT(*) FROM T").fetchall()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert admin.cursor().execute("SELECT COUNT(*), SUM(N) FROM T").fetchone() == (80, 160)


def test_one_connection_from_many_threads(admin):
    """Cursors of one connection can be used from several threads."""
    results = []

    def work(n):
        results.append(admin.cursor().execute(f"SELECT {n}").fetchone()[0])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(12))


def test_several_statements_in_one_request(admin, refused):
    """A script runs when the client asks for that many statements, and is refused otherwise."""
    assert refused(admin, "SELECT 1; SELECT 2")[0] == 8
    cursor = admin.cursor().execute("SELECT 1; SELECT ';'; SELECT 3", num_statements=3)
    results = [cursor.fetchone()]
    while cursor.nextset():
        results.append(cursor.fetchone())
    assert results == [(1,), (";",), (3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT F.VALUE::INT FROM T, LATERAL FLATTEN(INPUT => V:k) F ORDER BY 1",
        "WITH C AS (SELECT A FROM T) SELECT MAX(C.A) FROM C JOIN T ON T.A = C.A",
        "SELECT A FROM T QUALIFY ROW_NUMBER() OVER (PARTITION BY B ORDER BY A) = 1 ORDER BY 1",
        "SELECT X FROM VALUES (1, 'a'), (2, 'b') AS S(X, Y) ORDER BY X",
        "SELECT IFF(A > 1, 'big', 'small'), NVL(B, '-') FROM T ORDER BY A",
        "SELECT DATEADD(DAY, 1, TS), DATE_TRUNC('MONTH', TS) FROM T WHERE TS IS NOT NULL",
        "SELECT COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 3))",
        "SELECT CONVERT_TIMEZONE('UTC', LAST_ALTERED) FROM INFORMATION_SCHEMA.TABLES",
        "SELECT T.TABLE_NAME, C.COLUMN_NAME FROM INFORMATION_SCHEMA.TABLES T"
        " JOIN INFORMATION_SCHEMA.COLUMNS C ON T.TABLE_NAME = C.TABLE_NAME",
        "(SELECT A FROM T) UNION ALL (SELECT 1)",
        "SELECT LISTAGG(B, ',') WITHIN GROUP (ORDER BY A), ARRAY_AGG(A) FROM T",
        "SELECT * EXCLUDE (V) FROM T SAMPLE (100)",
    ],
)
def test_sql_corpus(admin, database, rows, sql):
    """Typical analytics SQL runs and returns rows."""
    rows(admin, "CREATE OR REPLACE TABLE T (A INT, B VARCHAR, V VARIANT, TS TIMESTAMP_NTZ)")
    rows(admin, "INSERT INTO T SELECT 1, 'x', PARSE_JSON('{\"k\": [1, 2]}'), '2020-01-01'")
    rows(admin, "INSERT INTO T VALUES (2, 'y', NULL, NULL)")
    assert rows(admin, sql)


def test_table_ddl_keeps_the_catalog_true(admin, database, rows):
    """Tables created, cloned, renamed and dropped by SQL are listed as they are."""
    for sql in (
        "CREATE TABLE A AS SELECT 1 AS X", "CREATE TABLE B LIKE A", "CREATE TABLE C CLONE A",
        "ALTER TABLE B ADD COLUMN Y INT", "ALTER TABLE B RENAME TO D", "DROP TABLE C",
        "INSERT OVERWRITE INTO A SELECT 5", "CREATE VIEW V AS SELECT * FROM A",
        "COMMENT ON TABLE A IS 'it''s commented'",
    ):  # fmt: skip
        rows(admin, sql)
    shown = admin.cursor().execute("SHOW TABLES")
    names = [c.name for c in shown.description]
    found = [dict(zip(names, row, strict=True)) for row in shown.fetchall()]
    assert [(t["name"], t["rows"], t["comment"]) for t in found] == [
        ("A", 1, "it's commented"),
        ("D", 0, ""),
    ]
    assert [r[0] for r in rows(admin, "DESCRIBE TABLE D")] == ["X", "Y"]


def test_session_variables(admin, rows):
    """SET defines a variable that $name reads."""
    rows(admin, "SET X = 5")
    assert rows(admin, "SELECT $X + 1") == [(6,)]


def test_transactions(admin, database, rows):
    """ROLLBACK undoes what BEGIN started."""
    for sql in ("CREATE TABLE T (A INT)", "BEGIN", "INSERT INTO T VALUES (1)", "ROLLBACK"):
        rows(admin, sql)
    assert rows(admin, "SELECT COUNT(*) FROM T") == [(0,)]


def test_describe_does_not_run_the_query(admin):
    """Describing a query gives its columns only."""
    described = admin.cursor().describe("SELECT 1 AS A, 'x' AS B")
    assert [column.name for column in described] == ["A", "B"]


def test_autocommit_off(connect, database, rows):
    """With autocommit off, work is undone by rollback and seen by others after commit."""
    writer = connect("ADMIN", database=database, schema="PUBLIC", autocommit=False)
    reader = connect("ADMIN", database=database, schema="PUBLIC")
    rows(writer, "CREATE TABLE T (A INT)")
    rows(writer, "INSERT INTO T VALUES (1)")
    writer.rollback()
    rows(writer, "INSERT INTO T VALUES (2)")
    assert rows(reader, "SELECT COUNT(*) FROM T") == [(0,)]
    writer.commit()
    assert rows(reader, "SELECT A FROM T") == [(2,)]
