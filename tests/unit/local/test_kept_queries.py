"""What the account keeps of statements that have ended, and which queries need no rewriting."""

import pyarrow as pa
import pytest
import sqlglot

from monad_dagster.local.engine.adjusting import is_constant
from monad_dagster.local.protocol import queries
from monad_dagster.local.protocol.arrow_results import ArrowRows


def ended(account, session, num_bytes=0):
    """Store a statement that has ended with a result in memory."""
    query = account.queries.submit(session, "select 1")
    assert query.done.wait(30)
    assert query.error is None
    if num_bytes:
        account.queries._bytes += num_bytes - query.kept_bytes
        query.kept_bytes = num_bytes
    return query


def test_results_in_memory_are_bounded(account, monkeypatch):
    """Beyond the bound the oldest results go; the newest stay whatever their size."""
    monkeypatch.setattr(queries, "_KEEP_BYTES", 1000)
    monkeypatch.setattr(queries, "_KEEP_LATEST", 2)
    session = account.create_session("ADMIN", "ACCOUNTADMIN")
    kept = [ended(account, session, 400) for _ in range(5)]
    latest = ended(account, session, 400)
    alive = [query for query in kept if account.queries.get(query.id)]
    assert account.queries.get(latest.id) is latest
    assert alive == kept[-len(alive) :]
    assert account.queries._bytes == sum(q.kept_bytes for q in account.queries.recent())
    assert account.queries._bytes <= 1600


def test_a_long_statement_does_not_keep_later_ones(account, monkeypatch):
    """The oldest statement still runs; those that ended after it are forgotten all the same."""
    monkeypatch.setattr(queries, "_KEEP_RESULTS", 5)
    monkeypatch.setattr(queries, "_TRIM_STEP", 1)
    monkeypatch.setattr(queries, "_KEEP_LATEST", 2)
    session = account.create_session("ADMIN", "ACCOUNTADMIN")
    running = queries.Query("running", session, "call wait()", "")
    account.queries._by_id[running.id] = running
    for _ in range(20):
        ended(account, session)
    assert account.queries.get("running") is running
    assert len(account.queries.recent()) <= 7


def test_results_on_disk_are_bounded(account, monkeypatch, tmp_path):
    """The oldest spooled results lose their files."""
    monkeypatch.setattr(queries, "_KEEP_SPOOLED", 2)
    session = account.create_session("ADMIN", "ACCOUNTADMIN")
    table = pa.table({"a": pa.array(range(50_000), pa.int64())})
    rowtype = [{"name": "A", "type": "fixed", "precision": 38, "scale": 0, "length": None,
                "byteLength": None, "nullable": True}]  # fmt: skip
    spooled = []
    for index in range(4):
        query = queries.Query(f"q{index}", session, "select", "")
        query.result = ArrowRows.from_table(rowtype, table, tmp_path / "spool")
        account.queries._by_id[query.id] = query
        account.queries._conclude(query)
        spooled.append(query)
    ended(account, session)
    exist = [query.result.directory.exists() for query in spooled]
    assert exist == [False, False, True, True]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", True), ("select 1 as \"A\", 'x', null, true", True), ("select a", False),
        ("select 1 from t", False), ("select upper('x')", False), ("select ?", False),
        ("select 1 as a", False), ("select 1 limit 1", False), ("select (select 1)", False),
        ("select 1::date", False), ("select 1 union select 2", False),
    ],
)  # fmt: skip
def test_only_constants_skip_the_rewrites(sql, expected):
    """Anything that a rewrite could touch is rewritten."""
    assert is_constant(sqlglot.parse_one(sql, dialect="snowflake")) is expected
