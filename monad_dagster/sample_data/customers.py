"""The customers of the sample: what the CUSTOMERS table shows, and the traits behind it.

Visible columns (news, activity, club, age) are noisy signs of hidden traits (rate, hazard of
lapsing, taste). As in Kaggle's file they carry no date: treat them as a later snapshot.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from monad_dagster.sample_data import taxonomy
from monad_dagster.sample_data.demand import NUM_SEGMENTS, Segments
from monad_dagster.sample_data.randomness import Purpose, random_stream, weighted_choice

CLUB_STATUSES = ("ACTIVE", "PRE-CREATE", "LEFT CLUB", None)
NEWS_FREQUENCIES = ("NONE", "Regularly", "Monthly", None)
_CUSTOMERS_PER_POSTAL_CODE = 3.9
_FOUNDING_SHARE = 0.36  # customers who bought before the first day


@dataclass(frozen=True)
class Traits:
    """One block of customers as arrays.

    Attributes:
        customer_id: 64 hexadecimal characters each.
        log_rate: Deviation of the log purchase rate from the common level.
        hazard: Lapses per day for a customer of the common rate.
        regularity: Gamma shape of the gaps between trips; 1 is memoryless.
        basket: Mean number of lines of a trip.
        online: Probability that a trip is in the online channel.
        repeat: Probability that a line repeats an earlier purchase.
        bargain: Pull of discounted articles.
        segment: Main taste segment.
        second_segment: Other taste segment.
        loyalty: Probability that a new line comes from the main segment.
        favorite_master: Favorite `perceived_colour_master_id`.
        joined: First day as a share of the sample's span; negative for founders.
        is_news_reader: Receives fashion news (FN).
        is_active: Is open to communication (Active).
        club: Position in `CLUB_STATUSES`.
        news: Position in `NEWS_FREQUENCIES`.
        age: Years; 0 when unknown.
    """

    customer_id: pa.Array
    log_rate: np.ndarray
    hazard: np.ndarray
    regularity: np.ndarray
    basket: np.ndarray
    online: np.ndarray
    repeat: np.ndarray
    bargain: np.ndarray
    segment: np.ndarray
    second_segment: np.ndarray
    loyalty: np.ndarray
    favorite_master: np.ndarray
    joined: np.ndarray
    is_news_reader: np.ndarray
    is_active: np.ndarray
    club: np.ndarray
    news: np.ndarray
    age: np.ndarray

    def __len__(self) -> int:
        return len(self.log_rate)


def build_traits(seed: int, block: int, num_customers: int, segments: Segments) -> Traits:
    """Draw the customers of one block.

    Args:
        seed: The sample's seed.
        block: Number of the block.
        num_customers: Customers in this block.
        segments: The taste clusters.
    """
    rng = random_stream(seed, Purpose.CUSTOMERS, block)
    n = num_customers
    customer_id = _hex_ids(rng.bytes(32 * n))
    kinds = taxonomy.ARCHETYPES
    segment = weighted_choice(rng, np.array([kinds[a].share for a in segments.archetype]), n)
    kind = segments.archetype[segment]
    age = _draw_ages(rng, kind)
    reader = rng.random(n) < np.clip(0.22 + 0.006 * (age - 20), 0.12, 0.5)
    active = reader & (rng.random(n) < 0.95)
    club = weighted_choice(rng, np.array([92.7, 6.8, 0.1, 0.4]), n)
    online = rng.beta(2.0, 2.0, n) * 0.6 + 0.4 * np.array([k.online for k in kinds])[kind]
    price = segments.price[segment]
    log_rate = np.array([k.log_rate for k in kinds])[kind] + 0.35 * reader
    log_rate = log_rate - 0.35 * (club == 1) + rng.normal(0.0, 0.75, n)
    bargain = np.clip(rng.gamma(2.0, 0.35, n) - 0.2 * price, 0.05, 3.0)
    hazard = np.array([k.log_hazard for k in kinds])[kind] - 0.7 * reader + 0.8 * (club == 1)
    hazard = hazard + 0.35 * (bargain - 0.7) + 0.5 * (online - 0.6) + rng.normal(0.0, 0.5, n)
    founder = rng.random(n) < _FOUNDING_SHARE
    missing_age = rng.random(n) < 0.012
    return Traits(
        customer_id=customer_id,
        log_rate=log_rate,
        hazard=np.exp(hazard) * np.where(founder, 0.5, 1.0) / 330.0,  # founders are survivors
        regularity=rng.lognormal(0.75, 0.55, n).clip(0.5, 8.0),
        basket=1.0 + rng.gamma(2.0, 1.05, n),
        online=online,
        repeat=rng.beta(2.0, 5.0, n),
        bargain=bargain,
        segment=segment,
        second_segment=_draw_second(rng, segment),
        loyalty=rng.beta(7.0, 2.0, n),
        favorite_master=_draw_masters(rng, n),
        joined=np.where(founder, -1.0, rng.random(n) * 0.985),
        is_news_reader=reader,
        is_active=active,
        club=club,
        news=_draw_news(rng, reader),
        age=np.where(missing_age, 0, age),
    )


def _hex_ids(raw: bytes) -> pa.Array:
    """Word random bytes as strings of 64 hexadecimal characters, without a Python loop."""
    text = raw.hex().encode("ascii")
    offsets = np.arange(0, len(text) + 1, 64, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def _draw_second(rng: np.random.Generator, segment: np.ndarray) -> np.ndarray:
    """Draw the second segment: half of the customers stay within their archetype."""
    variants = NUM_SEGMENTS // len(taxonomy.ARCHETYPES)
    sibling = segment - segment % variants + rng.integers(0, variants, len(segment))
    anywhere = rng.integers(0, NUM_SEGMENTS, len(segment))
    return np.where(rng.random(len(segment)) < 0.5, sibling, anywhere)


def _draw_ages(rng: np.random.Generator, kind: np.ndarray) -> np.ndarray:
    """Draw ages around those of the archetypes."""
    mean = np.array([k.age_mean for k in taxonomy.ARCHETYPES])[kind]
    spread = np.array([k.age_spread for k in taxonomy.ARCHETYPES])[kind]
    return np.clip(np.round(rng.normal(mean, spread)), 16, 99).astype(np.int64)


def _draw_masters(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw favorite master colors, less skewed than the catalogue."""
    weights = np.sqrt(np.array([c.weight for c in taxonomy.COLORS]))
    masters = np.array([c.master_id for c in taxonomy.COLORS])
    return masters[weighted_choice(rng, weights, n)]


def _draw_news(rng: np.random.Generator, reader: np.ndarray) -> np.ndarray:
    """Draw the news frequency: mostly a copy of FN."""
    draw = rng.random(len(reader))
    news = np.where(reader, 1, 0)
    news = np.where(draw < 0.0006, 2, news)
    return np.where(draw > 0.988, 3, news)


def customers_table(traits: Traits, seed: int, block: int, num_customers: int) -> pa.Table:
    """Word one block as the CUSTOMERS table, seven columns in Kaggle's order.

    Args:
        traits: The block's customers.
        seed: The sample's seed.
        block: Number of the block.
        num_customers: Customers of the whole sample; decides how many postal codes there are.
    """
    club = pa.array([CLUB_STATUSES[i] for i in traits.club], pa.string())
    news = pa.array([NEWS_FREQUENCIES[i] for i in traits.news], pa.string())
    return pa.table(
        {
            "CUSTOMER_ID": traits.customer_id,
            "FN": _one_or_null(traits.is_news_reader),
            "ACTIVE": _one_or_null(traits.is_active),
            "CLUB_MEMBER_STATUS": club,
            "FASHION_NEWS_FREQUENCY": news,
            "AGE": pa.array(traits.age, pa.int64(), mask=traits.age == 0),
            "POSTAL_CODE": _postal_codes(seed, block, len(traits), num_customers),
        }
    )


def _one_or_null(flags: np.ndarray) -> pa.Array:
    """Return 1.0 where set and null elsewhere, as the Kaggle file marks FN and Active."""
    return pa.array(np.ones(len(flags)), pa.float64(), mask=~flags)


def _postal_codes(seed: int, block: int, n: int, num_customers: int) -> pa.Array:
    """Draw postal codes from a pool all blocks share; one placeholder holds about 9%."""
    num_codes = max(int(num_customers / _CUSTOMERS_PER_POSTAL_CODE), 1)
    pool = _hex_ids(random_stream(seed, Purpose.POSTAL_CODES).bytes(32 * num_codes))
    rng = random_stream(seed, Purpose.POSTAL_CODES, block + 1)
    chosen = np.where(rng.random(n) < 0.087, 0, (rng.random(n) * num_codes).astype(np.int64))
    return pool.take(pa.array(chosen))
