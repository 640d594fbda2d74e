"""When Snowflake may replace the nodes of a compute pool, which ends the job services on them.

Follows Snowflake's page "Working with compute pools": Saturday 20:00 to Sunday 08:00 and Sunday
20:00 to Monday 08:00, in the region's local time. A region's zone is not told by the account; those
of the common regions are listed here, any other is a setting.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SATURDAY, SUNDAY = 5, 6
WINDOW_HOUR = 20
WINDOW_LENGTH = timedelta(hours=12)

# The last words of CURRENT_REGION(), such as AWS_US_WEST_2, and where that region is.
REGION_ZONES = {
    "US_WEST_2": "America/Los_Angeles",
    "US_WEST_1": "America/Los_Angeles",
    "US_EAST_1": "America/New_York",
    "US_EAST_2": "America/New_York",
    "CA_CENTRAL_1": "America/Toronto",
    "SA_EAST_1": "America/Sao_Paulo",
    "EU_WEST_1": "Europe/Dublin",
    "EU_WEST_2": "Europe/London",
    "EU_WEST_3": "Europe/Paris",
    "EU_CENTRAL_1": "Europe/Berlin",
    "EU_CENTRAL_2": "Europe/Zurich",
    "EU_NORTH_1": "Europe/Stockholm",
    "AP_SOUTH_1": "Asia/Kolkata",
    "AP_SOUTHEAST_1": "Asia/Singapore",
    "AP_SOUTHEAST_2": "Australia/Sydney",
    "AP_SOUTHEAST_3": "Asia/Jakarta",
    "AP_NORTHEAST_1": "Asia/Tokyo",
    "AP_NORTHEAST_2": "Asia/Seoul",
    "AP_NORTHEAST_3": "Asia/Tokyo",
    "WESTUS2": "America/Los_Angeles",
    "WESTUS3": "America/Phoenix",
    "EASTUS2": "America/New_York",
    "CENTRALUS": "America/Chicago",
    "SOUTHCENTRALUS": "America/Chicago",
    "CANADACENTRAL": "America/Toronto",
    "NORTHEUROPE": "Europe/Dublin",
    "WESTEUROPE": "Europe/Amsterdam",
    "UKSOUTH": "Europe/London",
    "SWITZERLANDNORTH": "Europe/Zurich",
    "SOUTHEASTASIA": "Asia/Singapore",
    "AUSTRALIAEAST": "Australia/Sydney",
    "JAPANEAST": "Asia/Tokyo",
    "CENTRALINDIA": "Asia/Kolkata",
    "UAENORTH": "Asia/Dubai",
    "US_CENTRAL1": "America/Chicago",
    "US_EAST4": "America/New_York",
    "EUROPE_WEST2": "Europe/London",
    "EUROPE_WEST3": "Europe/Berlin",
    "EUROPE_WEST4": "Europe/Amsterdam",
}


@dataclass(frozen=True)
class MaintenanceWindow:
    """A time in which nodes may be replaced."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        zone = self.start.tzname() or ""
        return f"{self.start:%a %Y-%m-%d %H:%M} to {self.end:%a %H:%M} {zone}".strip()


def region_zone(region: str, configured: str | None = None) -> ZoneInfo | None:
    """Return the time zone of a region; None when neither the table nor a setting knows it."""
    upper = region.upper().replace("-", "_")
    words = upper.split(".")[-1].split("_")
    known = ("_".join(words[start:]) for start in range(len(words)))
    name = configured or next((REGION_ZONES[key] for key in known if key in REGION_ZONES), None)
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None


def next_window(now: datetime, zone: ZoneInfo) -> MaintenanceWindow:
    """Return the maintenance window that is open at *now* or opens next."""
    local = now.astimezone(zone)
    for days in range(-1, 8):
        day = local.date() + timedelta(days=days)
        if day.weekday() not in (SATURDAY, SUNDAY):
            continue
        start = datetime(day.year, day.month, day.day, WINDOW_HOUR, tzinfo=zone)
        window = MaintenanceWindow(start, start + WINDOW_LENGTH)
        if window.end > local:
            return window
    raise AssertionError("there are two windows in any eight days")


def maintenance_warning(
    now: datetime, expected_seconds: float, region: str, configured_zone: str | None = None
) -> str | None:
    """Warn when a job service that starts *now* would still run when nodes may be replaced.

    Args:
        now: When it starts, with a time zone.
        expected_seconds: How long it is expected to run.
        region: What CURRENT_REGION() says.
        configured_zone: Time zone of the region when the table does not know it.
    """
    zone = region_zone(region, configured_zone)
    if zone is None:
        return None
    window = next_window(now, zone)
    if now + timedelta(seconds=expected_seconds) <= window.start:
        return None
    when = "is open" if window.start <= now.astimezone(zone) else "opens before the expected end"
    return (
        f"The maintenance window {window} {when} (expected run time "
        f"{expected_seconds / 3600:.1f} h). Snowflake may replace the node, which ends the job "
        "service; an attempt that resumes from the last complete checkpoint follows. To be safe, "
        "start after the window."
    )
