"""Statements: binds, types, errors, several at once, asynchronous ones and cancellation."""

import datetime as dt
import decimal
import threading
import time

import pytest
import snowflake.connector
from snowflake.connector import DictCursor
from snowflake.connector.constants import QueryStatus
from snowflake.connector.errors import DatabaseError, Error, ProgrammingError

TYPES = """
SELECT 1::NUMBER(10, 0) AS N, 1.25::NUMBER(10, 2) AS D, 1.5::DOUBLE AS F, 'text' AS T,
       TRUE AS B, '2026-05-01'::DATE AS DAY, '12:30:01'::TIME AS TIME_OF_DAY,
       '2026-05-01 12:30:01.123456'::TIMESTAMP_NTZ AS NTZ, NULL::VARCHAR AS NOTHING
"""
ROW = (
    1, decimal.Decimal("1.25"), 1.5, "text", True, dt.date(2026, 5, 1), dt.time(12, 30, 1),
    dt.datetime(2026, 5, 1, 12, 30, 1, 123456), None,
)  # fmt: skip


def test_types(cursor):
    """Values arrive as the Python types that the connector documents."""
    assert cursor.execute(TYPES).fetchone() == ROW
    names = [column.name for column in cursor.description]
    assert names == ["N", "D", "F", "T", "B", "DAY", "TIME_OF_DAY", "NTZ", "NOTHING"]
    assert cursor.description[1].precision == 10
    assert cursor.description[1].scale == 2


def test_variants(cursor):
    """Semi-structured values arrive as JSON text."""
    cursor.execute("SELECT PARSE_JSON('{\"a\": [1, 2]}') AS V, ARRAY_CONSTRUCT(1, 'x') AS A")
    (value, array) = cursor.fetchone()
    assert "".join(value.split()) == '{"a":[1,2]}'
    assert "".join(array.split()) == '[1,"x"]'


def test_dictionaries_and_fetching(shared):
    """fetchone, fetchmany and fetchall hand out each row once."""
    cursor = shared.cursor(DictCursor)
    cursor.execute("SELECT COLUMN1 AS N FROM VALUES (1), (2), (3), (4) ORDER BY N")
    assert cursor.fetchone() == {"N": 1}
    assert cursor.fetchmany(2) == [{"N": 2}, {"N": 3}]
    assert cursor.fetchall() == [{"N": 4}]
    assert cursor.fetchone() is None
    assert cursor.rowcount == 4


def test_client_side_binds(cursor):
    """Values given with %s are quoted by the client and read back unchanged."""
    values = ("it's", 'say "hi"', "back\\slash", "50%", "łódź \U0001f600", None, 3, True)
    cursor.execute("SELECT " + ", ".join(["%s"] * len(values)), values)
    assert cursor.fetchone() == values
    cursor.execute("SELECT %(a)s, %(b)s", {"a": "x", "b": 1})
    assert cursor.fetchone() == ("x", 1)


@pytest.mark.parametrize("style", ["qmark", "numeric"])
def test_server_side_binds(connect, style):
    """Values given with ? or :1 are bound by the account with their types."""
    cursor = connect(paramstyle=style).cursor()
    values = ("it's ? :1", 7, 1.5, True, None, dt.date(2026, 5, 1), decimal.Decimal("2.50"))
    marks = ["?" if style == "qmark" else f":{n + 1}" for n in range(len(values))]
    cursor.execute(f"SELECT {', '.join(marks)}", values)
    got = cursor.fetchone()
    assert got[:6] == ("it's ? :1", 7, 1.5, True, None, dt.date(2026, 5, 1))
    assert decimal.Decimal(got[6]) == decimal.Decimal("2.50")


def test_binds_in_statements_of_objects(connect, unique):
    """IDENTIFIER(?) names an object in DDL and DML."""
    cursor = connect(paramstyle="qmark").cursor()
    name = f"MONAD_DB.DATA_SCHEMA.{unique('T')}"
    cursor.execute("CREATE TABLE IDENTIFIER(?) (A INT, B VARCHAR)", (name,))
    cursor.execute("INSERT INTO IDENTIFIER(?) VALUES (?, ?)", (name, 1, "x"))
    assert cursor.execute("SELECT * FROM IDENTIFIER(?)", (name,)).fetchall() == [(1, "x")]
    cursor.execute("DROP TABLE IDENTIFIER(?)", (name,))


@pytest.mark.parametrize("style", ["pyformat", "qmark"])
def test_executemany(connect, unique, style):
    """Executemany inserts every row, in one statement or in array binds."""
    connection = connect(paramstyle=style)
    cursor = connection.cursor()
    name = unique("T")
    cursor.execute(f"CREATE TEMPORARY TABLE {name} (A INT, B VARCHAR, C TIMESTAMP_NTZ)")
    rows = [(n, f"row {n}", dt.datetime(2026, 1, 1, 0, 0, n)) for n in range(50)]
    mark = "%s" if style == "pyformat" else "?"
    cursor.executemany(f"INSERT INTO {name} (A, B, C) VALUES ({mark}, {mark}, {mark})", rows)
    assert cursor.rowcount == 50
    assert cursor.execute(f"SELECT A, B, C FROM {name} ORDER BY A").fetchall() == rows


def test_row_counts(schema):
    """INSERT, UPDATE, DELETE and MERGE report the rows they changed."""
    schema.execute("CREATE TABLE T (A INT, B INT)")
    assert schema.execute("INSERT INTO T VALUES (1, 1), (2, 2), (3, 3)").rowcount == 3
    assert schema.execute("UPDATE T SET B = 0 WHERE A < 3").rowcount == 2
    assert schema.execute("DELETE FROM T WHERE A = 3").rowcount == 1
    merge = """MERGE INTO T USING (SELECT 2 AS A, 9 AS B UNION ALL SELECT 5, 5) S ON T.A = S.A
               WHEN MATCHED THEN UPDATE SET B = S.B
               WHEN NOT MATCHED THEN INSERT (A, B) VALUES (S.A, S.B)"""
    assert schema.execute(merge).rowcount == 2
    assert schema.execute("SELECT * FROM T ORDER BY A").fetchall() == [(1, 0), (2, 9), (5, 5)]


def test_transactions(schema):
    """Without autocommit a rollback undoes and a commit keeps."""
    connection = schema.connection
    schema.execute("CREATE TABLE T (A INT)")
    connection.autocommit(False)
    schema.execute("INSERT INTO T VALUES (1)")
    connection.rollback()
    schema.execute("INSERT INTO T VALUES (2)")
    connection.commit()
    connection.autocommit(True)
    assert schema.execute("SELECT * FROM T").fetchall() == [(2,)]


ERRORS = [
    ("SELECT * FROM NO_SUCH_TABLE", 2003, "42S02", "does not exist or not authorized"),
    ("SELEC 1", 1003, "42000", "syntax error"),
    ("SELECT NO_SUCH_COLUMN FROM VALUES (1)", 904, "42000", "invalid identifier"),
    ("CREATE SCHEMA MONAD_DB.DATA_SCHEMA", 2002, "42710", "already exists"),
    ("USE DATABASE NO_SUCH_DATABASE", 2043, "02000", "does not exist"),
    ("SELECT 1 / 0", 100051, "22012", "Division by zero"),
    ("SELECT 'x'::NUMBER", 100038, "22018", "is not recognized"),
]


@pytest.mark.parametrize(("sql", "errno", "sqlstate", "text"), ERRORS)
def test_errors(cursor, sql, errno, sqlstate, text):
    """A refused statement carries Snowflake's number, SQL state, text and query id."""
    with pytest.raises(ProgrammingError, match=text) as caught:
        cursor.execute(sql)
    assert (caught.value.errno, caught.value.sqlstate) == (errno, sqlstate)
    assert len(caught.value.sfqid) == 36


def test_errors_of_privileges(connect):
    """What a role may not do is 3001, and what it may not see does not exist."""
    cursor = connect("pipeline").cursor()
    with pytest.raises(ProgrammingError) as caught:
        cursor.execute("DROP STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE")
    assert (caught.value.errno, caught.value.sqlstate) == (3001, "42501")
    with pytest.raises(ProgrammingError) as caught:
        cursor.execute("CREATE DATABASE MINE")
    assert caught.value.errno == 3001


def test_unsupported_statement(cursor):
    """What the account does not emulate is refused, never silently accepted."""
    with pytest.raises(DatabaseError, match="Unsupported feature") as caught:
        cursor.execute("CREATE MASKING POLICY P AS (V STRING) RETURNS STRING -> V")
    assert caught.value.errno == 2


def test_connection_survives_errors(connect):
    """After an error the same connection goes on."""
    cursor = connect().cursor()
    for _ in range(3):
        with pytest.raises(ProgrammingError):
            cursor.execute("SELECT * FROM NOWHERE.NOTHING.AT_ALL")
    assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_several_statements(connect):
    """num_statements runs a script; each result is reached in turn."""
    cursor = connect().cursor()
    cursor.execute("SELECT 1; SELECT 'two'; SELECT 3 WHERE FALSE", num_statements=3)
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset()
    assert cursor.fetchall() == [("two",)]
    assert cursor.nextset()
    assert cursor.fetchall() == []
    assert not cursor.nextset()


def test_several_statements_need_consent(cursor):
    """A script without num_statements is refused."""
    with pytest.raises(ProgrammingError, match="did not match the desired statement count 1"):
        cursor.execute("SELECT 1; SELECT 2")


def test_execute_string(connect):
    """execute_string splits a script in the client and returns one cursor for each statement."""
    cursors = list(connect().execute_string("SELECT 1; -- note; still\nSELECT ';';"))
    assert [cursor.fetchall() for cursor in cursors] == [[(1,)], [(";",)]]


def wait_until_over(connection, query_id):
    """Poll a statement's status until it has ended."""
    deadline = time.monotonic() + 30
    while connection.is_still_running(status := connection.get_query_status(query_id)):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_asynchronous_statement(connect):
    """An asynchronous statement returns at once; its status and its result are asked for later."""
    connection = connect()
    cursor = connection.cursor()
    query_id = cursor.execute_async("SELECT SYSTEM$WAIT(1), 42")["queryId"]
    assert connection.is_still_running(connection.get_query_status(query_id))
    assert wait_until_over(connection, query_id) == QueryStatus.SUCCESS
    cursor.get_results_from_sfqid(query_id)
    assert cursor.fetchone()[1] == 42


def test_asynchronous_result_in_another_session(connect):
    """Another session of the same user and role fetches the result by the query id."""
    query_id = connect().cursor().execute_async("SELECT 'across'")["queryId"]
    other = connect()
    wait_until_over(other, query_id)
    cursor = other.cursor()
    cursor.get_results_from_sfqid(query_id)
    assert cursor.fetchall() == [("across",)]


def test_asynchronous_failure(connect):
    """A failing asynchronous statement is reported when its status or result is asked for."""
    connection = connect()
    cursor = connection.cursor()
    query_id = cursor.execute_async("SELECT * FROM NO_SUCH_TABLE")["queryId"]
    assert wait_until_over(connection, query_id) == QueryStatus.FAILED_WITH_ERROR
    with pytest.raises(ProgrammingError, match="does not exist or not authorized") as caught:
        connection.get_query_status_throw_if_error(query_id)
    assert caught.value.errno == 2003
    with pytest.raises(ProgrammingError):
        cursor.get_results_from_sfqid(query_id)


def test_cancel_by_query_id(connect):
    """SYSTEM$CANCEL_QUERY from a second session ends a statement as canceled."""
    connection = connect()
    query_id = connection.cursor().execute_async("SELECT SYSTEM$WAIT(60)")["queryId"]
    connect().cursor().execute(f"SELECT SYSTEM$CANCEL_QUERY('{query_id}')")
    assert wait_until_over(connection, query_id).name in {"ABORTED", "FAILED_WITH_ERROR"}


def test_cancel_by_timeout(connect, major):
    """A timeout cancels the statement and raises in seconds, not in minutes.

    Connector 5.2 takes it for each connection only, not for a statement.
    """
    connection = connect(**({"query_timeout": 2} if major >= 5 else {}))
    started = time.monotonic()
    with pytest.raises(Error, match="(?i)cancel|timed? ?out"):
        connection.cursor().execute("SELECT SYSTEM$WAIT(60)", timeout=2)
    assert time.monotonic() - started < 30
    assert connection.cursor().execute("SELECT 1").fetchone() == (1,)


def test_statement_longer_than_a_poll(connect):
    """A statement that outlasts the server's answer is polled for and returns its result."""
    cursor = connect().cursor()
    assert cursor.execute("SELECT SYSTEM$WAIT(23), 'late'").fetchone()[1] == "late"


def test_threads_share_a_connection(connect):
    """Sixteen threads use one connection at a time, each with a cursor of its own."""
    connection, results = connect(), {}

    def work(number):
        cursor = connection.cursor()
        results[number] = [
            cursor.execute(f"SELECT {number} * 100 + {turn}").fetchone()[0] for turn in range(5)
        ]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [n * 100 + turn for turn in range(5)] for n in range(16)}


def test_describe(cursor):
    """describe() returns the columns and runs nothing."""
    columns = cursor.describe("SELECT 1::NUMBER(5, 0) AS A, 'x' AS B")
    assert [column.name for column in columns] == ["A", "B"]


def test_query_id_and_history(connect):
    """The query id of a cursor is what LAST_QUERY_ID and RESULT_SCAN know."""
    cursor = connect().cursor()
    query_id = cursor.execute("SELECT 11 AS N").sfqid
    assert cursor.execute("SELECT LAST_QUERY_ID()").fetchone() == (query_id,)
    assert cursor.execute(f"SELECT N FROM TABLE(RESULT_SCAN('{query_id}'))").fetchone() == (11,)


def test_version(connect):
    """The connector is told the account's version."""
    assert snowflake.connector.__version__
    assert connect().cursor().execute("SELECT CURRENT_VERSION()").fetchone()[0].count(".") >= 2
