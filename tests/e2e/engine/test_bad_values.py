"""Dates, ids and column names in the variations that tables have them in."""

import datetime as dt
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monad.config import TestingParams, TrainingParams
from monad.config.time_range import to_timestamp
from monad.data.aggregates import AggregateReader, choose_aggregates
from monad.errors import DataError
from monad.ui import pretrain
from monad.ui.module import RegressionTask, load_from_foundation_model
from tests.e2e.engine.test_bad_data import configured, days, stored
from tests.unit.engine.sample import location, write_config

FIRST = to_timestamp("2020-01-01")


def table_of(directory, source=None, start: str = "2020-01-01", **columns: Any):
    """The store of four events of two entities with some columns replaced."""
    table = {"id": ["a", "a", "b", "b"], "at": days([0, 1, 2, 3]), "kind": ["x", "y", "x", "z"]}
    values = configured(directory, {**table, **columns}, **(source or {}))
    values["data_params"]["data_start_date"] = start
    return stored(values)


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("first", ["2020-01-01", "1951-03-04"])
def test_numbers_are_dates_in_any_unit(tmp_path, unit, first):
    """Seconds, milli-, micro- and nanoseconds since 1970, and before it, are told by their size."""
    begun = to_timestamp(first)
    at = [(begun + 60 * i) * unit for i in range(4)]
    found = table_of(tmp_path, start=first, at=at).tables[0]
    assert found.times.tolist() == [begun + 60 * i for i in range(4)]


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        ([FIRST + 0.5, float("nan"), float("inf"), FIRST + 100.0], [FIRST + 1, FIRST + 100]),
        (["infinity", "0001-01-01", "2020-01-02", "9999-12-31"], [FIRST + 86_400]),
        ([*days([0, 1, 2]), dt.datetime(9999, 12, 31)], [FIRST + 86_400 * i for i in range(3)]),
        (
            ["2020-01-02", "2020/01/03", "2020-01-04T05:06:07Z", "2020-01-05 01:00:00.5+02:00"],
            [to_timestamp(x) for x in ("2020-01-02", "2020-01-03", "2020-01-04T05:06:07")]
            + [to_timestamp("2020-01-04T23:00:01")],
        ),
    ],
)  # fmt: skip
def test_dates_that_are_none_are_left_out_and_counted(tmp_path, caplog, at, kept):
    """NaN, infinity and placeholders such as 9999-12-31 are no dates; formats may be mixed."""
    with caplog.at_level(logging.INFO, "monad"):
        found = table_of(tmp_path, at=at).tables[0]
    assert sorted(found.times.tolist()) == kept
    assert (f"{4 - len(kept)} of 4 rows left out" in caplog.text) is (len(kept) < 4)


def test_times_may_span_centuries(tmp_path):
    """Histories of two entities stay apart, however long the range of time is."""
    at = [dt.datetime(1600, 1, 1), dt.datetime(2199, 12, 31), *days([0, 1])]
    found = table_of(tmp_path, start="1500-01-01", at=at).tables[0]
    everyone = np.array([0, 1])
    assert found.position(everyone, np.full(2, to_timestamp("1700-01-01"))).tolist() == [1, 2]
    assert found.position(everyone, np.full(2, FIRST)).tolist() == [1, 3]
    assert found.position(everyone, np.full(2, 10**11)).tolist() == [2, 4]
    assert found.position(everyone, np.full(2, -(10**11))).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("at", "source", "text"),
    [
        ([True] * 4, {}, "date column `at` of data source events holds no dates.*BOOLEAN"),
        ([[1]] * 4, {}, r"holds no dates.*BIGINT\[\]"),
        (pa.nulls(4), {}, "has no usable row.*without a readable date"),
        (pa.nulls(4, pa.timestamp("us")), {}, "has no usable row.*without a readable date"),
        (["1.1.2020"] * 4, {"date_column": {"name": "at", "format": "%Q"}}, "date_column.format"),
        (["13/01/2020"] * 4, {}, r"has no usable row.*date_column\.format"),
    ],
)
def test_a_date_column_without_dates_is_an_error_that_names_it(tmp_path, at, source, text):
    """What was found is said, and which setting to look at."""
    with pytest.raises(DataError, match=f"(?s){text}"):
        table_of(tmp_path, source, at=at)


def test_whole_numbers_are_dates_by_a_format(tmp_path):
    """Days written as numbers, with decimals or without, are read by the format."""
    for kind in (int, float):
        source = {"date_column": {"name": "at", "format": "%Y%m%d"}}
        at = [kind(20200101 + i) for i in range(4)]
        found = table_of(tmp_path / kind.__name__, source, at=at).tables[0]
        assert found.times.tolist() == [FIRST + 86_400 * i for i in range(4)]


def test_an_id_is_one_id_whatever_its_type(tmp_path):
    """Ids as integers, as floats because one is missing, as decimals and as text are the same."""
    ids = {
        "floats": [7.0, 7.0, float("nan"), 12.0],
        "integers": [7, 7, None, 12],
        "decimals": pa.array([7, 7, None, 12], pa.int64()).cast(pa.decimal128(21, 2)),
        "texts": ["7", "7", None, "12"],
    }
    for kind, values in ids.items():
        assert table_of(tmp_path / kind, id=values).entity_ids.tolist() == ["12", "7"]
    odd = ["007", "7", "a\tb", "\u00fc" * 3000 + "'\n\"\\"]
    assert set(table_of(tmp_path / "odd", id=odd).entity_ids.tolist()) == set(odd)


def test_ids_of_another_type_are_joined(tmp_path):
    """An attribute table with float ids and a joined table with text keys meet integer ones."""
    people, things = tmp_path / "people.parquet", tmp_path / "things.parquet"
    pq.write_table(pa.table({"id": [1.0, 2.0, float("nan")], "age": [30.5, 40.5, 1.5]}), people)
    pq.write_table(
        pa.table({"item": ["10", "11"], "price": [1.5, 2.5], "kind": ["p", "q"]}), things
    )
    values = configured(
        tmp_path,
        {
            "id": [1, 1, 2, 2],
            "at": days([0, 1, 2, 3]),
            "item": [10.0, 11.0, None, 10.0],
            "kind": ["x", "y", "x", "z"],
        },
        joined_data_sources=[{"name": "things", "join_on": [["item", "item"]]}],
    )
    values["data_sources"] += [
        {"type": "attribute", "name": "things", "data_location": location(things)},
        {
            "type": "main_entity_attribute",
            "name": "people",
            "main_entity_column": "id",
            "data_location": location(people),
        },
    ]
    found = stored(values)
    assert found.entity_ids.tolist() == ["1", "2"]
    assert found.attributes[0].columns[0].values(slice(0, 2)).tolist() == [30.5, 40.5]
    prices = found.tables[0].values("price", slice(0, 4))
    assert prices[[0, 1, 3]].tolist() == [1.5, 2.5, 1.5]
    assert np.isnan(prices[2])
    assert found.tables[0].values("things.kind", slice(0, 2)).tolist() == ["p", "q"]


def test_integers_past_64_bits_stay_whole(tmp_path):
    """Hashes of 64 bits without a sign, and longer numbers, are text and not missing."""
    hashes = [2**64 - 1, 2**63, 1, 2]
    found = table_of(
        tmp_path,
        hash=pa.array(hashes, pa.uint64()),
        long=pa.array([10**30, 1, 2, None], pa.decimal128(38, 0)),
    ).tables[0]
    assert found.values("hash", slice(0, 4)).tolist() == [str(x) for x in hashes]
    assert found.values("long", slice(0, 4)).tolist() == [str(10**30), "1", "2", None]


def test_columns_of_any_type_and_name_are_read_or_left_out(tmp_path, caplog):
    """Nested, binary and time columns are left out with a line; odd names are names."""
    with caplog.at_level(logging.INFO, "monad"):
        found = table_of(
            tmp_path,
            **{
                "lists": [[1], [], None, [2]],
                "structs": [{"a": 1}] * 4,
                "bytes": [b"a", b"\x00", None, b"b"],
                "clock": pa.array([1, 2, 3, 4], pa.time64("us")),
                "nulls": pa.nulls(4),
                "a b.c": [1.5, 2.5, None, 4.5],
                'q"uo"te\'s': ["1", "2", "3", "1"],
                "select": pa.array(["p", "q", None, "p"]).dictionary_encode(),
                "\u00fcber": [True, False, None, True],
            },
        ).tables[0]
    assert set(found.column_names()) == {"kind", "a b.c", 'q"uo"te\'s', "select", "\u00fcber"}
    for name in ("lists", "structs", "bytes", "clock", "nulls"):
        assert f"Column events.{name} of type" in caplog.text
    assert found.values("select", slice(0, 4)).tolist() == ["p", "q", None, "p"]


@pytest.mark.parametrize("name", ["rowid", "__Time", "__entity"])
def test_reserved_column_names_are_refused(tmp_path, name):
    """A name that the scratch database needs would be mixed up with its own column."""
    numbers: dict[str, Any] = {name: [4.5, 3.5, 2.5, 1.5]}
    with pytest.raises(DataError, match=f"`{name}` of data source events has a reserved name"):
        table_of(tmp_path / "kept", **numbers)
    source = {
        "disallowed_columns": [name],
        "sql_lambdas": [{"alias": "other", "expression": f'"{name}" * 2'}],
    }
    found = table_of(tmp_path / "renamed", source, **numbers).tables[0]
    assert found.values("other", slice(0, 4)).tolist() == [9.0, 7.0, 5.0, 3.0]


def test_one_broken_number_leaves_the_others_their_digits(tmp_path):
    """A value of 1e300 in one event does not round the sums of other entities to nothing."""
    random = np.random.default_rng(0)
    n = 400
    table = {
        "id": np.repeat([f"e{i}" for i in range(40)], 10),
        "at": days(np.tile(np.arange(10), 40)),
        "kind": random.choice(list("abc"), n).tolist(),
        "number": (random.random(n) + 0.001).tolist(),
    }
    found = []
    for name in ("fine", "broken"):
        if name == "broken":
            table["number"][3] = 1e300
        store = stored(configured(tmp_path / name, table))
        reader = AggregateReader(store, choose_aggregates(store, store.last_time))
        rows = reader.read(np.arange(40), np.full(40, store.last_time))
        found.append(rows[1:, [i for i, x in enumerate(reader.names()) if "sum_number" in x]])
    assert found[0].shape[1] > 0
    assert np.ptp(found[0]) > 0
    assert np.allclose(*found, atol=1e-3)


def test_a_scenario_reads_data_that_came_to_have_hours(tmp_path):
    """Which aggregates there are is decided in training, not by rows that come later."""
    random = np.random.default_rng(0)
    n = 300
    table = {
        "id": [f"e{i}" for i in random.integers(0, 30, n)],
        "at": days(random.integers(0, 200, n)),
        "kind": random.choice(list("abc"), n).tolist(),
    }
    values = configured(tmp_path, table)
    values["data_params"]["training_end_date"] = "2020-07-20"
    pretrain(write_config(tmp_path, values), tmp_path / "fm")
    table["id"] += ["e1", "new"]
    table["at"] += [dt.datetime(2020, 7, 22, 13, 45), dt.datetime(2020, 7, 22, 3, 5)]
    table["kind"] += ["a", "never seen"]
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    module = load_from_foundation_model(tmp_path / "fm", RegressionTask(), count_later)
    module.fit(TrainingParams(epochs=1, limit_train_batches=1))
    file = tmp_path / "p" / "predictions.tsv"
    module.predict(TestingParams(output_type="decoded", local_save_location=file))
    assert len(file.read_text().splitlines()) == 1 + len(set(table["id"]))


def count_later(history, future, attributes, ctx):
    """How many events follow."""
    return [float(future["events"].count())]


def test_sources_that_never_meet_are_said(tmp_path, caplog):
    """Ids or join keys that are written differently in two tables are a warning, not a silence."""
    people, things = tmp_path / "people.parquet", tmp_path / "things.parquet"
    pq.write_table(pa.table({"id": ["A-1", "A-2"], "age": [30.5, 40.5]}), people)
    pq.write_table(pa.table({"item": ["x10", "x11"], "price": [1.5, 2.5]}), things)
    table = {"id": [1, 1, 2, 2], "at": days(range(4)), "item": [10, 11, 10, 10]}
    join = {"name": "things", "join_on": [["item", "item"]]}
    values = configured(tmp_path, table, joined_data_sources=[join])
    person = {"type": "main_entity_attribute", "name": "people", "main_entity_column": "id"}
    values["data_sources"] += [
        {"type": "attribute", "name": "things", "data_location": location(things)},
        {**person, "data_location": location(people)},
    ]
    with caplog.at_level(logging.WARNING, "monad"):
        stored(values)
    for text in (
        "Data source events has no main entity in common",
        "Data source people has no main entity in common",
        "no row of things has the key of any event",
    ):
        assert text in caplog.text
    caplog.clear()
    pq.write_table(pa.table({"id": ["1", "A-2"], "age": [30.5, 40.5]}), people)
    pq.write_table(pa.table({"item": ["10", "x11"], "price": [1.5, 2.5]}), things)
    with caplog.at_level(logging.WARNING, "monad"):
        stored(values)
    assert not caplog.text


def test_ids_with_tabs_and_line_breaks_keep_to_their_line(tmp_path, caplog):
    """The predictions file has a line for each id; that ids were changed in it is said."""
    ids = ["a\tb", "a b", "x\ny", "r\rz", "007", "7", "'q\"", " lead", "\u00fc" * 300]
    table = {
        "id": np.repeat(ids, 6),
        "at": days(np.tile(np.arange(6), len(ids))),
        "kind": ["x", "y", "z"] * 2 * len(ids),
    }
    values = configured(tmp_path, table)
    pretrain(write_config(tmp_path, values), tmp_path / "fm")
    module = load_from_foundation_model(tmp_path / "fm", RegressionTask(), count_later)
    module.fit(TrainingParams(epochs=1, limit_train_batches=1))
    file = tmp_path / "p" / "predictions.tsv"
    with caplog.at_level(logging.WARNING, "monad"):
        module.predict(TestingParams(output_type="decoded", local_save_location=file))
    lines = file.read_bytes().decode().split("\n")
    found = sorted(line.split("\t")[0] for line in lines[1:-1])
    assert found == sorted(["a b", "a b", "x y", "r z", *ids[4:]])
    assert {len(line.split("\t")) for line in lines[:-1]} == {2}
    assert "3 main entity ids hold tabs or line breaks" in caplog.text
