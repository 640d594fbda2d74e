"""Variants beside text are compared as text."""

import pytest
import sqlglot

from monad_dagster.local.engine.variants import compare_as_text


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a -> '$.b' = 'x'", "a ->> '$.b' = 'x'"),
        ("'x' <> (a -> '$.b')", "'x' <> (a ->> '$.b')"),
        ("a -> '$.b' = ?", "a ->> '$.b' = ?"),
        ("a -> '$.b' IN ('x', 'y')", "a ->> '$.b' IN ('x', 'y')"),
        ("a -> '$.b' LIKE 'x%'", "a ->> '$.b' LIKE 'x%'"),
        ("a -> '$.b' = UPPER('x')", "a ->> '$.b' = UPPER('x')"),
        ("a -> '$.b' = 5", "CAST((a ->> '$.b') AS DOUBLE) = 5"),
        ("-1 < (a -> '$.b')", "-1 < CAST((a ->> '$.b') AS DOUBLE)"),
        ("a -> '$.b' = a -> '$.c'", "a -> '$.b' = a -> '$.c'"),
    ],
)
def test_extractions_become_text_where_text_is_beside_them(condition, expected):
    """Numbers and other variants are compared as they are."""
    query = sqlglot.parse_one(f"SELECT 1 FROM t WHERE {condition}", dialect="duckdb")
    want = sqlglot.parse_one(f"SELECT 1 FROM t WHERE {expected}", dialect="duckdb")
    assert compare_as_text(query).sql("duckdb") == want.sql("duckdb")
