"""Large results: Arrow, pandas, batches, chunk downloads."""

import pickle

import pandas as pd
import pyarrow as pa
import pytest

ROWS = 300_000
LARGE = f"""
SELECT SEQ4() AS N, 'row ' || SEQ4() AS T, SEQ4() / 4 AS Q, SEQ4() % 2 = 0 AS B
FROM TABLE(GENERATOR(ROWCOUNT => {ROWS}))
"""


def test_rows_of_a_large_result(cursor):
    """Every row of a result in chunks arrives once and in order."""
    cursor.execute(f"SELECT N FROM ({LARGE}) ORDER BY N")
    assert cursor.rowcount == ROWS
    assert [row[0] for row in cursor] == list(range(ROWS))


def test_arrow(cursor):
    """fetch_arrow_all returns one table with Snowflake's column names."""
    table = cursor.execute(LARGE).fetch_arrow_all()
    assert isinstance(table, pa.Table)
    assert table.column_names == ["N", "T", "Q", "B"]
    assert table.num_rows == ROWS
    assert sum(table["N"].to_pylist()) == ROWS * (ROWS - 1) // 2


def test_arrow_in_batches(cursor):
    """fetch_arrow_batches hands out tables that add up."""
    tables = list(cursor.execute(LARGE).fetch_arrow_batches())
    assert len(tables) > 1
    assert sum(table.num_rows for table in tables) == ROWS


def test_pandas(cursor):
    """fetch_pandas_all returns the rows with fitting types."""
    frame = cursor.execute(LARGE).fetch_pandas_all()
    assert list(frame.columns) == ["N", "T", "Q", "B"]
    assert len(frame) == ROWS
    assert frame["T"].iloc[7] == f"row {frame['N'].iloc[7]}"
    assert frame["B"].dtype == bool


def test_pandas_in_batches(cursor):
    """fetch_pandas_batches adds up to the same rows."""
    frames = list(cursor.execute(LARGE).fetch_pandas_batches())
    assert sum(map(len, frames)) == ROWS
    assert pd.concat(frames)["N"].nunique() == ROWS


def test_pandas_of_nulls_and_times(cursor):
    """NULLs, dates and times survive the way to pandas."""
    frame = cursor.execute(
        "SELECT COLUMN1::NUMBER AS N, COLUMN2::TIMESTAMP_NTZ AS T, COLUMN3::DATE AS D "
        "FROM VALUES (1, '2026-05-01 01:02:03', '2026-05-01'), (NULL, NULL, NULL)"
    ).fetch_pandas_all()
    assert frame["N"].isna().tolist() == [False, True]
    assert frame["T"].iloc[0] == pd.Timestamp("2026-05-01 01:02:03")
    assert frame["T"].isna().iloc[1]
    assert str(frame["D"].iloc[0]) == "2026-05-01"


def test_empty_result(cursor):
    """A result without rows keeps its columns in Arrow and pandas."""
    sql = "SELECT 1 AS A, 'x' AS B WHERE FALSE"
    assert cursor.execute(sql).fetchall() == []
    frame = cursor.execute(sql).fetch_pandas_all()
    assert (len(frame), list(frame.columns)) == (0, ["A", "B"])
    table = cursor.execute(sql).fetch_arrow_all(force_return_table=True)
    assert (table.num_rows, table.column_names) == (0, ["A", "B"])


def test_result_batches(cursor):
    """Result batches can be pickled and read elsewhere, each with its row count."""
    batches = cursor.execute(LARGE).get_result_batches()
    assert len(batches) > 1
    assert sum(batch.rowcount for batch in batches) == ROWS
    copies = pickle.loads(pickle.dumps(batches))
    assert sum(copy.to_arrow().num_rows for copy in copies) == ROWS
    assert len(copies[-1].to_pandas()) == batches[-1].rowcount


def test_json_result_format(connect):
    """A session that asks for JSON results gets the same rows."""
    cursor = connect().cursor()
    cursor.execute("ALTER SESSION SET PYTHON_CONNECTOR_QUERY_RESULT_FORMAT = 'JSON'")
    rows = cursor.execute("SELECT 1 AS N, 'x' AS T, 1.5::NUMBER(5, 2) AS D").fetchall()
    assert [tuple(map(str, row)) for row in rows] == [("1", "x", "1.50")]


@pytest.mark.parametrize("sql", ["SHOW DATABASES", "DESCRIBE STAGE MONAD_STAGE"])
def test_metadata_to_dictionaries(connect, sql):
    """SHOW and DESCRIBE have lower-case columns."""
    cursor = connect().cursor()
    assert cursor.execute(sql).fetchall()
    names = [column[0] for column in cursor.description]
    assert names == [name.lower() for name in names]
