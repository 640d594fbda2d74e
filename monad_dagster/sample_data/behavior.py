"""When customers shop and when they lapse: a Pareto/NBD-like process with a drifting mood.

Each customer has an own rate, regularity and hazard. After each trip a mood follows a random
walk that slows or quickens the next gap, so lapsing announces itself; a lapse may also strike
at once, more likely after a small basket, and some customers come back after a long rest.
"""

from dataclasses import dataclass

import numpy as np

from monad_dagster.sample_data.calendar import Calendar
from monad_dagster.sample_data.customers import Traits

_MOOD_SPREAD = 0.28  # standard deviation of the mood's change in 30 days
_MOOD_DRIFT = 0.06  # mean fall of the mood in 30 days
_COMEBACK_SHARE = 0.3
_COMEBACK_DAYS = (60.0, 300.0)
_CALIBRATION_ROUNDS = 7


@dataclass(frozen=True)
class Trips:
    """Shopping trips, sorted by customer and then by time.

    Attributes:
        customer: Position of the customer in the block.
        day: Day of the sample, from 0.
        num_lines: Articles bought.
        mood: The customer's mood at the time; negative before a lapse.
    """

    customer: np.ndarray
    day: np.ndarray
    num_lines: np.ndarray
    mood: np.ndarray


def simulate_trips(
    traits: Traits, calendar: Calendar, base_rate: float, rng: np.random.Generator
) -> Trips:
    """Let the customers of one block live through the calendar.

    All customers take their first trip, then all that are left their second, and so on, so
    the cost is one vectorised step for each trip of the busiest customer.

    Args:
        traits: The customers.
        calendar: The days to live through.
        base_rate: Trips per day at `log_rate` 0 and mood 0.
        rng: The block's stream for behavior.
    """
    end = float(calendar.num_days)
    rate = np.clip(base_rate * np.exp(traits.log_rate), 1e-4, 0.7)
    who = np.arange(len(traits))
    first_gap = np.minimum(1.0 / rate, 0.8 * end)
    when = np.where(traits.joined < 0, rng.random(len(who)) * first_gap, traits.joined * end)
    # Founders have lived through some drift already; new customers start fresh.
    typical = np.where(traits.joined < 0, -0.2, 0.0)
    mood = np.clip(typical + rng.normal(0.0, 0.35, len(who)), -1.5, 1.0)
    rounds: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    while len(who):
        lines = 1 + rng.poisson((traits.basket[who] - 1.0) * np.exp(0.3 * mood))
        rounds.append((who, calendar.day_at(when), lines, mood))
        when, mood, stays = _next_trip(traits, rate, who, when, mood, lines, rng)
        stays &= when < end
        who, when, mood = who[stays], when[stays], mood[stays]
    return _in_customer_order(rounds)


def _next_trip(
    traits: Traits,
    rate: np.ndarray,
    who: np.ndarray,
    when: np.ndarray,
    mood: np.ndarray,
    lines: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advance each customer to the next trip; also tell who stays at all."""
    n = len(who)
    shape = traits.regularity[who]
    gap = rng.gamma(shape, 1.0 / (shape * rate[who] * np.exp(mood)))
    satisfaction = np.where(lines == 1, 0.45, np.where(lines >= 4, -0.35, 0.0))
    risk = traits.hazard[who] * np.exp(satisfaction - 0.9 * mood) / rate[who]
    lapses = rng.random(n) < -np.expm1(-np.minimum(risk, 1.2))
    comes_back = rng.random(n) < _COMEBACK_SHARE
    rest = rng.uniform(*_COMEBACK_DAYS, n)
    months = np.minimum(gap, 90.0) / 30.0
    mood = mood + rng.normal(0.0, _MOOD_SPREAD, n) * np.sqrt(months) - _MOOD_DRIFT * months
    mood = np.where(lapses, -0.2, np.clip(mood, -2.5, 1.0))
    when = when + gap + np.where(lapses, rest, 0.0)
    return when, mood, ~lapses | comes_back


def _in_customer_order(
    rounds: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Trips:
    """Join the rounds; a stable sort keeps each customer's trips in time order."""
    customer, day, lines, mood = (np.concatenate(part) for part in zip(*rounds, strict=True))
    order = np.argsort(customer, kind="stable")
    return Trips(customer[order], day[order], lines[order], mood[order])


def calibrate_base_rate(
    traits: Traits, calendar: Calendar, lines_per_customer: float, seed_stream: np.random.Generator
) -> float:
    """Find the base rate at which the mean customer buys *lines_per_customer* lines.

    Bisection on the logarithm with the same random numbers each round. What is left is
    evened out block by block, so a rough answer is enough.

    Args:
        traits: Customers that stand for all.
        calendar: The days to live through.
        lines_per_customer: The mean to reach; beyond reach, the nearest end is returned.
        seed_stream: Gives the seed of the rounds.
    """
    seed = int(seed_stream.integers(2**32))
    low, high = np.log(1e-4), np.log(0.7)
    for _ in range(_CALIBRATION_ROUNDS):
        middle = 0.5 * (low + high)
        trips = simulate_trips(traits, calendar, float(np.exp(middle)), np.random.default_rng(seed))
        if trips.num_lines.sum() / len(traits) < lines_per_customer:
            low = middle
        else:
            high = middle
    return float(np.exp(0.5 * (low + high)))
