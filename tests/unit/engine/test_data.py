"""The column store, what is fitted on it, and that no input sees the future."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.config.time_range import to_timestamp
from monad.data.batches import RowReader, batches_by_length
from monad.data.fields import MISSING
from monad.data.ingest import build_store, check_types
from monad.data.pairs import PairReader
from monad.data.representation import Representation, fit_representation
from monad.errors import DataError, NotBuiltError
from tests.unit.engine.sample import location, shop_config, write_shop

SPLIT = to_timestamp("2020-05-01")


def events_config(path, **source):
    """Return a configuration with one event source."""
    return {
        "data_sources": [
            {
                "type": "event",
                "name": "events",
                "main_entity_column": "id",
                "date_column": {"name": "t", "format": "%Y-%m-%d %H:%M"},
                "data_location": location(path),
                **source,
            }
        ],
        "data_params": {"data_start_date": "2020-01-01"},
    }


def write_events(tmp_path, **columns):
    """Write an event table and return its path."""
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def fitted(store, plans, end=SPLIT):
    """Fit a representation of a store."""
    return fit_representation(store, plans, end, MemoryConstrainingParams(), seed=0)


def test_rows_are_sorted_by_entity_and_time_and_ties_keep_file_order(tmp_path):
    """Unordered and tied timestamps are put in order; ties keep the order of the file."""
    path = write_events(
        tmp_path,
        id=["b", "a", "a", "a"],
        t=["2020-01-03 00:00", "2020-01-05 00:00", "2020-01-02 00:00", "2020-01-02 00:00"],
        item=["w", "z", "y", "x"],
    )
    store, _ = build_store(parse_config(events_config(path)), None)
    table = store.tables[0]
    assert store.entity_ids.tolist() == ["a", "b"]
    assert table.offsets.tolist() == [0, 3, 4]
    assert table.values("ITEM", slice(0, 4)).tolist() == ["y", "x", "z", "w"]


def test_rows_without_entity_or_date_are_left_out(tmp_path):
    """Rows that cannot be placed are dropped, the rest is used; NaN and infinities are missing."""
    path = write_events(
        tmp_path,
        id=["a", None, "a", "b"],
        t=["2020-01-03 00:00", "2020-01-03 00:00", "not a date", "2020-01-04 00:00"],
        amount=[1.0, 2.0, 3.0, float("inf")],
    )
    store, _ = build_store(parse_config(events_config(path)), None)
    amounts = store.tables[0].values("amount", slice(0, 2))
    assert amounts[0] == 1.0
    assert np.isnan(amounts[1])


@pytest.mark.parametrize(
    ("columns", "source", "error", "message"),
    [
        ({"id": [], "t": []}, {}, DataError, "is empty"),
        ({"id": ["a"], "t": ["soon"]}, {}, DataError, "no usable row"),
        ({"id": ["a"], "when": ["2020-01-02"]}, {}, DataError, "Column `t` does not exist"),
        (
            {"id": ["a"], "t": ["2020-01-02 00:00"], "price": [1.0]},
            {"allowed_columns": ["pricee"]},
            DataError,
            "did you mean `price`",
        ),
        (
            {"id": ["a"], "t": ["2020-01-02 00:00"]},
            {"where_condition": "nothing > 1"},
            DataError,
            "where_condition",
        ),
        (
            {"id": ["a"], "t": ["2020-01-02 00:00"]},
            {"data_location": {"database_type": "hive"}},
            NotBuiltError,
            "hive",
        ),
    ],
)
def test_unusable_tables_fail_before_training(tmp_path, columns, source, error, message):
    """Each fault of a table is an error that names the source and what to change."""
    columns = {k: v if v else pa.array(v, pa.string()) for k, v in columns.items()}
    path = write_events(tmp_path, **columns)
    with pytest.raises(error, match=message):
        build_store(parse_config(events_config(path, **source)), None)


def test_missing_file_is_named(tmp_path):
    """A path without files is an error with the path."""
    with pytest.raises(DataError, match="nowhere"):
        build_store(parse_config(events_config(tmp_path / "nowhere.parquet")), None)


def test_empty_and_constant_columns_are_not_modelled(tmp_path):
    """Columns without information are left out with a reason, and none left is an error."""
    path = write_events(
        tmp_path,
        id=["a", "b"],
        t=["2020-01-02 00:00", "2020-01-03 00:00"],
        nothing=pa.array([None, None], pa.float64()),
        same=["x", "x"],
    )
    _, plans = build_store(parse_config(events_config(path)), None)
    assert [plan.modelled for plan in plans["events"]] == [False, False]
    with pytest.raises(DataError, match="No column can be modelled"):
        check_types(plans)


def test_vocabulary_is_fitted_on_the_training_range_only(tmp_path):
    """A value that appears only after the training range goes to the hashed tail."""
    path = write_events(
        tmp_path,
        id=["a", "b", "a", "b"],
        t=["2020-01-02 00:00", "2020-01-03 00:00", "2020-01-04 00:00", "2020-06-04 00:00"],
        item=["x", "y", "x", "late"],
    )
    store, plans = build_store(parse_config(events_config(path)), SPLIT)
    field = fitted(store, plans).fields[0]
    assert field.values == ["x", "y"]
    index = field.lookup(np.array(["x", "late"], dtype=object))
    assert index[0] == 2
    assert index[1] >= 2 + len(field.values)
    assert index[2] == MISSING


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A directory with the shop's tables."""
    return write_shop(tmp_path_factory.mktemp("shop"))


def inputs(directory, end=None):
    """Return the network's input at SPLIT, and pair features, for every entity with history."""
    store, plans = build_store(parse_config(shop_config(directory)), SPLIT)
    representation = fitted(store, plans)
    reader = RowReader(store, representation, 16)
    entities = np.arange(store.num_entities)
    stamps = np.full(len(entities), SPLIT)
    batch = reader.read(entities, stamps)
    PairReader(reader, representation.item_field()).extend(batch)
    return batch, representation


def test_inputs_do_not_change_when_the_future_does(shop, tmp_path):
    """Planting other events after the split changes no input and nothing that was fitted."""
    before, representation = inputs(shop)
    changed = write_shop(tmp_path / "changed")
    table = pq.read_table(changed / "transactions.parquet").to_pylist()
    cut = np.datetime64(SPLIT, "s").astype("datetime64[D]").astype(object)
    for row in table:
        if row["t_dat"] > cut:
            row["article_id"], row["price"] = 1000, 9999.0
    schema = pq.read_schema(changed / "transactions.parquet")
    pq.write_table(pa.Table.from_pylist(table, schema), changed / "transactions.parquet")
    after, other = inputs(changed)
    assert representation.fields == other.fields
    assert representation.mean == other.mean
    for name in ("codes", "bag_codes"):
        for left, right in zip(before[name], after[name], strict=True):
            assert torch.equal(left, right)
    for name in ("numbers", "gaps", "aggregates", "pair_features", "item_features", "bag_weights"):
        assert torch.equal(torch.nan_to_num(before[name]), torch.nan_to_num(after[name])), name


def test_joined_columns_follow_their_key(shop):
    """A joined attribute of an event is the attribute of the event's item."""
    store, _ = build_store(parse_config(shop_config(shop)), None)
    table = store.tables[0]
    items = table.values("article_id", slice(None))
    kinds = table.values("kind", slice(None))
    names = np.array(["shoe", "shirt", "hat", "sock"], dtype=object)
    assert (kinds == names[(items - 1000) % 4]).all()


def test_aggregates_count_what_numpy_counts(shop):
    """Counts and sums over a window equal a direct computation."""
    store, plans = build_store(parse_config(shop_config(shop)), SPLIT)
    reader = RowReader(store, fitted(store, plans), 16).aggregates
    matrix = reader.read(np.arange(store.num_entities), np.full(store.num_entities, SPLIT))
    names = reader.names()
    table = store.tables[0]
    for entity in range(0, store.num_entities, 7):
        rows = slice(int(table.offsets[entity]), int(table.offsets[entity + 1]))
        times = table.times[rows]
        inside = (times <= SPLIT) & (times > SPLIT - 30 * 86_400)
        price = table.values("price", rows)[inside]
        found = matrix[entity, names.index("transactions:count_30")]
        assert np.expm1(found) == pytest.approx(inside.sum(), abs=1e-3)
        found = matrix[entity, names.index("transactions:sum_price_30")]
        assert np.expm1(found) == pytest.approx(price.sum(), rel=1e-4, abs=1e-3)
        days = len(np.unique(times[inside] // 86_400))
        found = matrix[entity, names.index("transactions:days_30")]
        assert np.expm1(found) == pytest.approx(days, abs=1e-3)


def test_representation_survives_storage(shop, tmp_path):
    """Plain values rebuild the same representation and load without code."""
    store, plans = build_store(parse_config(shop_config(shop)), SPLIT)
    representation = fitted(store, plans)
    torch.save(representation.to_plain(), tmp_path / "r.pt")
    loaded = Representation.from_plain(torch.load(tmp_path / "r.pt", weights_only=True))
    assert loaded == representation


def test_batches_keep_to_the_token_budget():
    """Every row is in exactly one batch, and no batch is larger than asked."""
    lengths = np.random.default_rng(0).integers(0, 60, 500)
    made = batches_by_length(lengths, 256, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(made).tolist()) == list(range(500))
    assert all(len(b) * max(lengths[b].max(), 1) <= 256 or len(b) == 1 for b in made)
