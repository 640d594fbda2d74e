"""Target functions that return, raise or change what they should not."""

import datetime as dt
import logging
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from monad.config import TrainingParams
from monad.config.loading import parse_config
from monad.config.time_range import DataMode
from monad.data.ingest import build_store
from monad.errors import DataError, TargetFunctionError
from monad.targets import sketch
from monad.training.rows import Labeler
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    RecommendationTask,
    RegressionTask,
    load_from_foundation_model,
)
from tests.e2e.engine.test_bad_data import configured, days, stored
from tests.unit.engine.sample import shop_config, write_config, write_shop

THREE = MulticlassClassificationTask(["a", "b", "c"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop with a small foundation model."""
    directory = write_shop(tmp_path_factory.mktemp("targets"), customers=20)
    pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
    return directory


@pytest.fixture(scope="module")
def store(shop):
    """The shop's store."""
    return build_store(parse_config(shop_config(shop)), None)[0]


def label(store, function: Callable, task):
    """Label every entity in the middle of the data."""
    everyone = np.arange(store.num_entities)
    middle = (store.first_time + store.last_time) // 2
    labeler = Labeler(store, function, task, store.last_time, DataMode.TRAIN)
    return labeler.label(everyone, np.full(len(everyone), middle))


def returning(value):
    """Make a target function that returns *value*."""

    def function(history, future, attributes, ctx):
        return value

    return function


@pytest.mark.parametrize(
    ("value", "task", "wanted"),
    [
        (True, BinaryClassificationTask(), [1.0]),
        (np.float64(0), BinaryClassificationTask(), [0.0]),
        (-3, RegressionTask(), [-3.0]),
        (np.int64(2), THREE, [0.0, 0.0, 1.0]),
        (1.0, THREE, [0.0, 1.0, 0.0]),
        ([0.0, 3.0, 1.0], THREE, [0.0, 0.75, 0.25]),
    ],
)
def test_scalars_are_arrays_of_one(store, value, task, wanted):
    """Plain and numpy numbers and booleans are targets; a class may be given by its index."""
    rows = label(store, returning(value), task)
    assert len(rows) == store.num_entities
    assert rows.targets[0].tolist() == wanted


@pytest.mark.parametrize(
    ("value", "task", "text"),
    [
        ((x for x in [1.0]), RegressionTask(), "an array of numbers"),
        (1 + 2j, RegressionTask(), "an array of numbers"),
        (np.array([1j]), RegressionTask(), "an array of numbers"),
        (1.5, THREE, "a class index from 0 to 2, or 3 scores"),
        (-1, THREE, "a class index from 0 to 2"),
        (3, THREE, "a class index from 0 to 2"),
        ([-1, 0, 3], THREE, "scores that are not negative"),
        ([1, 2], THREE, "an array of length 3"),
    ],
)
def test_values_that_are_no_target_are_refused(store, value, task, text):
    """Generators, complex numbers and classes between or beyond those there are, are no targets."""
    with pytest.raises(TargetFunctionError, match=text):
        label(store, returning(value), task)


def test_rows_without_a_finite_target_are_left_out(store, caplog):
    """NaN leaves a row out like None, of any task; infinity does too, which is said once."""
    calls = []

    def sometimes(history, future, attributes, ctx):
        calls.append(1)
        return [float("nan"), 1.0][len(calls) % 2]

    def infinite(history, future, attributes, ctx):
        calls.append(1)
        return [1e39, float("inf"), 1.0][len(calls) % 3]

    with caplog.at_level(logging.WARNING, "monad"):
        for task in (RegressionTask(), THREE):
            assert len(label(store, sometimes, task)) == store.num_entities // 2
        assert not caplog.text
        rows = label(store, infinite, RegressionTask())
    assert 0 < len(rows) < store.num_entities
    assert caplog.text.count("rows whose target is infinite") == 1


def test_a_target_function_may_change_what_it_is_given(store):
    """Arithmetic in place changes its own copy: the data and later calls are as before."""

    def careless(history, future, attributes, ctx):
        source = future["transactions"]
        times = source.timestamps
        times -= ctx["SPLIT_TIMESTAMP"]
        for name in ("price", "article_id"):
            history["transactions"][name][:] = 0
        ctx.clear()
        return [float(times.sum())]

    table = store.tables[0]
    before = table.times.copy(), table.values("price", slice(None)), table.keys.copy()
    first, second = (
        label(store, careless, RegressionTask()),
        label(store, careless, RegressionTask()),
    )
    assert np.array_equal(first.targets, second.targets)
    assert first.targets.max() < store.last_time
    after = table.times, table.values("price", slice(None)), table.keys
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), StopIteration()])
def test_leaving_from_a_target_function_is_an_error(store, error):
    """`sys.exit()` in a target function does not end a job service as if it were done."""

    def leaves(history, future, attributes, ctx):
        if isinstance(error, SystemExit):
            sys.exit(0)
        raise error

    with pytest.raises(TargetFunctionError, match=rf"{type(error).__name__}.*main entity c0"):
        label(store, leaves, RegressionTask())


def test_an_interrupt_in_a_target_function_interrupts(store):
    """Only the user's own interrupt passes through."""

    def interrupted(history, future, attributes, ctx):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(store, interrupted, RegressionTask())


@pytest.mark.parametrize(
    ("items", "weights", "text"),
    [
        (5, None, r"not an array of shape \(\)"),
        (np.ones((2, 2)), None, r"not an array of shape \(2, 2\)"),
        (["a", "b"], [1.0, 2.0, 3.0], "2 items and 3 weights"),
    ],
)
def test_sketches_of_no_items_are_refused(store, items, weights, text):
    """A sketch needs a list of items and as many finite weights."""
    with pytest.raises(TargetFunctionError, match=text):
        label(store, lambda *_: sketch(items, weights), RecommendationTask())


def test_missing_items_are_no_items():
    """None and NaN in a column are left out of a sketch together with their weights."""
    assert sketch(np.array([None, "b", "a", "b"], dtype=object)).combined()[0].tolist() == [
        "a",
        "b",
    ]
    found = sketch(np.array([7.0, np.nan, 8.0]), [1.0, 2.0, 3.0])
    assert found.items.tolist() == [7.0, 8.0]
    assert found.weights.tolist() == [1.0, 3.0]
    assert len(found - sketch([7])) == 1


def foreign(history, future, attributes, ctx):
    return sketch(["zzz"])


def prices(history, future, attributes, ctx):
    found = future["transactions"]["price"]
    return sketch(found) if len(found) else None


def unwanted(history, future, attributes, ctx):
    found = future["transactions"]["article_id"]
    return sketch(found, np.full(len(found), -1.0)) if len(found) else None


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (foreign, "are values of no column.*such as zzz"),
        (prices, r"Column transactions\.price cannot be recommended"),
        (unwanted, "with a weight above 0"),
    ],
)
def test_items_that_cannot_be_recommended_are_an_error(shop, function, text):
    """A recommendation whose targets are unknown to the model does not train on nothing."""
    module = load_from_foundation_model(shop / "fm", RecommendationTask(), function)
    with pytest.raises((TargetFunctionError, DataError), match=text):
        module.fit(TrainingParams(epochs=1, limit_train_batches=1))


def test_items_are_found_where_some_of_them_are_missing(tmp_path):
    """Integer items and groups are the same ones in histories with a missing value."""
    values = configured(
        tmp_path,
        {
            "id": ["a"] * 3 + ["b"] * 3,
            "at": days(range(6)),
            "item": [101, None, 102, 102, 101, 101],
            "hash": [2**62 + 1, None, 2**62 + 3, 1, 1, 1],
        },
        column_type_overrides={"item": "categorical", "hash": "categorical"},
    )
    store = stored(values)
    seen = []

    def function(history, future, attributes, ctx):
        events = history["events"]
        groups = ["101", "102", "103"]
        seen.append(
            (
                events.groupBy("item").count(groups=groups)[0].tolist(),
                events.groupBy("item").count()[1],
                [str(x) for x in events["hash"].tolist()],
            )
        )
        return [1.0]

    stamp = np.full(2, store.last_time)
    task = RegressionTask()
    Labeler(store, function, task, store.last_time, DataMode.TRAIN).label(np.arange(2), stamp)
    assert seen[0] == ([1, 1, 0], ["101", "102"], [str(2**62 + 1), "None", str(2**62 + 3)])
    assert seen[1] == ([2, 1, 0], ["101", "102"], ["1", "1", "1"])


def test_a_recommendation_of_items_with_missing_values_trains_on_them(tmp_path):
    """Targets of integer items count although other events of the entity have no item."""
    random = np.random.default_rng(0)
    n = 600
    items = random.integers(100, 110, n).astype(object)
    items[::5] = None
    table = {
        "id": [f"e{i}" for i in random.integers(0, 20, n)],
        "at": days(random.random(n) * 200),
        "item": items.tolist(),
    }
    values = configured(tmp_path, table, column_type_overrides={"item": "categorical"})
    pretrain(write_config(tmp_path, values), tmp_path / "fm")
    module = load_from_foundation_model(tmp_path / "fm", RecommendationTask(), bought_in_a_month)
    module.fit(TrainingParams(epochs=1, limit_train_batches=2, checkpoint_dir=tmp_path / "c"))
    batch_items = module.checkpoint.representation.categories()[module.item_position].values
    assert sorted(batch_items) == [str(i) for i in range(100, 110)]


def bought_in_a_month(history, future, attributes, ctx):
    window = future.interval_from(ctx["SPLIT_TIMESTAMP"], dt.timedelta(days=30))
    items = window["events"]["item"]
    return sketch(items) if len(items) else None


def test_columns_without_any_value_can_be_read(tmp_path):
    """A target function may read a column of nulls, of whatever type."""
    nulls = {"text": "string", "whole": "int64", "number": "double", "flag": "bool"}
    columns = {name: pa.nulls(2, pa.type_for_alias(kind)) for name, kind in nulls.items()}
    table = {"id": ["a", "b"], "at": days([0, 1]), "kind": ["x", "y"], **columns}
    found = stored(configured(tmp_path, table)).tables[0]
    for name in nulls:
        values = found.values(name, slice(0, 2))
        assert len(values) == 2
        assert np.isnan(np.asarray(values, dtype=np.float64)).all()


@pytest.mark.parametrize("task", ["binary", BinaryClassificationTask])
def test_a_task_is_an_object(shop, task):
    """A name or the class itself is refused where it is given."""
    with pytest.raises(TypeError, match=r"must be a task.*BinaryClassificationTask\(\)"):
        load_from_foundation_model(shop / "fm", task, returning(1.0))
    with pytest.raises(TypeError, match="must be callable"):
        load_from_foundation_model(shop / "fm", BinaryClassificationTask(), 5)  # type: ignore[arg-type]
