"""Which article is wanted, by week and taste segment, and what it costs then.

For each (week, segment) the probabilities over the articles on sale are turned into a lookup
table of equally likely slots, so that drawing an article is one array access. The tables are
the largest thing held in memory: about 165 MB at H&M's size, 20 MB at the default.
"""

from dataclasses import dataclass

import numpy as np

from monad_dagster.sample_data import taxonomy
from monad_dagster.sample_data.calendar import Calendar, season
from monad_dagster.sample_data.catalogue import INDEX_CODES, Catalogue
from monad_dagster.sample_data.randomness import Purpose, random_stream

_VARIANTS = 3
NUM_SEGMENTS = _VARIANTS * len(taxonomy.ARCHETYPES)


@dataclass(frozen=True)
class Segments:
    """Taste clusters: affinities to index, product type, color and price level.

    Attributes:
        archetype: Position in `taxonomy.ARCHETYPES`, by segment.
        index: Affinity, segments by indexes.
        product_type: Affinity, segments by product types.
        color: Affinity, segments by colors.
        price: Exponent on the relative price; negative prefers cheap articles.
    """

    archetype: np.ndarray
    index: np.ndarray
    product_type: np.ndarray
    color: np.ndarray
    price: np.ndarray


@dataclass(frozen=True)
class Demand:
    """Lookup tables of what is bought when.

    Attributes:
        slots: Article positions; weeks by segments by slots, each slot equally likely.
        on_sale: Whether an article can be bought; weeks by articles.
        discount: Percent off the shelf price; weeks by articles.
    """

    slots: np.ndarray
    on_sale: np.ndarray
    discount: np.ndarray


def build_segments(seed: int) -> Segments:
    """Draw the taste of each segment around its archetype."""
    rng = random_stream(seed, Purpose.SEGMENTS)
    archetype = np.repeat(np.arange(len(taxonomy.ARCHETYPES)), _VARIANTS)
    weights = [
        [taxonomy.ARCHETYPES[a].index_weights.get(code, 0.004) for code in INDEX_CODES]
        for a in archetype
    ]
    shape = len(archetype)
    return Segments(
        archetype=archetype,
        index=np.array(weights) * rng.lognormal(0.0, 0.25, (shape, len(INDEX_CODES))),
        product_type=rng.lognormal(0.0, 0.9, (shape, len(taxonomy.PRODUCT_TYPES))),
        color=rng.lognormal(0.0, 0.7, (shape, len(taxonomy.COLORS))),
        price=rng.normal(-0.2, 0.6, shape),
    )


def build_demand(seed: int, catalogue: Catalogue, segments: Segments, calendar: Calendar) -> Demand:
    """Tabulate availability, discounts and choices for every week.

    Args:
        seed: The sample's seed.
        catalogue: All articles.
        segments: The taste clusters.
        calendar: Days, seasons and sales.
    """
    rng = random_stream(seed, Purpose.DEMAND)
    num_weeks, num_articles = calendar.num_weeks, len(catalogue)
    affinity = _affinities(catalogue, segments)
    on_sale = np.zeros((num_weeks, num_articles), dtype=bool)
    discount = np.zeros((num_weeks, num_articles), dtype=np.uint8)
    sale_taste = rng.random(num_articles)
    num_slots = _num_slots(num_articles)
    slots = np.empty((num_weeks, len(segments.archetype), num_slots), dtype=np.int32)
    for week in range(num_weeks):
        day = min(week * 7 + 3, calendar.num_days - 1)
        age = day - catalogue.launch
        on_sale[week] = (age >= 0) & (age < catalogue.life)
        discount[week] = _discounts(catalogue, age, sale_taste, int(calendar.sale_depth[day]))
        active = np.flatnonzero(on_sale[week])
        weight = _weekly_weight(catalogue, calendar, active, age, day, discount[week])
        offsets = rng.random(len(segments.archetype))
        for segment in range(len(segments.archetype)):
            cumulative = np.cumsum(weight * affinity[segment, active])
            points = (np.arange(num_slots) + offsets[segment]) * (cumulative[-1] / num_slots)
            chosen = np.searchsorted(cumulative, points, side="right")
            slots[week, segment] = active[np.minimum(chosen, len(active) - 1)]
    return Demand(slots, on_sale, discount)


def _num_slots(num_articles: int) -> int:
    """Return a power of two near a sixth of the catalogue, from 2,048 to 16,384."""
    return int(2 ** np.clip(np.ceil(np.log2(num_articles / 6)), 11, 14))


def _affinities(catalogue: Catalogue, segments: Segments) -> np.ndarray:
    """Return how each segment likes each article, apart from time; segments by articles."""
    shares = np.array([taxonomy.INDEXES[code][3] for code in INDEX_CODES])
    typical = np.array([t.euros for t in taxonomy.PRODUCT_TYPES])[catalogue.product_type]
    relative_price = np.log(catalogue.euros / typical)
    affinity = (segments.index / shares)[:, catalogue.index]
    affinity *= segments.product_type[:, catalogue.product_type]
    affinity *= segments.color[:, catalogue.color]
    affinity *= np.exp(segments.price[:, None] * relative_price[None, :])
    return affinity.astype(np.float32)


def _discounts(
    catalogue: Catalogue, age: np.ndarray, sale_taste: np.ndarray, depth: int
) -> np.ndarray:
    """Return percent off by article: sales of the calendar, and clearance at the end of life."""
    in_sale = (sale_taste < 0.45) & ~(catalogue.is_staple & (sale_taste > 0.1))
    percent = np.where(in_sale & (depth > 0), depth + 10 * (sale_taste < 0.12), 0)
    fading = ~catalogue.is_staple & (age > 0.8 * catalogue.life)
    clearance = np.where(sale_taste < 0.5, 50, 30)
    return np.maximum(percent, np.where(fading, clearance, 0)).astype(np.uint8)


def _weekly_weight(
    catalogue: Catalogue,
    calendar: Calendar,
    active: np.ndarray,
    age: np.ndarray,
    day: int,
    discount: np.ndarray,
) -> np.ndarray:
    """Return the demand weight of the active articles in the week around *day*."""
    kinds = catalogue.product_type[active]
    peak = np.array([t.peak_day for t in taxonomy.PRODUCT_TYPES])[kinds]
    amplitude = np.array([t.amplitude for t in taxonomy.PRODUCT_TYPES])[kinds]
    seasonal = season(calendar.day_of_year[day], peak, amplitude)
    days = age[active].astype(np.float64)
    fashion = 3.0 * (1.0 - np.exp(-(days + 3) / 8)) * np.exp(-2.2 * days / catalogue.life[active])
    freshness = np.where(catalogue.is_staple[active], 1.0, fashion)
    bargain = 1.0 + 2.0 * discount[active] / 100.0
    return catalogue.popularity[active] * seasonal * freshness * bargain
