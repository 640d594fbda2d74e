"""What target functions get of columns with holes, of booleans and of numbers, and make of them."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monad.config.loading import parse_config
from monad.config.time_range import DataMode, to_timestamp
from monad.data.ingest import build_store
from monad.errors import TargetFunctionError
from monad.targets import (
    SPLIT_TIMESTAMP,
    has_incomplete_training_window,
    sequential_decay,
    sketch,
)
from monad.training.rows import Labeler
from monad.ui.module import RegressionTask
from tests.unit.engine.sample import location

HUGE = 2**60 + 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six purchases of one customer, the last three after the split point, with holes."""
    directory = tmp_path_factory.mktemp("holes")
    days = np.datetime64("2020-01-01") + np.array([0, 1, 2, 40, 41, 42])
    table = {
        "customer_id": ["a"] * 6,
        "day": pa.array(days),
        "article_id": [1, 2, 3, 3, None, 1],
        "ean": [HUGE, 2, 3, HUGE, None, HUGE],
        "sku": ["x", "y", "y", "x", None, "z"],
        "quantity": list(range(20, 26)),
        "price": [0.1, 2.0, 2.0, 0.1, 2.5, None],
        "returned": [False, True, False, True, None, False],
        "gift": [True, False, False, False, True, True],
    }

    pq.write_table(pa.table(table), directory / "purchases.parquet")
    people = {"customer_id": ["a", "b"], "AGE": [30, None], "Member": [True, None]}
    pq.write_table(pa.table(people), directory / "customers.parquet")
    values = {
        "data_sources": [
            {
                "type": "event",
                "name": "purchases",
                "main_entity_column": "customer_id",
                "date_column": {"name": "day"},
                "data_location": location(directory / "purchases.parquet"),
                "column_type_overrides": {"quantity": "decimal"},
            },
            {
                "type": "main_entity_attribute",
                "name": "customers",
                "main_entity_column": "customer_id",
                "data_location": location(directory / "customers.parquet"),
            },
        ],
        "data_params": {"data_start_date": "2020-01-01"},
    }
    return build_store(parse_config(values), None)[0]


@pytest.fixture
def seen(store):
    """History, future, attributes and ctx of the customer, as a target function gets them."""
    found = []

    def function(*given):
        found.append(given)

    labeler = Labeler(store, function, RegressionTask(), to_timestamp("2020-03-01"), DataMode.TRAIN)
    labeler.label(np.array([0]), np.array([to_timestamp("2020-01-31")]))
    return found[0]


def weights_of(made):
    """Items and weights of a sketch as a dict."""
    return dict(zip(*(part.tolist() for part in made.combined()), strict=True))


def test_groups_of_whole_numbers_do_not_depend_on_holes(seen):
    """A missing value beside a number must not rename the number's group."""
    future = seen[1]["purchases"]
    assert future.groupBy("article_id").exists(groups=["1", "2", "3"])[0].tolist() == [1, 0, 1]
    assert future.groupBy("article_id").count(groups=[1, 2, 3])[0].tolist() == [1, 0, 1]
    counts, names = future.groupBy("article_id").count()
    assert (counts.tolist(), names) == ([1, 1], ["1", "3"])


def test_numbers_are_groups_as_they_are_written(seen):
    """Numeric columns group by the number, however the groups spell it."""
    history, future = seen[0]["purchases"], seen[1]["purchases"]
    assert history.groupBy("quantity").exists(groups=[20, "21", 23])[0].tolist() == [1, 1, 0]
    assert history.groupBy("price").count(groups=[0.1, "2.0"])[0].tolist() == [1, 2]
    assert future.groupBy("price").count()[1] == ["0.1", "2.5"]


def test_missing_values_are_no_group(seen):
    """A group-by leaves out events without a value, as normalised shares do."""
    shares, names = seen[1]["purchases"].groupBy("sku").count(normalize=True)
    assert (shares.tolist(), names) == ([0.5, 0.5], ["x", "z"])
    both = seen[1]["purchases"].groupBy(["sku", "article_id"])
    assert both.count()[1] == ["x,3", "z,1"]


def test_groups_of_several_columns_may_be_tuples(seen):
    """A group of several columns is named by a tuple or by its text."""
    grouped = seen[0]["purchases"].groupBy(["sku", "article_id"])
    values, names = grouped.count(groups=[("y", 2), "x,1", ("x", 9)])
    assert values.tolist() == [1, 1, 0]
    assert names == ["y,2", "x,1", "x,9"]


def test_booleans_are_booleans(seen):
    """A boolean column can be summed, filtered by truth and grouped; a hole is None."""
    history, future, attributes, _ = seen
    events = history["purchases"]
    assert events.sum("returned") == 1.0
    assert events.filter("returned", lambda value: value)["article_id"].tolist() == [2]
    assert events["gift"].dtype == bool
    assert (~events["gift"]).tolist() == [False, True, True]
    assert future["purchases"]["returned"].tolist() == [True, None, False]
    assert future["purchases"].sum("returned") == 1.0
    for groups in ([True, False], ["True", "False"], ["true", "false"]):
        assert events.groupBy("returned").count(groups=groups)[0].tolist() == [1, 2]
    assert bool(attributes["customers"]["member"])


def test_attribute_columns_are_found_in_any_letter_case(seen):
    """As those of events are; a typo gets the nearest name."""
    attributes = seen[2]
    assert attributes["CUSTOMERS"]["age"] == attributes["customers"]["AGE"] == 30
    with pytest.raises(KeyError, match="did you mean `AGE`"):
        attributes["customers"]["agee"]


def test_items_without_a_value_are_no_items(seen):
    """A sketch leaves out missing items with their weights, text or number."""
    future = seen[1]["purchases"]
    assert weights_of(sketch(future["sku"], sequential_decay(future, gamma=0.5))) == {
        "x": 1.0,
        "z": 0.25,
    }
    assert weights_of(sketch(future["article_id"], time_weights := np.array([3.0, 2.0, 1.0]))) == {
        1: 1.0,
        3: 3.0,
    }
    assert len(time_weights) == 3
    assert sketch([None, float("nan")]).combined()[0].tolist() == []


def test_whole_numbers_stay_exact_beside_holes(seen):
    """Identifiers that no float holds are not rounded for a hole's sake."""
    assert list(weights_of(sketch(seen[1]["purchases"]["ean"]))) == [HUGE]
    assert seen[1]["purchases"].groupBy("ean").count()[1] == [str(HUGE)]


def test_items_are_the_same_beside_holes(seen):
    """Subtracting, multiplying and masking meet items of columns with and without holes."""
    old, new = (
        sketch(seen[0]["purchases"]["article_id"]),
        sketch(seen[1]["purchases"]["article_id"]),
    )
    assert weights_of(new - old) == {}
    assert weights_of(old * new) == {1: 1.0, 3: 1.0}
    assert weights_of(new + old) == {1: 2.0, 2: 1.0, 3: 2.0}


def test_weights_that_are_no_numbers_count_nothing(seen):
    """An item whose weight is missing keeps the weight of its other events."""
    prices = seen[1]["purchases"]["price"]
    assert weights_of(sketch(np.array([7, 8, 7]), prices)) == {7: pytest.approx(0.1), 8: 2.5}


def test_sketches_can_be_summed_and_mask_each_other():
    """`sum` adds sketches; a sketch's items can be masked; weights of another length are named."""
    parts = [sketch(np.array(["x"])), sketch(np.array(["x", "y"]))]
    assert weights_of(sum(parts)) == {"x": 2.0, "y": 1.0}
    assert parts[0].mask_loss(parts[1]).masked.tolist() == ["x", "y"]
    assert parts[0].mask_loss("xy").masked.tolist() == ["xy"]
    with pytest.raises(ValueError, match="2 items and 3 weights"):
        sketch(np.array([1, 2]), np.array([1, 2, 3]))


def test_intervals_are_lengths_of_time(seen):
    """The times of numpy are accepted; a bare number is refused, as its unit is not known."""
    future, ctx = seen[1], seen[3]
    split = np.datetime64("2020-01-31")
    two = future.interval_from(split, np.timedelta64(11, "D"))
    assert two["purchases"].count() == 2
    assert has_incomplete_training_window(ctx, np.timedelta64(31, "D"))
    assert not has_incomplete_training_window(ctx, np.int64(30))
    with pytest.raises(TypeError, match="timedelta"):
        future.interval_from(ctx[SPLIT_TIMESTAMP], 21)
    assert future.interval_from(ctx[SPLIT_TIMESTAMP], timedelta(days=11))["purchases"].count() == 2


def test_a_mapping_of_columns_is_a_mapping(seen):
    """The callable of a reduction can look for a column before it uses it."""
    events = seen[0]["purchases"]
    assert events.sum(lambda e: e["price"] if "price" in e else e["cost"]) == pytest.approx(4.1)
    assert list(events) == events.columns


def test_an_unknown_source_keeps_its_hint(store):
    """A misspelt source of attributes names the nearest."""
    labeler = Labeler(
        store,
        lambda history, future, attributes, ctx: attributes["customer"],
        RegressionTask(),
        store.last_time,
        DataMode.TRAIN,
    )
    with pytest.raises(TargetFunctionError, match="did you mean `customers`"):
        labeler.label(np.array([0]), np.array([to_timestamp("2020-01-31")]))
