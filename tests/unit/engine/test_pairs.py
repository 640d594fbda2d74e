"""Features of pairs and items: planted rules are found, the future changes nothing."""

import numpy as np
import pytest
import torch

from monad.config.time_range import DAY_SECONDS
from monad.data.affinity import Takes, affinity, neighbours
from monad.data.pairs import PairReader, feature_names
from monad.data.popularity import ItemHistory
from monad.data.store import Table
from monad.model.items import order_among

DAYS, ITEMS = 200, 40
SPLIT = 150


class Pairs(PairReader):
    """A pair reader over arrays instead of a stored representation."""

    def __init__(self, who, what, when, numbers, entities):
        offsets = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=entities))])
        self.table = Table("takes", offsets, when, [])
        self.num_items, self.codes = ITEMS, what.astype(np.int32)
        self.numbers = [values.astype(np.float32) for values in numbers]
        self.history = ItemHistory(self.table, self.codes, self.numbers, ITEMS)
        self._points, self._prepared = {}, {}


def takes(seed: int = 0, entities: int = 50) -> tuple[np.ndarray, ...]:
    """Return random takes, sorted by entity and time."""
    random = np.random.default_rng(seed)
    size = 3_000
    who = np.sort(random.integers(0, entities, size))
    day = random.integers(0, DAYS, size)
    order = np.lexsort((day, who))
    what = random.integers(2, ITEMS, size)
    return who[order], what[order], day[order] * DAY_SECONDS, random.random(size)


def reader(until: int | None = None) -> PairReader:
    """Return a reader of all takes, or of those up to a day."""
    who, what, when, amount = takes()
    keep = np.ones(len(who), dtype=bool) if until is None else when <= until * DAY_SECONDS
    return Pairs(who[keep], what[keep], when[keep], [amount[keep]], 50)


def test_the_future_changes_no_feature():
    """Features at a split point are the same with and without the events after it."""
    entities = np.arange(50)
    whole, known = reader(), reader(SPLIT)
    stamp = SPLIT * DAY_SECONDS
    np.testing.assert_array_equal(whole.context(stamp).features, known.context(stamp).features)
    found, wanted = whole.pairs(entities, stamp), known.pairs(entities, stamp)
    np.testing.assert_array_equal(found.items, wanted.items)
    np.testing.assert_array_equal(found.features, wanted.features)


def test_pairs_in_parts_are_the_pairs_of_all():
    """What is computed for a part of the entities is what is computed for all at once."""
    made, stamp = reader(), SPLIT * DAY_SECONDS
    whole = made.pairs(np.arange(50), stamp)
    part = made.pairs(np.arange(20, 30), stamp, 20)
    inside = (whole.rows >= 20) & (whole.rows < 30)
    np.testing.assert_array_equal(whole.items[inside], part.items)
    np.testing.assert_allclose(whole.features[inside], part.features, rtol=2e-3, atol=2e-3)


def test_features_are_named_in_order():
    """There is a name for each feature of pairs and of items, and all are finite."""
    made, stamp = reader(), SPLIT * DAY_SECONDS
    pairs, items = feature_names(1)
    found = made.pairs(np.arange(50), stamp)
    assert found.features.shape[1] == len(pairs)
    assert made.context(stamp).names == items
    assert np.isfinite(found.features).all()
    assert np.isfinite(made.context(stamp).features).all()


def test_an_entity_without_events_gets_popular_items():
    """An entity that took nothing yet still has candidates with finite features."""
    found = reader().pairs(np.array([0]), -1)
    assert np.isfinite(found.features).all()
    found = Pairs(*takes()[:3], [takes()[3]], 51).pairs(np.array([50]), SPLIT * DAY_SECONDS)
    assert len(found.items)
    assert np.isfinite(found.features).all()


@pytest.fixture
def planted() -> Takes:
    """Who takes item 3 takes item 7 thirty days later; the others take anything."""
    random = np.random.default_rng(1)
    who, what, day = [], [], []
    for entity in range(300):
        for month in range(6):
            first = 3 if entity % 2 else int(random.integers(10, ITEMS))
            then = 7 if entity % 2 else int(random.integers(10, ITEMS))
            for item, late in ((first, 0), (then, 30), (int(random.integers(10, ITEMS)), 0)):
                who.append(entity)
                what.append(item)
                day.append(month * 60 + late + int(random.integers(0, 10)))
    days = np.array(day)
    age = (360 - days).astype(np.float64)
    return Takes(np.array(who), np.array(what), age, days, 300, ITEMS)


def test_what_follows_is_found(planted):
    """The item that follows another on the next active day has the highest weight."""
    following = affinity(planted).following.toarray()
    assert following[3].argmax() == 7


def test_the_forecast_finds_who_takes_what(planted):
    """Takers of the planted items have them forecast, the others have not."""
    forecast = affinity(planted).forecast
    assert forecast is not None
    at = {int(item): i for i, item in enumerate(forecast.items)}
    weights = forecast.weights[at[3]]
    assert {int(forecast.items[i]) for i in np.argsort(-weights)[:2]} == {3, 7}


def test_neighbours_are_alike_and_never_oneself(planted):
    """What those most alike took in the last weeks counts; one's own takes do not."""
    found = affinity(planted)
    scores = neighbours(found, np.array([1])).toarray()[0]
    assert scores.argmax() == 7
    alone = Takes(np.array([0]), np.array([5]), np.array([1.0]), np.array([1]), 1, ITEMS)
    assert neighbours(affinity(alone), np.array([0])).nnz == 0


def test_places_are_counted_within_a_row():
    """A value's place is the number of larger ones of its row; equal values share one."""
    rows = torch.tensor([0, 0, 0, 0, 1, 3, 3])
    values = torch.tensor([[3.0], [1.0], [3.0], [2.0], [9.0], [-1.0], [1.0]])
    found = order_among(values, rows, 4).squeeze(1)
    places = torch.expm1(found * 1.25 + 3.5).round().long().tolist()
    assert places == [0, 3, 0, 2, 0, 1, 0]
