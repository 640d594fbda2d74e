"""The sample's calendar: how busy each day is, and which seasons and sales run.

Customers live in an even "operational" time in which a mean day has length 1; busy days are
longer there, so that the same process yields the weekly pattern, the seasons and the sales.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

# Relative demand from Monday to Sunday.
_WEEKDAYS = np.array([0.92, 0.94, 0.98, 1.02, 1.10, 1.16, 0.88])
# First day of the year, last day of the year, uplift of demand, depth of the sale in percent.
_SALES = ((1, 24, 1.15, 35), (170, 205, 1.20, 35), (264, 274, 1.25, 15), (328, 333, 1.9, 20))
_YEAR = 365.25


@dataclass(frozen=True)
class Calendar:
    """Days of the sample with their weight.

    Attributes:
        start: The first day.
        num_days: Days from first to last, both included.
        cumulative: Operational time at the end of each day; its last value is `num_days`.
        sale_depth: Percent off that a sale article gets, by day; 0 outside sales.
        day_of_year: 1 to 366, by day.
    """

    start: date
    num_days: int
    cumulative: np.ndarray
    sale_depth: np.ndarray
    day_of_year: np.ndarray

    def day_at(self, operational_time: np.ndarray) -> np.ndarray:
        """Return the day, from 0, in which each operational time falls."""
        days = np.searchsorted(self.cumulative, operational_time, side="right")
        return np.minimum(days, self.num_days - 1)

    @property
    def num_weeks(self) -> int:
        """Number of started weeks of seven days, counted from the first day."""
        return (self.num_days + 6) // 7


def build_calendar(start: date, end: date) -> Calendar:
    """Lay out the days from *start* to *end*, both included."""
    num_days = (end - start).days + 1
    days = [start + timedelta(days=i) for i in range(num_days)]
    of_year = np.array([day.timetuple().tm_yday for day in days])
    weight = _WEEKDAYS[np.array([day.weekday() for day in days])]
    weight = weight * (1.0 + 0.12 * np.cos(2 * np.pi * (of_year - 165) / _YEAR))
    depth = np.zeros(num_days, dtype=np.int64)
    for first, last, uplift, percent in _SALES:
        inside = (of_year >= first) & (of_year <= last)
        weight = np.where(inside, weight * uplift, weight)
        depth = np.where(inside, percent, depth)
    cumulative = np.cumsum(weight) * (num_days / weight.sum())
    return Calendar(start, num_days, cumulative, depth, of_year)


def season(day_of_year: np.ndarray, peak_day: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Return the seasonal demand factor, `exp(amplitude * cos(distance to the peak))`."""
    return np.exp(amplitude * np.cos(2 * np.pi * (day_of_year - peak_day) / _YEAR))
