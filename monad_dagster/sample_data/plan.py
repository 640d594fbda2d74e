"""The parameters of a sample, checked, and what is shared by all its blocks of customers.

A plan decides how many articles and blocks there are; a world holds catalogue, tastes and
demand. `build_block` gives one block's tables, whatever other blocks were built before.
"""

import math
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from monad_dagster.errors import ConfigError, problem
from monad_dagster.sample_data.behavior import calibrate_base_rate, simulate_trips
from monad_dagster.sample_data.calendar import Calendar, build_calendar
from monad_dagster.sample_data.catalogue import articles_table, build_catalogue
from monad_dagster.sample_data.customers import build_traits, customers_table
from monad_dagster.sample_data.demand import Segments, build_demand, build_segments
from monad_dagster.sample_data.purchases import Market, block_transactions
from monad_dagster.sample_data.randomness import Purpose, random_stream

FORMAT = 1  # raise when the same parameters give other rows
_ROWS_PER_BLOCK = 250_000
_CALIBRATION_CUSTOMERS = 10_000
_MIN_DAYS, _MAX_DAYS = 60, 3660
_MAX_LINES_PER_CUSTOMER = 1_000


@dataclass(frozen=True)
class SamplePlan:
    """What to generate; equal plans give equal bytes.

    Attributes:
        num_customers: Customers.
        num_transactions: Rows of TRANSACTIONS, met exactly.
        num_articles: Articles.
        seed: Any number from 0.
        start: First day.
        end: Last day, included.
    """

    num_customers: int
    num_transactions: int
    num_articles: int
    seed: int
    start: date
    end: date

    @property
    def num_blocks(self) -> int:
        """Blocks of customers; each is one file of TRANSACTIONS."""
        blocks = math.ceil(self.num_transactions / _ROWS_PER_BLOCK)
        return max(1, min(blocks, self.num_customers))

    def customers_of(self, block: int) -> int:
        """Return how many customers a block has."""
        return _share(self.num_customers, self.num_blocks, block)

    def rows_of(self, block: int) -> int:
        """Return how many transactions a block has."""
        return _share(self.num_transactions, self.num_blocks, block)

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        fields = asdict(self)
        return fields | {"start": self.start.isoformat(), "end": self.end.isoformat()}


def _share(total: int, parts: int, part: int) -> int:
    """Return the size of one of *parts* nearly equal parts of *total*."""
    return total * (part + 1) // parts - total * part // parts


def default_num_articles(num_customers: int) -> int:
    """Return 4,000 articles for 20,000 customers and H&M's 105,542 for its 1,371,980."""
    exponent = math.log(105_542 / 4_000) / math.log(1_371_980 / 20_000)
    return max(200, round(4_000 * (num_customers / 20_000) ** exponent))


def make_plan(
    *,
    num_customers: int,
    num_transactions: int,
    num_articles: int | None,
    seed: int,
    start: date,
    end: date,
) -> SamplePlan:
    """Check the parameters and return the plan.

    Raises:
        ConfigError: A parameter is out of range.
    """
    articles = default_num_articles(num_customers) if num_articles is None else num_articles
    _check("num_customers", num_customers, 1, 20_000_000)
    _check("num_articles", articles, 50, 300_000)
    most = num_customers * _MAX_LINES_PER_CUSTOMER
    _check("num_transactions", num_transactions, num_customers, most)
    _check("seed", seed, 0, 2**63 - 1)
    _check("days from start to end", (end - start).days + 1, _MIN_DAYS, _MAX_DAYS)
    return SamplePlan(num_customers, num_transactions, articles, seed, start, end)


def _check(name: str, value: int, low: int, high: int) -> None:
    """Raise when *value* is outside *low* to *high*."""
    if low <= value <= high:
        return
    raise ConfigError(
        problem(
            f"Sample data: {name} is out of range.",
            f"The value is {value:,}; the range is {low:,} to {high:,}.",
            f"Choose {name} within that range.",
            "The parameters are described by `monad-dagster sample --help`.",
        )
    )


@dataclass(frozen=True)
class World:
    """What all blocks share.

    Attributes:
        plan: The parameters.
        market: Articles, demand and days.
        segments: Taste clusters.
        base_rate: Trips per day of a customer of the common rate.
    """

    plan: SamplePlan
    market: Market
    segments: Segments
    base_rate: float

    def articles(self) -> pa.Table:
        """Return the ARTICLES table."""
        return articles_table(self.market.catalogue, self.plan.seed)


def build_world(plan: SamplePlan) -> World:
    """Build catalogue, tastes and demand, and find the common purchase rate."""
    calendar = build_calendar(plan.start, plan.end)
    catalogue = build_catalogue(plan.seed, plan.num_articles, calendar.num_days)
    segments = build_segments(plan.seed)
    demand = build_demand(plan.seed, catalogue, segments, calendar)
    text = pa.array([f"{number:010d}" for number in catalogue.article_id])
    market = Market(catalogue, demand, calendar, text)
    return World(plan, market, segments, _base_rate(plan, calendar, segments))


def _base_rate(plan: SamplePlan, calendar: Calendar, segments: Segments) -> float:
    """Calibrate on customers of their own, the same for any number of blocks."""
    traits = build_traits(plan.seed, 2**31, _CALIBRATION_CUSTOMERS, segments)
    stream = random_stream(plan.seed, Purpose.CALIBRATION)
    target = plan.num_transactions / plan.num_customers
    return calibrate_base_rate(traits, calendar, target, stream)


@dataclass(frozen=True)
class Block:
    """The tables of one block of customers."""

    customers: pa.Table
    transactions: pa.Table


def build_block(world: World, block: int) -> Block:
    """Build one block; blocks are independent of each other and of their order."""
    plan = world.plan
    traits = build_traits(plan.seed, block, plan.customers_of(block), world.segments)
    behavior = random_stream(plan.seed, Purpose.BEHAVIOR, block)
    trips = simulate_trips(traits, world.market.calendar, world.base_rate, behavior)
    purchases = random_stream(plan.seed, Purpose.PURCHASES, block)
    quota = plan.rows_of(block)
    transactions = block_transactions(world.market, traits, trips, quota, purchases)
    customers = customers_table(traits, plan.seed, block, plan.num_customers)
    return Block(customers, transactions)
