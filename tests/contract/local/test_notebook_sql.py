"""SQL as people write it in a notebook: right as on Snowflake, or refused with a clear text."""

import datetime as dt

import pytest
from snowflake.connector.errors import ProgrammingError

DATA = """
CREATE TABLE T (ID INT, NAME VARCHAR, V VARIANT, AMT NUMBER(10,2), TS TIMESTAMP_NTZ, D DATE);
INSERT INTO T SELECT COLUMN1, COLUMN2, PARSE_JSON(COLUMN3), COLUMN4, COLUMN5, COLUMN6 FROM VALUES
 (1, 'x', '{"n": 10, "s": "x", "arr": [3, 1, 2]}', 10.5, '2024-01-31 10:11:12.345', '2024-01-31'),
 (2, 'b', '{"n": 9, "s": "y"}', 20, '2024-02-29 23:59:59', '2024-02-29'),
 (3, 'c', '{"n": 2.5, "s": "10"}', -5, '2023-12-31 00:00:00', '2023-12-31')
"""


@pytest.fixture
def data(admin, database):
    """A table with a variant, a number, a timestamp and a date."""
    for text in DATA.split(";"):
        admin.cursor().execute(text)
    return admin


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("v:s = name", [1]),
        ("name = v:s", [1]),
        ("v:n = 9", [2]),
        ("v:n > 2", [1, 2, 3]),
        ("9 <= v:n", [1, 2]),
        ("v:n > id", [1, 2]),
        ("v:n in (10, 2.5)", [1, 3]),
        ("v:s = '10'", [3]),
        ("v:n <> amt", [1, 2, 3]),
    ],
)
def test_variants_are_compared_as_what_stands_beside_them(data, rows, condition, ids):
    """Numbers as numbers, text as text, a column as what it holds."""
    assert [row[0] for row in rows(data, f"SELECT id FROM t WHERE {condition} ORDER BY id")] == ids


def test_variants_sort_and_have_extremes_as_numbers(data, rows):
    """10 comes after 9 and 2.5."""
    assert rows(data, "SELECT id FROM t ORDER BY v:n") == [(3,), (2,), (1,)]
    assert rows(data, "SELECT max(v:n), min(v:n) FROM t") == [("10", "2.5")]


def test_variants_in_dml(data, rows):
    """Conditions and selected expressions of DML and CTAS follow the same rules."""
    data.cursor().execute("DELETE FROM t WHERE v:n < 9")
    data.cursor().execute("UPDATE t SET name = to_char(d, 'YYYY') WHERE v:s = 'y'")
    assert rows(data, "SELECT id, name FROM t ORDER BY id") == [(1, "x"), (2, "2024")]
    data.cursor().execute(
        "CREATE TABLE t2 AS SELECT dateadd(day, 1, d) AS nd FROM t WHERE v:n = 10"
    )
    assert rows(data, "SELECT * FROM t2") == [(dt.date(2024, 2, 1),)]


def test_typeof_says_what_a_variant_holds(data, rows):
    """Snowflake's names of types, not the engine's."""
    sql = "SELECT typeof(v), typeof(v:n), typeof(v:s), typeof(v:arr) FROM t WHERE id = 1"
    assert rows(data, sql) == [("OBJECT", "INTEGER", "VARCHAR", "ARRAY")]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("t, LATERAL FLATTEN(input => v:arr) f WHERE f.value = 2", [(1, "2")]),
        ("t, LATERAL FLATTEN(input => v, path => 'arr') f WHERE f.value > 2", [(1, "3")]),
        ("t, LATERAL FLATTEN(input => v:arr, outer => true) f WHERE f.value IS NULL",
         [(2, None), (3, None)]),
        ("t LEFT JOIN LATERAL FLATTEN(input => v:arr) f WHERE id > 1", [(2, None), (3, None)]),
        ("t, LATERAL SPLIT_TO_TABLE(name || ',z', ',') f WHERE id = 1", [(1, "x"), (1, "z")]),
    ],
)  # fmt: skip
def test_table_functions_beside_a_table(data, rows, source, found):
    """FLATTEN with its options and SPLIT_TO_TABLE, joined to the table they read."""
    assert rows(data, f"SELECT t.id, f.value FROM {source} ORDER BY 1, 2") == found


def test_log_lines_become_rows(admin, rows):
    """SPLIT_TO_TABLE of a text, as users split SYSTEM$GET_SERVICE_LOGS."""
    sql = "SELECT index, value FROM TABLE(SPLIT_TO_TABLE('a\\nb', '\\n')) ORDER BY 1"
    assert rows(admin, sql) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("to_char(ts, 'YYYY-MM-DD HH24:MI:SS.FF3')", "2024-01-31 10:11:12.345"),
        ("to_varchar(ts, 'MM/DD/YY HH12:MI AM')", "01/31/24 10:11 AM"),
        ("to_char(d, 'DD-MON-YYYY')", "31-Jan-2024"),
        ("to_char(d, 'DY')", "Wed"),
        ("to_char(ts, 'YYYY-MM-DD\"T\"HH24:MI:SS')", "2024-01-31T10:11:12"),
        ("to_char(d)", "2024-01-31"),
        ("to_char(amt)", "10.50"),
        ("dateadd(month, 1, d)", dt.date(2024, 2, 29)),
        ("dateadd(hour, 1, d)", dt.datetime(2024, 1, 31, 1)),
        ("dateadd(day, 1, ts)", dt.datetime(2024, 2, 1, 10, 11, 12, 345000)),
        ("add_months(d, 1)", dt.date(2024, 2, 29)),
        ("date_trunc('month', d)", dt.date(2024, 1, 1)),
        ("date_trunc('month', ts)", dt.datetime(2024, 1, 1)),
        ("try_to_timestamp('x')", None),
        ("last_day(d)", dt.date(2024, 1, 31)),
    ],
)
def test_dates_and_their_texts(data, rows, expression, value):
    """Formats are applied, and a date stays a date."""
    assert rows(data, f"SELECT {expression} FROM t WHERE id = 1") == [(value,)]


@pytest.mark.parametrize(
    ("sql", "feature"),
    [
        ("SELECT to_char(amt, '9,999.00') FROM t", "numeric format"),
        ("SELECT to_char(ts, 'Q') FROM t", "the element 'Q'"),
        ("SELECT to_char(ts, name) FROM t", "not a literal"),
        ("SELECT * FROM t AT(OFFSET => -60)", "time travel"),
        ("SELECT * FROM t BEFORE(STATEMENT => 'x')", "time travel"),
        (
            "SELECT * FROM TABLE(FLATTEN(input => PARSE_JSON('[1]'), recursive => true))",
            "RECURSIVE",
        ),
        ("SELECT $1 FROM t", "by its position"),
        ("INSERT ALL INTO t (id) VALUES (x) SELECT 5 x", "several tables"),
        ("BEGIN LET x := 1; RETURN x; END", "Snowflake Scripting"),
        ("DECLARE x INT; BEGIN RETURN 1; END", "Snowflake Scripting"),
        ("SELECT hll(id) FROM t", "function HLL"),
        ("UNDROP TABLE t", "UNDROP"),
        ('SHOW TABLES ->> SELECT "name" FROM $1', "pipe operator"),
    ],
)
def test_what_is_missing_is_refused_by_name(data, sql, feature):
    """000002 (0A000) names the feature; nothing is dropped without a word."""
    with pytest.raises(ProgrammingError) as caught:
        data.cursor().execute(sql)
    assert (caught.value.errno, caught.value.sqlstate) == (2, "0A000")
    assert feature in str(caught.value.msg)


def test_session_variables_of_every_kind(data, rows, refused):
    """Several at once, from queries, as names, in SHOW VARIABLES; never inside of literals."""
    cursor = data.cursor()
    cursor.execute("SET (a, ab) = (1, 'two')")
    cursor.execute("SET newest = (SELECT max(d) FROM t)")
    cursor.execute("SET tn = 't'")
    assert rows(data, "SELECT $a, $ab, '$a', $a + 1") == [(1, "two", "$a", 2)]
    assert rows(data, "SELECT count(*) FROM t WHERE d = $newest") == [(1,)]
    assert rows(data, "SELECT count(*) FROM IDENTIFIER($tn)") == [(3,)]
    assert rows(data, "SELECT count(*) FROM TABLE($tn)") == [(3,)]
    assert rows(data, "SELECT getvariable('AB'), getvariable('NONE')") == [("two", None)]
    shown = {row[3]: (row[4], row[5]) for row in rows(data, "SHOW VARIABLES")}
    assert shown == {
        "A": ("1", "fixed"), "AB": ("two", "text"), "NEWEST": ("2024-02-29", "date"),
        "TN": ("t", "text"),
    }  # fmt: skip
    cursor.execute("UNSET (a, ab)")
    assert refused(data, "SELECT $a")[0] == 2211


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT id+1, v:n::int, 'x' FROM t", ["ID+1", "V:N::INT", "'X'"]),
        ("SELECT listagg(name, ',') WITHIN GROUP (ORDER BY id) FROM t",
         ["LISTAGG(NAME, ',') WITHIN GROUP (ORDER BY ID)"]),
        ("WITH a AS (SELECT 1 x) SELECT x IS DISTINCT FROM 2 FROM a", ["X IS DISTINCT FROM 2"]),
        ("SELECT id -1 FROM t UNION ALL SELECT 2", ["ID -1"]),
        ("SELECT DISTINCT /* no */ $1 FROM VALUES (1)", ["$1"]),
        ("SELECT last_query_id() IS NOT NULL", ["LAST_QUERY_ID() IS NOT NULL"]),
    ],
)  # fmt: skip
def test_columns_are_named_by_their_own_text(data, sql, names):
    """The text as it was written, in upper case."""
    assert [c.name for c in data.cursor().execute(sql).description] == names


def test_earlier_results_by_their_distance(data, rows):
    """LAST_QUERY_ID(-2) is the statement before the last one."""
    rows(data, "SELECT 41 AS x")
    rows(data, "SELECT 42 AS x")
    assert rows(data, "SELECT x FROM TABLE(RESULT_SCAN(LAST_QUERY_ID(-2)))") == [(41,)]


@pytest.mark.parametrize(
    ("sql", "status"),
    [
        ("CREATE TABLE IF NOT EXISTS t (id INT)", "T already exists, statement succeeded."),
        ("DROP TABLE IF EXISTS nope",
         "Drop statement executed successfully (NOPE already dropped)."),
    ],
)  # fmt: skip
def test_ddl_with_nothing_to_do_says_so(data, rows, sql, status):
    """IF [NOT] EXISTS has its own words."""
    assert rows(data, sql) == [(status,)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT to_date('x')", (100040, "22007")),
        ("SELECT to_timestamp('x')", (100035, "22007")),
        ("INSERT INTO t (nope) VALUES (1)", (904, "42000")),
        ("SELECT nofunc(1)", (2140, "42601")),
    ],
)
def test_mistakes_have_snowflakes_numbers(data, refused, sql, expected):
    """Numbers and SQL states of ordinary mistakes."""
    assert refused(data, sql)[:2] == expected


def test_information_schema_is_a_schema(admin, database, rows):
    """SHOW SCHEMAS, DESCRIBE DATABASE and SCHEMATA list it; nobody owns it."""
    shown = {row[1]: row[5] for row in rows(admin, f"SHOW SCHEMAS IN DATABASE {database}")}
    assert shown == {"INFORMATION_SCHEMA": "", "PUBLIC": "ACCOUNTADMIN"}
    sql = "SELECT schema_name FROM information_schema.schemata ORDER BY 1"
    assert [row[0] for row in rows(admin, sql)] == list(shown)
    assert {row[1] for row in rows(admin, f"DESCRIBE DATABASE {database}")} == set(shown)


def test_bound_values_are_cast_where_they_stand(connect, database, rows):
    """`?::date` in functions, beside variants, and as the name of a table."""
    connection = connect("ADMIN", paramstyle="qmark", database=database, schema="PUBLIC")
    cursor = connection.cursor()
    day = dt.date(2024, 1, 31)
    cursor.execute("CREATE TABLE b AS SELECT PARSE_JSON(?) AS v, ?::date AS d", ('{"n": 2}', day))
    sql = "SELECT to_char(?::date, 'YYYY'), dateadd(day, ?, d) FROM b WHERE v:n = ? AND d = ?::date"
    assert cursor.execute(sql, (day, 1, 2, day)).fetchall() == [("2024", dt.date(2024, 2, 1))]
    assert cursor.execute("SELECT count(*) FROM IDENTIFIER(?)", ("b",)).fetchall() == [(1,)]
