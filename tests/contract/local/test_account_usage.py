"""What compute pools cost, as ACCOUNT_USAGE shows it: by pool and hour, three hours late.

The account is served from this process, so that the test holds its clock.
"""

import datetime as dt
import decimal

import pytest
import snowflake.connector

from monad_dagster.local.pools.compute_pools import pools_of
from tests.contract.local.test_clock import Clock, connect, served

__all__ = ["served"]

VIEW = "snowflake.account_usage.snowpark_container_services_history"
ALL = f"select * from {VIEW} where compute_pool_name = 'P' order by start_time"


@pytest.fixture(scope="module")
def clock():
    """A clock of this module's own account."""
    return Clock()


@pytest.fixture
def cursor(served):
    """An administrator's cursor."""
    with connect(served) as connection:
        cursor = connection.cursor()
        cursor.execute("create warehouse if not exists costs initially_suspended = true")
        cursor.execute("use warehouse costs")
        yield cursor


def test_a_pool_is_counted_by_the_hour_and_shown_three_hours_later(served, clock, cursor):
    """From 12:30 to 13:15 a node of GPU_NV_S costs half and a quarter of 0.57 credits."""
    clock.now = dt.datetime(2026, 5, 1, 12, 30, tzinfo=dt.UTC)
    cursor.execute(
        "create compute pool p min_nodes=1 max_nodes=2 instance_family=GPU_NV_S auto_suspend_secs=0"
    )
    clock.advance(seconds=2)  # its node has come
    pools_of(served).refresh("P")
    clock.now = dt.datetime(2026, 5, 1, 13, 15, tzinfo=dt.UTC)
    cursor.execute("alter compute pool p suspend")
    clock.advance(seconds=5)
    pools_of(served).refresh("P")
    assert cursor.execute(ALL).fetchall() == []
    clock.now = dt.datetime(2026, 5, 1, 16, 0, tzinfo=dt.UTC)
    assert len(cursor.execute(ALL).fetchall()) == 1
    clock.now = dt.datetime(2026, 5, 1, 17, 0, tzinfo=dt.UTC)
    rows = cursor.execute(ALL).fetchall()
    assert [column[0] for column in cursor.description] == [
        "START_TIME", "END_TIME", "COMPUTE_POOL_NAME", "COMPUTE_POOL_ID", "IS_EXCLUSIVE",
        "APPLICATION_NAME", "APPLICATION_ID", "CREDITS_USED",
    ]  # fmt: skip
    assert [(row[0].hour, row[1].hour) for row in rows] == [(12, 13), (13, 14)]
    credits = [float(row[7]) for row in rows]
    assert credits == pytest.approx([0.57 * 0.5, 0.57 * 0.25], abs=0.001)
    (total,) = cursor.execute(f"select sum(credits_used) from {VIEW}").fetchone()
    assert total == sum(decimal.Decimal(row[7]) for row in rows)
    # Kept with the account's state, so that a restart forgets nothing.
    served.extensions["compute_pools"].usage.store()
    kept = served.catalog.documents("pool_usage").values()
    assert sum(row["node_seconds"] for row in kept) == pytest.approx(2700, abs=5)


def test_only_the_database_role_may_read_the_view(served, cursor):
    """Without SNOWFLAKE.USAGE_VIEWER the view is not there; with it, it can be read."""
    cursor.execute("create role if not exists accountant")
    cursor.execute("grant role accountant to user admin")
    with connect(served) as connection:
        reader = connection.cursor()
        cursor.execute("grant usage on warehouse costs to role accountant")
        reader.execute("use role accountant")
        reader.execute("use warehouse costs")
        with pytest.raises(snowflake.connector.errors.ProgrammingError) as refusal:
            reader.execute(f"select count(*) from {VIEW}")
        assert refusal.value.errno == 2003
        cursor.execute("grant database role snowflake.usage_viewer to role accountant")
        assert reader.execute(f"select count(*) from {VIEW}").fetchone()[0] >= 0
    with pytest.raises(snowflake.connector.errors.ProgrammingError):
        cursor.execute("grant database role snowflake.nobody to role accountant")
