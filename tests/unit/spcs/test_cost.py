"""Estimates and bills by asset and day."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monad_dagster.spcs.cost import (
    JobServiceRun,
    billed_by_day,
    estimate_credits,
    reconcile,
)

DAY = date(2026, 11, 23)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 26, tzinfo=UTC)
FAMILIES = {"P": "GPU_NV_S"}


def run(asset, start, hours, *, replicas=1, pool="P"):
    """Build a job service whose instances all run for *hours*."""
    return JobServiceRun(asset, pool, ((start, start + timedelta(hours=hours)),) * replicas)


@pytest.mark.parametrize(
    ("family", "rates", "expected"),
    [
        ("GPU_NV_S", {}, 0.57),
        ("GPU_NV_S", {"GPU_NV_S": 1.0}, 1.0),
        ("GPU_NV_M", {}, None),
        ("GPU_NV_M", {"GPU_NV_M": 2.68}, 2.68),
    ],
)
def test_a_rate_is_configured_or_known_and_never_invented(family, rates, expected):
    """One node hour costs the rate; a family without one has no estimate."""
    assert estimate_credits(family, 3600, credits_per_hour=rates) == expected


def test_a_job_service_over_midnight_is_counted_on_both_days():
    """Node time is split at midnight UTC, for every instance."""
    start = datetime(2026, 11, 23, 23, tzinfo=UTC)
    found = reconcile([run("a", start, 3, replicas=2)], {}, FAMILIES, now=NOW)
    assert [(r.day, r.node_seconds) for r in found.rows] == [
        (DAY, 7200.0),
        (DAY + timedelta(days=1), 14400.0),
    ]
    assert found.credits_estimated == pytest.approx(0.57 * 6)


def test_bills_are_shared_by_node_time_and_idle_days_are_not_hidden():
    """What a pool was billed on a day is divided among its assets; the rest is unattributed."""
    billed = {(DAY, "P"): 2.0, (DAY + timedelta(days=1), "P"): 0.5}
    runs = [run("a", NOON, 1), run("b", NOON, 3)]
    found = reconcile(runs, billed, FAMILIES, now=NOW)
    assert [(r.asset, r.credits_billed) for r in found.rows] == [("a", 0.5), ("b", 1.5)]
    assert found.unattributed == {(DAY + timedelta(days=1), "P"): 0.5}
    assert found.credits_billed == 2.5


def test_a_day_is_final_when_the_account_has_shown_all_of_it():
    """Bills come three hours late; until then a share may still grow."""
    late = datetime(2026, 11, 24, 2, 59, tzinfo=UTC)
    (row,) = reconcile([run("a", NOON, 1)], {}, FAMILIES, now=late).rows
    assert not row.is_final
    (row,) = reconcile([run("a", NOON, 1)], {}, FAMILIES, now=late + timedelta(minutes=1)).rows
    assert row.is_final


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("PQ"),
            st.floats(0, 200),
            st.floats(0.01, 60),
            st.integers(1, 3),
        ),
        max_size=12,
    ),
    st.dictionaries(
        st.tuples(st.integers(0, 12), st.sampled_from("PQ")), st.floats(0.01, 50), max_size=12
    ),
)
def test_no_node_second_and_no_credit_is_lost_or_counted_twice(jobs, bills):
    """Whatever overlaps and midnights there are, the sums are those of the parts."""
    runs = [
        run(asset, NOON + timedelta(hours=at), hours, replicas=n, pool=pool)
        for asset, pool, at, hours, n in jobs
    ]
    billed = {(DAY + timedelta(days=day), pool): used for (day, pool), used in bills.items()}
    found = reconcile(runs, billed, {}, now=NOW)
    seconds = sum((end - start).total_seconds() for r in runs for start, end in r.spans)
    assert sum(row.node_seconds for row in found.rows) == pytest.approx(seconds)
    assert found.credits_billed == pytest.approx(sum(billed.values()))


def test_hourly_rows_are_summed_by_day_in_utc():
    """A row counts for the day its hour begins on; rows without credits are left out."""
    rows = [
        {"start_time": NOON, "compute_pool_name": "P", "credits_used": 0.25},
        {"start_time": NOON + timedelta(hours=1), "compute_pool_name": "P", "credits_used": 0.5},
        {
            "start_time": (NOON + timedelta(hours=13)).astimezone(timezone(timedelta(hours=-8))),
            "compute_pool_name": "P",
            "credits_used": 1,
        },
        {"start_time": NOON, "compute_pool_name": "Q", "credits_used": None},
    ]
    assert billed_by_day(rows) == {(DAY, "P"): 0.75, (DAY + timedelta(days=1), "P"): 1.0}
