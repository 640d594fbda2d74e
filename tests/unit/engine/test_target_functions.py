"""The target-function API over a store."""

from datetime import timedelta

import numpy as np
import pytest

from monad.config.loading import parse_config
from monad.config.time_range import DAY_SECONDS, DataMode, to_timestamp
from monad.data.ingest import build_store
from monad.errors import TargetFunctionError
from monad.targets import (
    SPLIT_TIMESTAMP,
    DataSourceEvents,
    Events,
    has_incomplete_training_window,
    next_n_days,
    sequential_decay,
    sketch,
    slice_time_window,
    time_decay,
)
from monad.training.rows import Labeler
from monad.ui.module import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    RecommendationTask,
    RegressionTask,
)
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The column store of the shop."""
    directory = write_shop(tmp_path_factory.mktemp("shop"))
    return build_store(parse_config(shop_config(directory)), None)[0]


@pytest.fixture
def events(store):
    """All events of the first customer."""
    table = store.tables[0]
    source = DataSourceEvents(table, slice(int(table.offsets[0]), int(table.offsets[1])))
    return Events({"transactions": source})


def test_columns_are_found_in_any_letter_case(events):
    """Snowflake upper-cases names, so letter case does not matter; a typo gets a hint."""
    source = events["TRANSACTIONS"]
    assert (source["PRICE"] == source["price"]).all()
    assert set(source["kind"]) <= {"shoe", "shirt", "hat", "sock"}
    with pytest.raises(KeyError, match="did you mean `price`"):
        source["prize"]


def test_reductions_agree_with_numpy(events):
    """Sum, mean, min and max accept a name or a callable."""
    source = events["transactions"]
    price = np.asarray(source["price"])
    assert source.count() == len(price)
    assert source.sum("price") == pytest.approx(price.sum())
    assert source.mean(lambda columns: columns["price"] * 2) == pytest.approx(2 * price.mean())
    assert (source.min("price"), source.max("price")) == (price.min(), price.max())
    assert source.sum("double_price") == pytest.approx(2 * price.sum())


def test_interval_is_open_left_and_closed_right(events):
    """An event at the split point belongs to the past, never to the future."""
    times = events["transactions"].timestamps
    split = int(times[len(times) // 2])
    after = events.interval_from(split, timedelta(days=3650))["transactions"].timestamps
    past = events.interval_from(split, timedelta(days=-3650))["transactions"].timestamps
    assert (after > split).all()
    assert (past <= split).all()
    assert len(after) + len(past) == len(times)
    assert (next_n_days(events, split, None)["transactions"].timestamps > split).all()
    window = slice_time_window(events, split, split + DAY_SECONDS)["transactions"].timestamps
    assert ((window >= split) & (window < split + DAY_SECONDS)).all()


def test_filter_apply_and_groups(events):
    """Filtering, transforming and grouping keep to the events of the view."""
    source = events["transactions"]
    cheap = source.filter("price", lambda value: value < 10)
    assert (np.asarray(cheap["price"]) < 10).all()
    assert source.apply(lambda value: value + 1, "price").sum("price") == pytest.approx(
        source.sum("price") + source.count()
    )
    shares, names = source.groupBy("kind").count(normalize=True)
    assert shares.sum() == pytest.approx(1.0)
    flags, order = source.groupby("kind").exists(groups=["absent", *names])
    assert order[0] == "absent"
    assert flags.tolist() == [0.0] + [1.0] * len(names)
    sums, _ = source.groupBy(["kind", "channel"]).sum("price")
    assert sums.sum() == pytest.approx(source.sum("price"))


def test_sketch_algebra():
    """Adding sums weights, multiplying keeps common items, subtracting removes items."""
    a, b = sketch(np.array([1, 2, 2])), sketch(np.array([2, 3]), np.array([0.5, 1.0]))
    items, weights = (a + b).combined()
    assert dict(zip(items.tolist(), weights.tolist(), strict=True)) == {1: 1.0, 2: 2.5, 3: 1.0}
    items, weights = (a * b).combined()
    assert items.tolist() == [2]
    assert weights.tolist() == [1.0]
    assert (a - b).combined()[0].tolist() == [1]
    assert (2 * a).combined()[1].tolist() == [2.0, 4.0]
    assert a.mask_loss([9]).masked.tolist() == [9]


def test_decays():
    """Sequential decay follows baskets, time decay follows days."""
    times = np.array([0, 0, DAY_SECONDS, 2 * DAY_SECONDS])
    assert sequential_decay(times, 0).tolist() == [1, 1, 0, 0]
    assert sequential_decay(times, 1).tolist() == [1, 1, 1, 1]
    assert time_decay(times, 0.1) == pytest.approx([1, 1, 0.1, 0.01])


def test_incomplete_window_accepts_days_and_timedelta():
    """A window that passes the end of labels is incomplete."""
    ctx = {SPLIT_TIMESTAMP: 0, "TRAINING_END_TIMESTAMP": 10 * DAY_SECONDS}
    assert not has_incomplete_training_window(ctx, timedelta(days=10))
    assert has_incomplete_training_window(ctx, 11)
    assert has_incomplete_training_window(ctx, required_days=11)


def labelled(store, task, function):
    """Label two customers in the middle of the data."""
    stamp = to_timestamp("2020-04-01")
    labeler = Labeler(store, function, task, store.last_time, DataMode.TRAIN)
    return labeler.label(np.array([0, 1]), np.array([stamp, stamp]))


def test_history_and_future_are_strictly_separated(store):
    """Labels see history up to the split and future after it, and attributes of the entity."""
    stamp = to_timestamp("2020-04-01")
    seen = []

    def function(history, future, attributes, ctx):
        assert ctx[SPLIT_TIMESTAMP] == stamp
        assert (history["transactions"].timestamps <= stamp).all()
        assert (future["transactions"].timestamps > stamp).all()
        seen.append(attributes["customers"]["club"])
        return np.array([1.0])

    assert len(labelled(store, BinaryClassificationTask(), function)) == 2
    assert seen == ["gold", "silver"]


@pytest.mark.parametrize(
    ("task", "made", "message"),
    [
        (BinaryClassificationTask(), np.array([1.0, 0.0]), "length 1"),
        (BinaryClassificationTask(), np.array([0.5]), "zeros and ones"),
        (BinaryClassificationTask(), "yes", "array of numbers"),
        (RecommendationTask(), np.array([1.0]), "needs a Sketch"),
        (MulticlassClassificationTask(["a", "b"]), np.array([2.0]), "class index from 0 to 1"),
        (MulticlassClassificationTask(["a", "b"]), np.array([0.5]), "class index from 0 to 1"),
        (MulticlassClassificationTask(["a", "b"]), np.array([-1, 2]), "not negative"),
        (RegressionTask(), np.array([1.0, 2.0]), r"RegressionTask\(num_targets=2\)"),
        (MulticlassClassificationTask(class_names=["a", "b"]), sketch(np.array([1])), "an array"),
    ],
)
def test_unusable_target_is_an_error(store, task, made, message):
    """A return value that the task cannot use says what it needs."""
    with pytest.raises(TargetFunctionError, match=message):
        labelled(store, task, lambda *_: made)


def test_target_function_that_raises_names_the_entity(store):
    """An exception inside the target function names entity and split point."""
    with pytest.raises(TargetFunctionError, match=r"ZeroDivisionError.*c000"):
        labelled(store, BinaryClassificationTask(), lambda *_: 1 / 0)


def test_multiclass_accepts_an_index_or_a_vector(store):
    """A single number is a class index, a vector is taken as it is."""
    task = MulticlassClassificationTask(class_names=["a", "b", "c"])
    rows = labelled(store, task, lambda *_: np.array([2.0]))
    assert rows.targets.tolist() == [[0, 0, 1]] * 2
    rows = labelled(store, task, lambda *_: np.array([0.5, 0.5, 0.0]))
    assert rows.targets.tolist() == [[0.5, 0.5, 0.0]] * 2


def test_counts_of_classes_become_shares(store):
    """Counts are scores, too: divided by their sum, and no row where there is none."""
    task = MulticlassClassificationTask(class_names=["a", "b", "c"])
    rows = labelled(store, task, lambda *_: [3, 1, 0])
    assert rows.targets.tolist() == [[0.75, 0.25, 0.0]] * 2
    assert not len(labelled(store, task, lambda *_: np.zeros(3)))


def test_the_column_of_times_has_another_name(store):
    """Asked for by the source's name of it, the error says where the times are."""

    def target_fn(history, future, attributes, ctx):
        return sketch(future["transactions"]["t_dat"])

    with pytest.raises(TargetFunctionError, match=r"no column `t_dat`.*\.timestamps`, in UTC"):
        labelled(store, RecommendationTask(), target_fn)
