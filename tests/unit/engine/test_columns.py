"""Text, embeddings, dates and shared entities: from a table to the network's input."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config.loading import parse_config
from monad.data.batches import RowReader
from monad.data.dense import parsed_vectors, text_grams
from monad.data.ingest import build_store
from monad.data.representation import Representation, fit_representation
from monad.errors import ConfigError, DataError, NotBuiltError
from monad.model.network import Network, Size
from monad.training.foundation import shared_columns
from tests.unit.engine.sample import location


def source(directory, name, table, **more):
    """Write an event table and return its source."""
    pq.write_table(pa.table(table), directory / f"{name}.parquet")
    return {
        "type": "event",
        "name": name,
        "main_entity_column": "id",
        "date_column": {"name": "day"},
        "data_location": location(directory / f"{name}.parquet"),
        **more,
    }


def fitted(sources, start="2020-01-01"):
    """Read and fit; returns store, representation and reader."""
    config = parse_config({"data_sources": sources, "data_params": {"data_start_date": start}})
    store, plans = build_store(config, None)
    limits = config.memory_constraining_params
    shared = shared_columns(config)
    representation = fit_representation(store, plans, store.last_time, limits, 0, shared)
    representation = Representation.from_plain(representation.to_plain())
    return store, representation, RowReader(store, representation, 8)


def days(*numbers):
    """Dates of January 2020."""
    return pa.array(np.array([np.datetime64("2020-01-01") + n for n in numbers]))


def events(**columns):
    """A table of three events of two people with more columns."""
    return {"id": ["a", "a", "b"], "day": days(0, 1, 2), "kind": ["x", "y", "x"], **columns}


def network_of(representation):
    """A small network."""
    torch.manual_seed(0)
    return Network(representation, Size(width=16, layers=1, heads=1, max_events=8)).eval()


def test_text_is_read_as_hashed_grams(tmp_path):
    """Equal texts embed alike, similar ones share grams, an empty or missing one adds nothing."""
    table = {
        "id": ["a"] * 5,
        "day": days(0, 1, 2, 3, 4),
        "kind": ["x", "y", "x", "y", "x"],
        "note": ["red shoe", "Red  Shoe!", "red shoes", None, ""],
    }
    overrides = {"note": "text"}
    store, representation, reader = fitted(
        [source(tmp_path, "e", table, column_type_overrides=overrides)]
    )
    assert [f.column for f in representation.dense()] == ["note"]
    batch = reader.read(np.array([0]), np.array([store.last_time]))
    network = network_of(representation)
    found = network.events.dense.contributions(batch, "dense")[0][0]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[3], torch.zeros(16))
    assert torch.equal(found[4], torch.zeros(16))
    shared = set(text_grams("red shoe", 4096)) & set(text_grams("red shoes", 4096))
    assert len(shared) >= 5
    network(batch)


def test_a_batch_without_any_text_is_read(tmp_path):
    """Rows without history or text go through the network."""
    table = events(note=["hello", "world", "hello"])
    _, representation, reader = fitted(
        [source(tmp_path, "e", table, column_type_overrides={"note": "text"})]
    )
    batch = reader.read(np.array([1]), np.array([0]))
    assert torch.isfinite(network_of(representation).summarize(batch)).all()


@pytest.mark.parametrize("as_text", [False, True])
def test_embeddings_are_standardised_vectors(tmp_path, as_text):
    """A list column, or its JSON text, becomes vectors with mean 0 over the training range."""
    vectors = [[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]]
    column = [str(v) for v in vectors] if as_text else vectors
    store, representation, reader = fitted(
        [
            source(
                tmp_path, "e", events(vector=column), column_type_overrides={"vector": "embedding"}
            )
        ]
    )
    field = representation.dense()[0]
    assert field.center == pytest.approx([3.0, 20.0])
    batch = reader.read(np.array([0, 1]), np.array([store.last_time] * 2))
    index, values = batch["dense_index"][0], batch["dense_values"][0]
    padded = torch.cat([torch.zeros(1, 2), values])[index]
    first = (np.array([1.0, 10.0]) - field.center) / field.scale
    assert padded[0, 0].numpy() == pytest.approx(first, abs=1e-5)
    assert padded[1, 1].numpy() == pytest.approx([0.0, 0.0])  # no second event
    network_of(representation)(batch)


def test_attributes_may_be_text_and_embeddings(tmp_path):
    """Main-entity attributes take both kinds, and missing ones add nothing."""
    people = {"id": ["a"], "about": ["likes hats"], "face": [[0.5, 1.5]]}
    pq.write_table(pa.table(people), tmp_path / "p.parquet")
    attribute = {
        "type": "main_entity_attribute",
        "name": "p",
        "main_entity_column": "id",
        "data_location": location(tmp_path / "p.parquet"),
        "column_type_overrides": {"about": "text", "face": "embedding"},
    }
    store, representation, reader = fitted([source(tmp_path, "e", events()), attribute])
    # One value only is no input, as for every column; a second row makes it one.
    assert representation.attributes == []
    people = {"id": ["a", "b"], "about": ["likes hats", None], "face": [[0.5, 1.5], [1.0, 2.0]]}
    people["about"] = ["likes hats", "hates hats"]
    pq.write_table(pa.table(people), tmp_path / "p.parquet")
    store, representation, reader = fitted([source(tmp_path, "e", events()), attribute])
    assert [f.kind for f in representation.attributes] == ["text", "vector"]
    batch = reader.read(np.array([0, 1]), np.array([store.last_time] * 2))
    summary = network_of(representation).summarize(batch)
    assert not torch.equal(summary[0], summary[1])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["[1, 2]", "[1]"], "a value has 1 numbers, others 2"),
        (["hello"], "not a list of numbers"),
        (["[[1], [2]]"], "not one list"),
        (["3.5"], "not a list of numbers"),
    ],
)
def test_values_that_are_no_vectors_are_named(values, text):
    """The error names the column and the value."""
    with pytest.raises(DataError, match=text) as caught:
        parsed_vectors("e", "v", values, None)
    assert "e.v" in str(caught.value)


def test_holes_in_a_vector_are_zero():
    """NaN, infinities and nulls inside a vector count as 0."""
    found = parsed_vectors("e", "v", ["[1.0, nan, NULL, inf, 2.0]"], None)
    assert found.tolist() == [[1.0, 0.0, 0.0, 0.0, 2.0]]


def test_dates_become_calendar_columns(tmp_path):
    """A date override gives year, month, weekday and whole days before the event."""
    born = pa.array(np.array(["2019-12-30", "2019-12-30", "2020-02-02"], dtype="datetime64[D]"))
    store, _, _ = fitted(
        [source(tmp_path, "e", events(made=born), column_type_overrides={"made": "date"})]
    )
    table = store.tables[0]
    names = [f"made.{part}" for part in ("year", "month", "weekday", "days_before")]
    found = [[float(x) for x in table.values(name, slice(0, 3))] for name in names]
    assert found == [[2019, 2019, 2020], [12, 12, 2], [1, 1, 7], [2, 3, -30]]


def test_dates_without_the_override_are_no_input(tmp_path):
    """As documented, dates other than the event's own are left out."""
    born = pa.array(np.array(["2019-12-30", "2019-12-31", "2020-02-02"], dtype="datetime64[D]"))
    store, _, _ = fitted([source(tmp_path, "e", events(made=born))])
    assert store.tables[0].column_names() == ["kind"]


def test_shared_entities_have_one_vocabulary_and_one_embedding(tmp_path):
    """The same item in two sources is the same index and the same vector; others are not."""
    first = events(item=["i1", "i2", "i1"])
    second = events(sku=["i2", "i3", "i2"], other=["i1", "i2", "i2"])
    both = [
        source(tmp_path, "buys", first, shared_entities=[{"name": "product", "columns": ["item"]}]),
        source(
            tmp_path, "views", second, shared_entities=[{"name": "product", "columns": ["sku"]}]
        ),
    ]
    _, representation, _ = fitted(both)
    fields = {(f.owner, f.column): f for f in representation.categories()}
    item, sku = fields["buys", "item"], fields["views", "sku"]
    assert item.values == sku.values == ["i2", "i1", "i3"]
    assert fields["views", "other"].values == ["i2", "i1"]
    network = network_of(representation)
    order = [(f.owner, f.column) for f in representation.categories()]
    tables = network.events.tables
    assert tables[order.index(("buys", "item"))] is tables[order.index(("views", "sku"))]
    assert tables[order.index(("views", "other"))] is not tables[order.index(("buys", "item"))]
    other = network_of(representation)
    other.load_state_dict(network.state_dict())


def test_columns_that_do_not_exist_are_named(tmp_path):
    """Overrides and shared entities of unknown columns are errors with the nearest name."""
    for more in (
        {"column_type_overrides": {"knd": "categorical"}},
        {"shared_entities": [{"name": "s", "columns": ["knd"]}]},
    ):
        with pytest.raises(DataError, match="did you mean `kind`"):
            fitted([source(tmp_path, "e", events(), **more)])


def test_images_are_refused_with_the_way_in(tmp_path):
    """An image override says to give embeddings."""
    with pytest.raises(NotBuiltError, match="embedding"):
        fitted([source(tmp_path, "e", events(), column_type_overrides={"kind": "image"})])
    with pytest.raises(ConfigError, match="did you mean `embedding`"):
        fitted([source(tmp_path, "e", events(), column_type_overrides={"kind": "embeding"})])
