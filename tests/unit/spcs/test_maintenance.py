"""Maintenance windows: which one comes next, in which zone, and whether a launch runs into it."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monad_dagster.spcs.maintenance import maintenance_warning, next_window, region_zone

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))
def test_the_next_window_is_open_or_in_the_future_and_starts_at_eight_in_the_evening(now):
    """Whatever the day, the window ends after it and begins on a Saturday or Sunday at 20:00."""
    window = next_window(now, BERLIN)
    assert window.end > now
    assert (window.start.weekday(), window.start.hour) in {(5, 20), (6, 20)}
    assert window.end.hour == 8
    assert (window.start - now).total_seconds() < 7 * 24 * HOUR


@pytest.mark.parametrize(
    ("start", "hours", "warned"),
    [
        (datetime(2026, 11, 28, 12, tzinfo=BERLIN), 7.0, None),  # Saturday noon, done by 19:00
        (datetime(2026, 11, 28, 12, tzinfo=BERLIN), 9.0, "opens before the expected end"),
        (datetime(2026, 11, 29, 3, tzinfo=BERLIN), 1.0, "is open"),  # the night to Sunday
        (datetime(2026, 11, 29, 9, tzinfo=BERLIN), 1.0, None),  # Sunday, between the windows
        (datetime(2026, 11, 29, 23, tzinfo=BERLIN), 1.0, "is open"),
        (datetime(2026, 11, 25, 18, tzinfo=BERLIN), 24.0, None),  # Wednesday
    ],
)
def test_a_launch_is_warned_of_a_window_before_its_expected_end(start, hours, warned):
    """Only a run that would still go on when nodes may be replaced gets the warning."""
    text = maintenance_warning(start, hours * HOUR, "AWS_EU_CENTRAL_1")
    assert (text is None) == (warned is None)
    assert warned is None or warned in text


@pytest.mark.parametrize(
    ("region", "configured", "zone"),
    [
        ("AWS_US_WEST_2", None, "America/Los_Angeles"),
        ("PUBLIC.AWS_EU_CENTRAL_1", None, "Europe/Berlin"),
        ("AZURE_WESTEUROPE", None, "Europe/Amsterdam"),
        ("GCP_EUROPE_WEST2", None, "Europe/London"),
        ("LOCAL", None, None),
        ("LOCAL", "Asia/Tokyo", "Asia/Tokyo"),
        ("LOCAL", "Nowhere/At_All", None),
    ],
)
def test_a_region_is_known_configured_or_silent(region, configured, zone):
    """A zone is never guessed: without one there is no warning."""
    found = region_zone(region, configured)
    assert (found.key if found else None) == zone
    if found is None:
        assert maintenance_warning(datetime.now(UTC), 1e6, region, configured) is None
