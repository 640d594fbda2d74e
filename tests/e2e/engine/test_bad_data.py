"""Tables as people have them: each oddity has a clear error or a documented behaviour."""

import datetime as dt
import gzip
import logging
import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.config.loading import parse_config
from monad.config.time_range import to_timestamp
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.errors import DataError, TargetFunctionError
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    RecommendationTask,
    load_from_checkpoint,
    load_from_foundation_model,
)
from tests.unit.engine.sample import location, shop_config, write_config, write_shop

FIRST = dt.datetime(2020, 1, 1)
SMALL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 1, "max_history_events": 16}


def configured(directory, table, **more):
    """Write one event table and return its configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), directory / "events.parquet")
    source = {
        "type": "event",
        "name": "events",
        "main_entity_column": "id",
        "date_column": {"name": "at"},
        "data_location": location(directory / "events.parquet"),
        **more,
    }
    return {
        "data_sources": [source],
        "data_params": {"data_start_date": "2020-01-01"},
        "training_params": {"accelerator": "cpu", "epochs": 1},
        "memory_constraining_params": SMALL,
    }


def stored(values):
    """The store of a configuration."""
    return build_store(parse_config(values), None)[0]


def days(numbers):
    """Timestamps, days after the first."""
    return [FIRST + dt.timedelta(days=float(n)) for n in numbers]


def returns(history, future, attributes, ctx):
    """Whether the entity comes back."""
    return np.array([float(future["events"].count() > 0)], dtype=np.float32)


def run(directory, values, function=returns, task=None):
    """Pretrain, fine-tune and predict; returns the scores by entity."""
    pretrain(write_config(directory, values), directory / "fm")
    module = load_from_foundation_model(
        directory / "fm", task or BinaryClassificationTask(), function
    )
    module.fit(TrainingParams(checkpoint_dir=directory / "c", epochs=1, limit_train_batches=3))
    file = directory / "p" / "predictions.tsv"
    loaded = load_from_checkpoint(directory / "c")
    loaded.predict(TestingParams(output_type="decoded", local_save_location=file))
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:]]
    return {row[0]: row[1:] for row in rows}


def test_ugly_columns_and_a_long_history_train_and_predict(tmp_path, caplog):
    """Nulls, constants, NaN, infinities, huge numbers, odd text and 10,000 events end finite."""
    random = np.random.default_rng(0)
    sizes = [10_000, *([6] * 60)]
    who = np.repeat([f"e{i}" for i in range(61)], sizes)
    n = len(who)
    numbers = random.normal(size=n)
    numbers[::7], numbers[1::11], numbers[2::13] = np.nan, np.inf, -np.inf
    numbers[5], numbers[6] = 1e300, -1e300
    table = {
        "id": who,
        "at": days(random.random(n) * 300),
        "nothing": pa.nulls(n, pa.string()),
        "always": ["same"] * n,
        "number": numbers,
        "only_nan": [float("nan")] * n,
        "text": random.choice(
            ["", " ", "tab\there", "line\nbreak", "\u00fc\u4e2d", "None"], n
        ).tolist(),
        "flag": (random.random(n) < 0.5).tolist(),
    }
    with caplog.at_level(logging.INFO, "monad"):
        scores = run(tmp_path, configured(tmp_path, table))
    assert len(scores) == 61
    assert all(0 <= float(row[0]) <= 1 for row in scores.values())
    for name, reason in (
        ("nothing", "no value in the training range"),
        ("always", "one value only"),
    ):
        assert f"Column events.{name} is not a model input: {reason}" in caplog.text
    weights = torch.load(tmp_path / "c" / "best_model.ckpt", weights_only=True)["network"]
    assert all(torch.isfinite(w.float()).all() for w in weights.values())


def test_a_column_of_nan_only_is_no_input(tmp_path):
    """A number column without any finite value does not reach the network."""
    table = {
        "id": ["a", "a", "b"],
        "at": days([0, 1, 2]),
        "kind": ["x", "y", "x"],
        "bad": [float("nan"), float("inf"), float("-inf")],
    }
    config = parse_config(configured(tmp_path, table))
    store, plans = build_store(config, None)
    representation = fit_representation(
        store, plans, store.last_time, config.memory_constraining_params, 0
    )
    batch = RowReader(store, representation, 4).read(np.array([0]), np.array([store.last_time]))
    assert np.isnan(store.tables[0].values("bad", slice(0, 3))).all()
    assert torch.isfinite(batch["aggregates"]).all()


@pytest.mark.parametrize("kind", ["no rows", "filtered", "too early", "no ids"])
def test_tables_without_usable_rows_say_why(tmp_path, kind):
    """An empty table, filter or range names the source, what was seen and what to check."""
    table = {"id": ["a", "b"], "at": days([0, 1]), "kind": ["x", "y"]}
    more, text = {}, "has no usable row"
    if kind == "no rows":
        table = {name: pa.array(values).slice(0, 0) for name, values in table.items()}
        text = "is empty"
    elif kind == "filtered":
        more, text = {"where_condition": "kind = 'z'"}, "is empty.*where kind = 'z'"
    elif kind == "no ids":
        table["id"] = pa.nulls(2, pa.string())
    values = configured(tmp_path, table, **more)
    if kind == "too early":
        values["data_params"]["data_start_date"] = "2021-01-01"
    with pytest.raises(DataError, match=text) as caught:
        stored(values)
    assert "events" in str(caught.value)


def test_one_event_each_trains_on_what_there_is(tmp_path):
    """Entities with a single event have nothing to predict; the run ends with predictions."""
    random = np.random.default_rng(1)
    table = {
        "id": [f"e{i}" for i in range(30)],
        "at": days(range(30)),
        "kind": random.choice(list("abc"), 30).tolist(),
    }
    scores = run(tmp_path, configured(tmp_path, table))
    assert len(scores) == 30
    assert all(np.isfinite(float(row[0])) for row in scores.values())


def test_duplicate_and_unordered_rows_are_sorted_and_kept(tmp_path):
    """Rows in any order are sorted by time; equal rows are as many events."""
    table = {
        "id": ["a", "b", "a", "a", "a"],
        "at": days([5, 1, 2, 5, 0]),
        "kind": ["x", "y", "z", "x", "w"],
    }
    found = stored(configured(tmp_path, table)).tables[0]
    assert np.diff(found.offsets).tolist() == [4, 1]
    assert found.values("kind", slice(0, 4)).tolist() == ["w", "z", "x", "x"]
    assert (np.diff(found.times[:4]) >= 0).all()


@pytest.mark.parametrize("as_text", [True, False])
def test_time_zones_become_utc(tmp_path, as_text):
    """The same instant written in three zones is one time; text without a zone is UTC."""
    text = ["2020-01-02 12:00:00+00:00", "2020-01-02 14:00:00+02:00", "2020-01-02 07:00:00-05:00"]
    column = text
    if not as_text:
        zone = pa.timestamp("us", tz="America/New_York")
        column = pa.array([dt.datetime.fromisoformat(x) for x in text], type=zone)
    table = {"id": ["a", "a", "a"], "at": column, "kind": ["x", "y", "z"]}
    found = stored(configured(tmp_path, table)).tables[0]
    assert found.times.tolist() == [to_timestamp("2020-01-02") + 12 * 3600] * 3


def test_unreadable_dates_are_counted(tmp_path, caplog):
    """Rows without a readable date are left out, and the log says how many."""
    table = {
        "id": ["a"] * 4,
        "at": ["2020-01-05", "soon", None, "2020-01-06"],
        "kind": ["x", "y", "z", "x"],
    }
    with caplog.at_level(logging.INFO, "monad"):
        found = stored(configured(tmp_path, table)).tables[0]
    assert len(found) == 2
    assert "2 of 4 rows left out" in caplog.text


def test_a_table_without_any_input_column_is_refused(tmp_path):
    """Ids and dates alone cannot be modelled, and the error says so."""
    table = {"id": ["a", "b"], "at": days([0, 1]), "same": ["x", "x"]}
    values = configured(tmp_path, table)
    with pytest.raises(DataError, match="No column can be modelled"):
        pretrain(write_config(tmp_path, values), tmp_path / "fm")
    assert not (tmp_path / "fm").exists() or not any((tmp_path / "fm").iterdir())


def test_a_million_categories_fit_in_a_bounded_table(tmp_path):
    """The vocabulary is capped; all other values share hashed rows and still differ from missing."""
    n = 1_000_000
    codes = np.concatenate([np.arange(n), np.arange(60_000)])
    table = {
        "id": pa.array((np.arange(len(codes)) % 997).astype(str)),
        "at": pa.array((np.arange(len(codes)) % 300) * 86_400 + to_timestamp("2020-01-01")),
        "item": pa.array(codes).cast(pa.string()),
    }
    values = configured(tmp_path, table, column_type_overrides={"item": "categorical_compressed"})
    values["memory_constraining_params"] = {**SMALL, "max_vocabulary": 50_000}
    config = parse_config(values)
    store, plans = build_store(config, None)
    representation = fit_representation(
        store, plans, store.last_time, config.memory_constraining_params, 0
    )
    (field,) = representation.categories()
    assert len(store.tables[0].column("item").distinct) == n
    assert len(field.values) == 50_000
    assert field.size == 2 + 50_000 + field.buckets
    kept = field.lookup(store.tables[0].column("item").distinct[:100_000])
    assert kept[:-1].min() >= 2
    assert kept.max() < field.size
    assert set(field.values) <= {str(x) for x in range(60_000)}  # the values that occur twice


def test_unseen_categories_score_without_an_error(tmp_path):
    """A value that training never saw is read as an unknown one of its column."""
    directory = write_shop(tmp_path, customers=20)
    values = shop_config(directory, epochs=1)
    pretrain(write_config(directory, values), directory / "fm")
    module = load_from_foundation_model(directory / "fm", RecommendationTask(), _next)
    module.fit(TrainingParams(checkpoint_dir=directory / "c", epochs=1, limit_train_batches=2))
    table = pq.read_table(directory / "transactions.parquet").to_pydict()
    table["customer_id"] += ["c001", "fresh"]
    table["t_dat"] += [dt.date(2020, 8, 26)] * 2
    table["article_id"] += [9_999, 9_999]
    table["price"] += [5.0, 5.0]
    table["channel"] += [77, 77]
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    file = directory / "p" / "predictions.tsv"
    loaded = load_from_checkpoint(directory / "c")
    loaded.predict(TestingParams(output_type="decoded", top_k=3, local_save_location=file))
    rows = {r[0]: r[1:] for r in (x.split("\t") for x in file.read_text().splitlines()[1:])}
    assert "9999" not in {item for row in rows.values() for item in row[:3]}
    assert len(rows["fresh"]) == 6


def _next(history, future, attributes, ctx):
    from monad.targets import sketch

    items = future["transactions"]["article_id"]
    return sketch(items) if len(items) else None


def _strings(history, future, attributes, ctx):
    return np.array(["yes"])


def _half(history, future, attributes, ctx):
    return np.array([0.5])


def _nan(history, future, attributes, ctx):
    return np.array([np.nan])


def _dictionary(history, future, attributes, ctx):
    return {"target": 1.0}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (_strings, "array of numbers"),
        (_half, "zeros and ones"),
        (_nan, "returned None for every row"),
        (_dictionary, "array of numbers"),
        (_next, "an array"),
    ],
)
def test_unusable_targets_are_shown(tmp_path_factory, function, text):
    """What came back is shown beside what the task needs; not-a-number leaves the row out."""
    directory = tmp_path_factory.mktemp("targets")
    write_shop(directory, customers=12)
    pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
    module = load_from_foundation_model(directory / "fm", BinaryClassificationTask(), function)
    with pytest.raises(TargetFunctionError, match=text):
        module.fit(TrainingParams(epochs=1))


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "events.tsv"])
def test_a_text_file_where_parquet_is_read_is_an_error_with_the_way_out(tmp_path, name):
    """The error says how the file becomes Parquet, and that works."""
    lines = ["id,at,item", *(f"a,{1_577_900_000 + i},{i}" for i in range(30))]
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    values = configured(tmp_path / "unused", {"id": ["a"]}, data_location=location(tmp_path / name))
    with pytest.raises(DataError, match="reads Parquet only") as caught:
        stored(values)
    call = re.findall(r"duckdb\.sql\(\"(.*?)\"\)", str(caught.value))[0]
    duckdb.sql(call)
    values["data_sources"][0]["data_location"] = location(tmp_path / "events.parquet")
    assert stored(values).tables[0].values("item", slice(0, 30)).tolist() == list(range(30))
