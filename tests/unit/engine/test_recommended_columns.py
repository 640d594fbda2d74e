"""Which column a recommendation is about: told by its sketches, or found out by their items."""

import numpy as np
import pyarrow as pa
import pytest

from monad.config.loading import parse_config
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.errors import DataError
from monad.targets import DataSourceEvents, sketch
from tests.unit.engine.sample import log_config


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Store and representation of purchases: an item number, its name, a colour and an amount."""
    directory = tmp_path_factory.mktemp("shop")
    random = np.random.default_rng(0)
    items = random.integers(0, 60, 2_000)
    table = {
        "customer": [f"c{i % 50}" for i in range(2_000)],
        "day": pa.array(np.datetime64("2020-01-01") + random.integers(0, 200, 2_000)),
        "article_id": items + 1_000,
        "name": [f"thing {i}" for i in items],
        "previous_item": random.integers(0, 400, 2_000),
        "colour": [["red", "blue", "green"][i % 3] for i in items],
        "pieces": random.integers(0, 500, 2_000),
    }
    values = log_config(directory / "purchases.parquet", table, "customer", "day", "2020-01-01")
    config = parse_config(values)
    store, plans = build_store(config, None)
    limits = config.memory_constraining_params
    return store, fit_representation(store, plans, store.last_time, limits, 0)


def named(representation, position) -> str:
    """The column of a categorical field."""
    return representation.categories()[position].column


def events_of(store) -> DataSourceEvents:
    """The first ten events."""
    return DataSourceEvents(store.tables[0], slice(0, 10))


def test_a_sketch_of_a_column_knows_it(shop):
    """Filtered, masked and added, the values still say which column they are of."""
    store, representation = shop
    events = events_of(store)
    colours = events["colour"]
    made = sketch(colours[colours != "red"]) + sketch(np.unique(colours))
    assert named(representation, representation.item_field_of([made])) == "colour"


@pytest.mark.parametrize("column", ["colour", "article_id"])
def test_items_in_a_list_are_looked_up(shop, column):
    """A list has lost its column: the one that has such values is meant, not the largest."""
    store, representation = shop
    events = events_of(store)
    targets = [sketch(list(set(events[column].tolist()))), sketch([])]
    assert named(representation, representation.item_field_of(targets)) == column
    made = events.apply(lambda value: value, column)[column]
    assert named(representation, representation.item_field_of([sketch(made)])) == column


def test_items_of_no_column_are_an_error(shop):
    """Targets that training could never meet are refused, with one of them."""
    with pytest.raises(DataError, match=r"values of no column.*such as nothing.*article_id"):
        shop[1].item_field_of([sketch(["nothing"])])


@pytest.mark.parametrize(
    ("column", "why"), [("name", "it repeats article_id"), ("pieces", "its type is decimal")]
)
def test_a_column_that_is_no_input_cannot_be_recommended(shop, column, why):
    """A number or a column that repeats another is no field: the error says what to change."""
    store, representation = shop
    with pytest.raises(DataError, match=rf"purchases\.{column} cannot be recommended.*{why}"):
        representation.item_field_of([sketch(events_of(store)[column])])


def test_whole_numbers_that_name_things_are_no_amounts(shop):
    """A number called an item, a product or an article is a category, without an override."""
    found = [field.column for field in shop[1].categories()]
    assert "previous_item" in found
    assert "pieces" not in found


@pytest.mark.parametrize(
    ("name", "step", "category"), [("song", 1, True), ("song", 50, False), ("price", 1, False)]
)
def test_numbers_that_count_things_through_are_names(tmp_path, caplog, name, step, category):
    """Without another column of many values, dense numbers name things; the log says it."""
    random = np.random.default_rng(0)
    table = {
        "listener": random.integers(0, 50, 2_000),
        name: random.integers(0, 150, 2_000) * step,
        "at": 1_600_000_000 + random.integers(0, 10**7, 2_000),
    }
    values = log_config(tmp_path / "plays.parquet", table, "listener", "at", "2020-01-01")
    with caplog.at_level("INFO", "monad.fit"):
        _, plans = build_store(parse_config(values), None)
    found = {plan.name: plan.kind for made in plans.values() for plan in made}
    assert (found[name] == "category") is category
    assert ("read as names of things" in caplog.text) is category
    assert ("override its type: categorical_compressed" in caplog.text) is (step > 1)
