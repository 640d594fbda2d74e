"""What is bought on each trip: new articles by taste, and repeats of earlier purchases.

One block of customers at a time, vectorised over its lines. `block_transactions` returns the
block's part of the TRANSACTIONS table, sorted by day.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from monad_dagster.sample_data import taxonomy
from monad_dagster.sample_data.behavior import Trips
from monad_dagster.sample_data.calendar import Calendar
from monad_dagster.sample_data.catalogue import PRICE_DIVISOR, Catalogue
from monad_dagster.sample_data.customers import Traits
from monad_dagster.sample_data.demand import NUM_SEGMENTS, Demand

TRANSACTIONS_SCHEMA = pa.schema(
    [
        ("T_DAT", pa.date32()),
        ("CUSTOMER_ID", pa.string()),
        ("ARTICLE_ID", pa.string()),
        ("PRICE", pa.float64()),
        ("SALES_CHANNEL_ID", pa.int64()),
    ]
)
_OTHER_COLOR_SHARE = 0.3
_STRAY_SHARE = 0.08  # lines from a segment that is not the customer's
_MEMBER_DISCOUNT_SHARE = 0.07


@dataclass(frozen=True)
class Market:
    """Everything that the lines of all blocks share.

    Attributes:
        catalogue: The articles.
        demand: What is bought when.
        calendar: The days.
        article_text: Article ids as 10-digit strings, by position.
    """

    catalogue: Catalogue
    demand: Demand
    calendar: Calendar
    article_text: pa.Array


@dataclass
class _Lines:
    """The lines of one block as parallel arrays, in customer and time order."""

    customer: np.ndarray
    day: np.ndarray
    trip: np.ndarray
    mood: np.ndarray
    week: np.ndarray

    def __len__(self) -> int:
        return len(self.customer)


def block_transactions(
    market: Market, traits: Traits, trips: Trips, quota: int, rng: np.random.Generator
) -> pa.Table:
    """Fill the trips of one block with articles, prices and channels.

    Args:
        market: Articles, demand and days.
        traits: The block's customers.
        trips: When they shop.
        quota: Exact number of lines to return.
        rng: The block's stream for purchases.
    """
    lines = _expand(trips, quota, rng)
    article = _choose_articles(market, traits, lines, rng)
    price = _prices(market, lines, article, rng)
    online = rng.random(len(trips.customer)) < traits.online[trips.customer]
    channel = np.where(online[lines.trip], 2, 1)
    order = np.argsort(lines.day, kind="stable")
    epoch_day = np.datetime64(market.calendar.start, "D").astype(np.int64)
    days = (lines.day[order] + epoch_day).astype(np.int32)
    columns = [
        pa.array(days, pa.int32()).cast(pa.date32()),
        traits.customer_id.take(pa.array(lines.customer[order])),
        market.article_text.take(pa.array(article[order])),
        pa.array(price[order]),
        pa.array(channel[order], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=TRANSACTIONS_SCHEMA)


def _expand(trips: Trips, quota: int, rng: np.random.Generator) -> _Lines:
    """Turn trips into lines and drop or double a few at random to meet the quota."""
    trip = np.repeat(np.arange(len(trips.customer)), trips.num_lines)
    if len(trip) > quota:
        trip = trip[np.sort(rng.permutation(len(trip))[:quota])]
    elif len(trip) < quota:
        extra = rng.integers(0, len(trip), quota - len(trip))
        trip = np.sort(np.concatenate([trip, trip[extra]]))
    day = trips.day[trip]
    return _Lines(trips.customer[trip], day, trip, trips.mood[trip], day // 7)


def _choose_articles(
    market: Market, traits: Traits, lines: _Lines, rng: np.random.Generator
) -> np.ndarray:
    """Return the article position of each line: new by taste, or a repeat where that works."""
    fresh = _fresh_articles(market, traits, lines, rng)
    source = _repeat_sources(traits, lines, rng)
    repeated = fresh[source]
    repeated = _swap_colors(market, lines, repeated, rng)
    habit = np.array([t.repeat for t in taxonomy.PRODUCT_TYPES])
    likes = rng.random(len(lines)) < habit[market.catalogue.product_type[repeated]]
    is_repeat = (source != np.arange(len(lines))) & likes
    return np.where(is_repeat & market.demand.on_sale[lines.week, repeated], repeated, fresh)


def _repeat_sources(traits: Traits, lines: _Lines, rng: np.random.Generator) -> np.ndarray:
    """Point each line at the earlier line of the same customer that it repeats, or at itself.

    A repeat may point at a repeat; following the pointers to the root makes favorites.
    """
    n = len(lines)
    here = np.arange(n)
    is_first = np.append(True, lines.customer[1:] != lines.customer[:-1])
    position = here - np.maximum.accumulate(np.where(is_first, here, 0))
    wants = (rng.random(n) < traits.repeat[lines.customer]) & (position > 0)
    recent = np.floor(rng.exponential(8.0, n)).astype(np.int64) + 1
    anywhere = np.floor(rng.random(n) * position).astype(np.int64) + 1
    back = np.where(recent <= position, recent, anywhere)
    source = np.where(wants, here - back, here)
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return source
        source = further


def _fresh_articles(
    market: Market, traits: Traits, lines: _Lines, rng: np.random.Generator
) -> np.ndarray:
    """Draw two articles from the customer's taste in that week and keep the better liked."""
    who, n = lines.customer, len(lines)
    main = rng.random(n) < traits.loyalty[who]
    segment = np.where(main, traits.segment[who], traits.second_segment[who])
    stray = rng.random(n) < _STRAY_SHARE
    segment = np.where(stray, rng.integers(0, NUM_SEGMENTS, n), segment)
    slots = market.demand.slots
    masters = np.array([c.master_id for c in taxonomy.COLORS])[market.catalogue.color]
    best, best_score = np.zeros(n, dtype=np.int64), np.full(n, -np.inf)
    for _ in range(2):
        slot = (rng.random(n) * slots.shape[2]).astype(np.int64)
        article = slots[lines.week, segment, slot].astype(np.int64)
        discount = market.demand.discount[lines.week, article] / 100.0
        score = 1.2 * (masters[article] == traits.favorite_master[who])
        score = score + 2.0 * discount * (traits.bargain[who] - lines.mood)
        score += rng.gumbel(0.0, 0.4, n)
        better = score > best_score
        best = np.where(better, article, best)
        best_score = np.where(better, score, best_score)
    return best


def _swap_colors(
    market: Market, lines: _Lines, article: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Replace some articles by another color of the same product that is on sale."""
    catalogue = market.catalogue
    offset = (rng.random(len(article)) * catalogue.product_size[article]).astype(np.int64)
    other = catalogue.product_start[article] + offset
    swaps = rng.random(len(article)) < _OTHER_COLOR_SHARE
    return np.where(swaps & market.demand.on_sale[lines.week, other], other, article)


def _prices(
    market: Market, lines: _Lines, article: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return what was paid, scaled like Kaggle's prices."""
    off = market.demand.discount[lines.week, article] / 100.0
    member = np.where(rng.random(len(article)) < _MEMBER_DISCOUNT_SHARE, 0.10, 0.0)
    paid = market.catalogue.euros[article] * (1.0 - off) * (1.0 - member)
    return np.maximum(np.round(paid, 2), 0.5) / PRICE_DIVISOR
