"""The articles of the sample: products, their colors, prices and life on the shelf.

A catalogue is small enough to be held whole (105,542 rows at H&M's size). `build_catalogue`
decides everything that demand needs; `articles_table` words it as the 25 Kaggle columns.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from monad_dagster.sample_data import taxonomy
from monad_dagster.sample_data.randomness import Purpose, random_stream, weighted_choice

INDEX_CODES = tuple(taxonomy.INDEXES)
PRICE_DIVISOR = 590.0  # Kaggle's prices are shelf prices over 590: 9.99 became 0.0169
_ARTICLES_PER_PRODUCT = 2.24  # 105,542 articles of 47,224 products in the Kaggle files
_STAPLE_SHARE = 0.16


@dataclass(frozen=True)
class Catalogue:
    """Articles as arrays, sorted by article id; one product's colors lie side by side.

    Attributes:
        article_id: Product code times 1000 plus the color's number.
        product_start: Position of the first article of the same product.
        product_size: How many articles the product has.
        product_type: Position in `taxonomy.PRODUCT_TYPES`.
        index: Position in `INDEX_CODES`.
        section: Position within the index's sections.
        color: Position in `taxonomy.COLORS`.
        appearance: Position in `taxonomy.APPEARANCES`.
        euros: Shelf price before any sale.
        popularity: Demand weight while on sale, heavy-tailed.
        launch: First day on sale, relative to the sample's start; may be negative.
        life: Days on sale.
        is_staple: On sale throughout, with a season but without fading.
    """

    article_id: np.ndarray
    product_start: np.ndarray
    product_size: np.ndarray
    product_type: np.ndarray
    index: np.ndarray
    section: np.ndarray
    color: np.ndarray
    appearance: np.ndarray
    euros: np.ndarray
    popularity: np.ndarray
    launch: np.ndarray
    life: np.ndarray
    is_staple: np.ndarray

    def __len__(self) -> int:
        return len(self.article_id)


def build_catalogue(seed: int, num_articles: int, num_days: int) -> Catalogue:
    """Invent *num_articles* articles whose lives cover *num_days* days.

    Args:
        seed: The sample's seed.
        num_articles: How many articles (colors of products) to make.
        num_days: Days from the sample's first to its last, both included.
    """
    rng = random_stream(seed, Purpose.CATALOGUE)
    product = _product_of_article(rng, num_articles)
    num_products = int(product[-1]) + 1
    index, product_type = _draw_kinds(rng, num_products)
    start = np.searchsorted(product, np.arange(num_products))
    size = np.diff(np.append(start, num_articles))
    staple = rng.random(num_products) < _STAPLE_SHARE
    staple[0] = True  # something is on sale in every week, however small the catalogue
    launch, life = _draw_lives(rng, product, staple, product_type, num_days)
    codes = np.sort(108_775 + rng.choice(850_000, size=num_products, replace=False))
    popularity = rng.lognormal(0.0, 1.0, num_products)[product]
    popularity *= rng.lognormal(0.0, 0.8, num_articles) * np.where(staple[product], 0.8, 1.0)
    return Catalogue(
        article_id=codes[product] * 1000 + _color_number(product, start),
        product_start=start[product],
        product_size=size[product],
        product_type=product_type[product],
        index=index[product],
        section=_draw_sections(rng, index)[product],
        color=weighted_choice(rng, _weights(taxonomy.COLORS), num_articles),
        appearance=weighted_choice(rng, _weights(taxonomy.APPEARANCES), num_articles),
        euros=_draw_prices(rng, product_type, index)[product],
        popularity=popularity,
        launch=launch,
        life=life,
        is_staple=staple[product],
    )


def _weights(rows: tuple) -> np.ndarray:
    """Return the last field of each row, its weight."""
    return np.array([row[-1] for row in rows])


def _product_of_article(rng: np.random.Generator, num_articles: int) -> np.ndarray:
    """Number the product of each article; the numbers of colors are geometric."""
    sizes = rng.geometric(1.0 / _ARTICLES_PER_PRODUCT, size=num_articles).clip(max=12)
    return np.repeat(np.arange(num_articles), sizes)[:num_articles]


def _color_number(product: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Number the colors of a product from 1, as the last three digits of the article id."""
    return np.arange(len(product)) - start[product] + 1


def _draw_kinds(rng: np.random.Generator, num_products: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the index of each product and a product type that this index carries."""
    shares = np.array([taxonomy.INDEXES[code][3] for code in INDEX_CODES])
    index = weighted_choice(rng, shares, num_products)
    product_type = np.zeros(num_products, dtype=np.int64)
    for position, code in enumerate(INDEX_CODES):
        mine = np.flatnonzero(index == position)
        weights = np.array([t.weight * (code in t.indexes) for t in taxonomy.PRODUCT_TYPES])
        product_type[mine] = weighted_choice(rng, weights, len(mine))
    return index, product_type


def _draw_sections(rng: np.random.Generator, index: np.ndarray) -> np.ndarray:
    """Draw the section of each product within its index."""
    counts = np.array([len(taxonomy.SECTIONS[code]) for code in INDEX_CODES])
    return (rng.random(len(index)) * counts[index]).astype(np.int64)


def _draw_prices(
    rng: np.random.Generator, product_type: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Draw shelf prices: the type's level, cheaper for children and Divided, ending in .99."""
    median = np.array([t.euros for t in taxonomy.PRODUCT_TYPES])[product_type]
    factor = np.array(
        [0.85 if code == "D" else 0.6 if code in "GHIJ" else 1.0 for code in INDEX_CODES]
    )
    raw = median * factor[index] * rng.lognormal(0.0, 0.35, len(index))
    step = np.where(raw < 10, 1, np.where(raw < 40, 2, 5))
    return np.maximum(np.round(raw / step) * step, 2) - 0.01


def _draw_lives(
    rng: np.random.Generator,
    product: np.ndarray,
    staple: np.ndarray,
    product_type: np.ndarray,
    num_days: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw launch day and days on sale; seasonal products launch before their season."""
    num_products = len(staple)
    launch = rng.uniform(-120, num_days - 5, num_products)
    peak = np.array([t.peak_day for t in taxonomy.PRODUCT_TYPES])[product_type]
    amplitude = np.array([t.amplitude for t in taxonomy.PRODUCT_TYPES])[product_type]
    # Pull launches toward 60 days before a peak; day 0 of the sample is near day 263 of a year.
    target = (peak - 60 - 263) % 365 + 365 * rng.integers(-1, num_days // 365 + 1, num_products)
    pull = np.clip(amplitude / 3.0, 0.0, 0.8)
    seasonal = rng.random(num_products) < pull
    launch = np.where(seasonal, target + rng.normal(0, 25, num_products), launch)
    launch = np.clip(launch, -120, num_days - 5)
    life = rng.lognormal(np.log(110), 0.5, num_products).clip(35, 420)
    launch = np.where(staple, -200, launch)[product] + rng.integers(0, 15, len(product))
    life = np.where(staple, num_days + 400, life)[product]
    return launch.astype(np.int32), life.astype(np.int32)


def articles_table(catalogue: Catalogue, seed: int) -> pa.Table:
    """Word the catalogue as the ARTICLES table, 25 columns in Kaggle's order.

    `article_id`, `product_code` and `colour_group_code` are text with leading zeros, as the
    Kaggle CSV has them: they are identifiers, and a submission needs their zeros.
    """
    rng = random_stream(seed, Purpose.CATALOGUE, 1)
    types = [taxonomy.PRODUCT_TYPES[i] for i in catalogue.product_type]
    colors = [taxonomy.COLORS[i] for i in catalogue.color]
    looks = [taxonomy.APPEARANCES[i] for i in catalogue.appearance]
    codes = [INDEX_CODES[i] for i in catalogue.index]
    sections = [taxonomy.SECTIONS[c][s] for c, s in zip(codes, catalogue.section, strict=True)]
    names = _product_names(rng, catalogue)
    department = 1000 + catalogue.index * 300 + catalogue.product_type * 3 + catalogue.section
    columns: dict[str, list] = {
        "ARTICLE_ID": [f"{i:010d}" for i in catalogue.article_id],
        "PRODUCT_CODE": [f"{i // 1000:07d}" for i in catalogue.article_id],
        "PROD_NAME": names,
        "PRODUCT_TYPE_NO": [t.number for t in types],
        "PRODUCT_TYPE_NAME": [t.name for t in types],
        "PRODUCT_GROUP_NAME": [t.group for t in types],
        "GRAPHICAL_APPEARANCE_NO": [a[0] for a in looks],
        "GRAPHICAL_APPEARANCE_NAME": [a[1] for a in looks],
        "COLOUR_GROUP_CODE": [f"{c.code:02d}" for c in colors],
        "COLOUR_GROUP_NAME": [c.name for c in colors],
        "PERCEIVED_COLOUR_VALUE_ID": [c.value_id for c in colors],
        "PERCEIVED_COLOUR_VALUE_NAME": [c.value_name for c in colors],
        "PERCEIVED_COLOUR_MASTER_ID": [c.master_id for c in colors],
        "PERCEIVED_COLOUR_MASTER_NAME": [c.master_name for c in colors],
        "DEPARTMENT_NO": department.tolist(),
        "DEPARTMENT_NAME": [
            f"{t.name} {s[1].split()[0]}" for t, s in zip(types, sections, strict=True)
        ],
        "INDEX_CODE": codes,
        "INDEX_NAME": [taxonomy.INDEXES[c][0] for c in codes],
        "INDEX_GROUP_NO": [taxonomy.INDEXES[c][1] for c in codes],
        "INDEX_GROUP_NAME": [taxonomy.INDEXES[c][2] for c in codes],
        "SECTION_NO": [s[0] for s in sections],
        "SECTION_NAME": [s[1] for s in sections],
        "GARMENT_GROUP_NO": [t.garment for t in types],
        "GARMENT_GROUP_NAME": [taxonomy.GARMENT_GROUPS[t.garment] for t in types],
        "DETAIL_DESC": _descriptions(rng, catalogue),
    }
    return pa.table(columns)


def _product_names(rng: np.random.Generator, catalogue: Catalogue) -> list[str]:
    """Give each product an invented name that its colors share."""
    syllables = rng.integers(0, len(taxonomy.SYLLABLES), (len(catalogue), 2))
    names = []
    for position, start in enumerate(catalogue.product_start):
        first, second = (taxonomy.SYLLABLES[i] for i in syllables[start])
        kind = taxonomy.PRODUCT_TYPES[catalogue.product_type[position]].name
        names.append(f"{(first + second).capitalize()} {kind.split('/')[0].lower()}")
    return names


def _descriptions(rng: np.random.Generator, catalogue: Catalogue) -> list[str | None]:
    """Describe each product in one sentence; about 0.4% have none, as in Kaggle's file."""
    picks = rng.random((len(catalogue), 4))
    texts: list[str | None] = []
    for position, start in enumerate(catalogue.product_start):
        fit, fabric, detail, missing = picks[start]
        if missing < 0.004:
            texts.append(None)
            continue
        kind = taxonomy.PRODUCT_TYPES[catalogue.product_type[position]].name.lower()
        texts.append(
            f"{_pick(taxonomy.FITS, fit)} {kind} in {_pick(taxonomy.FABRICS, fabric)}"
            f" with {_pick(taxonomy.DETAILS, detail)}."
        )
    return texts


def _pick(words: tuple[str, ...], draw: float) -> str:
    """Choose a word by a uniform draw."""
    return words[int(draw * len(words))]
