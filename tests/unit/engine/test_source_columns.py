"""Which columns of a source are read: lists, computed columns and overrides in odd combinations."""

import logging

import duckdb
import pyarrow.parquet as pq
import pytest

from monad.config.loading import parse_config
from monad.data.ingest import build_store
from monad.data.suggested import suggested_config
from monad.errors import ConfigError, DataError
from monad.training.foundation import shared_columns, warn_of_shared
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The shop's tables."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def values(directory):
    """A valid configuration of the shop without computed columns."""
    made = shop_config(directory)
    made["data_sources"][0]["sql_lambdas"] = []
    return made


def columns(values, **changes) -> list[str]:
    """Names of the event columns that are read after changes of the event source."""
    values["data_sources"][0].update(changes)
    return build_store(parse_config(values), None)[0].tables[0].column_names()


TWICE = {"alias": "twice", "expression": "price * 2"}
FOUR = {"alias": "four", "expression": "twice * 2"}


def test_lists_may_name_computed_columns(values):
    """An allowed computed column is no unknown one; a disallowed one is not read."""
    found = columns(values, allowed_columns=["price", "twice"], sql_lambdas=[TWICE])
    assert found == ["article_id", "price", "twice", "kind"]  # the join's key stays
    del values["data_sources"][0]["allowed_columns"]
    assert "twice" not in columns(values, disallowed_columns=["twice"], sql_lambdas=[TWICE])


def test_a_disallowed_computed_column_can_still_be_computed_with(values):
    """Another computed column may refer to it."""
    found = columns(values, disallowed_columns=["twice"], sql_lambdas=[TWICE, FOUR])
    assert "four" in found
    assert "twice" not in found


def test_a_computed_column_does_not_hide_behind_a_column_of_its_name(values, directory):
    """The same name twice is an error; with the table's column disallowed it takes its place."""
    half = {"alias": "PRICE", "expression": "price / 2"}
    with pytest.raises(DataError, match="alias `PRICE` is a column's name"):
        columns(values, sql_lambdas=[half])
    values["data_sources"][0]["disallowed_columns"] = ["price"]
    table = build_store(parse_config(values), None)[0].tables[0]
    whole = sum(pq.read_table(directory / "transactions.parquet")["price"].to_pylist())
    assert table.values("price", slice(None)).sum() == pytest.approx(whole / 2)


def test_the_suggested_configuration_can_be_used(values):
    """What is suggested reads, also where computed and calendar columns are left out."""
    articles = values["data_sources"][1]
    articles["column_type_overrides"] = {}
    values["data_sources"][0] |= {
        "sql_lambdas": [
            {"alias": "one", "expression": "1"},
            {"alias": "empty", "expression": "CASE WHEN one > 1 THEN 1 END"},
        ],
    }
    config = parse_config(values)
    made = suggested_config(config, build_store(config, None)[1])
    assert made["data_sources"][0]["disallowed_columns"] == ["one", "empty"]
    again = parse_config(made)
    assert "one" not in build_store(again, None)[0].tables[0].column_names()


def test_a_constant_calendar_column_can_be_left_out(values, directory, tmp_path):
    """A year that never changes is suggested to be left out, and that is accepted."""
    path = tmp_path / "dated.parquet"
    source = directory / "transactions.parquet"
    duckdb.sql(
        f"COPY (SELECT *, t_dat - INTERVAL 1 DAY AS shipped FROM '{source}'"
        f" WHERE t_dat > '2020-02-01') TO '{path}'"
    )
    values["data_sources"][0]["data_location"]["connection_params"]["path"] = str(path)
    values["data_sources"][0]["column_type_overrides"] = {"shipped": "date"}
    config = parse_config(values)
    made = suggested_config(config, build_store(config, None)[1])
    assert "shipped.year" in made["data_sources"][0]["disallowed_columns"]
    found = build_store(parse_config(made), None)[0].tables[0].column_names()
    assert "shipped.year" not in found
    assert "shipped.month" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"disallowed_columns": ["price"], "column_type_overrides": {"price": "categorical"}},
            "column_type_overrides of price has no effect: the column is not read",
        ),
        (
            {"allowed_columns": ["channel"], "column_type_overrides": {"PRICE": "categorical"}},
            "column_type_overrides of PRICE has no effect: the column is not read",
        ),
        ({"column_type_overrides": {"t_dat": "date"}}, "the time of an event are no model inputs"),
        (
            {
                "column_type_overrides": {"next": "date"},
                "sql_lambdas": [{"alias": "next", "expression": "t_dat + INTERVAL 1 DAY"}],
            },
            "a computed column cannot be of type date",
        ),
    ],
)
def test_an_override_without_effect_warns(values, caplog, change, message):
    """An override of what the network does not get says so, once."""
    with caplog.at_level(logging.WARNING, "monad"):
        columns(values, **change)
    assert caplog.text.count(message) == 1


def test_a_setting_that_duckdb_does_not_have_is_named(values):
    """A misspelt `config_overrides` is an error of the configuration with DuckDB's hint."""
    place = values["data_sources"][0]["data_location"]["connection_params"]
    place["config_overrides"] = {"threads": 1, "max_memori": "1GB"}
    with pytest.raises(ConfigError, match=r"config_overrides.max_memori(.|\n)*max_memory"):
        columns(values)


def test_shared_entities_that_share_nothing_warn(values, caplog):
    """A column of numbers cannot be shared, and one column alone shares nothing."""
    values["data_sources"][0]["shared_entities"] = [
        {"name": "amount", "columns": ["price"]},
        {"name": "product", "columns": ["article_id"]},
    ]
    config = parse_config(values)
    plans = build_store(config, None)[1]
    with caplog.at_level(logging.WARNING, "monad"):
        warn_of_shared(shared_columns(config), plans)
    assert "`amount` has no effect on column transactions.price, which is decimal" in caplog.text
    assert "`product` has no effect: it names one column only" in caplog.text


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("pattern", [None, "%s"])
def test_numeric_times_are_seconds_or_parts_of_them(values, directory, tmp_path, unit, pattern):
    """Seconds, milliseconds, microseconds and nanoseconds since 1970 are told by their size."""
    path, source = tmp_path / "numbers.parquet", directory / "transactions.parquet"
    duckdb.sql(
        f"COPY (SELECT * REPLACE (CAST(epoch(t_dat) * {unit} AS BIGINT) AS t_dat)"
        f" FROM '{source}') TO '{path}'"
    )
    wanted = build_store(parse_config(values), None)[0].tables[0].times
    values["data_sources"][0]["data_location"]["connection_params"]["path"] = str(path)
    values["data_sources"][0]["date_column"] = {"name": "t_dat", "format": pattern}
    assert build_store(parse_config(values), None)[0].tables[0].times.tolist() == wanted.tolist()


def test_a_date_format_that_cannot_be_read_is_named(values, directory, tmp_path):
    """The error of an unknown directive points to the format."""
    path, source = tmp_path / "text.parquet", directory / "transactions.parquet"
    duckdb.sql(f"COPY (SELECT * REPLACE (t_dat::VARCHAR AS t_dat) FROM '{source}') TO '{path}'")
    values["data_sources"][0]["data_location"]["connection_params"]["path"] = str(path)
    values["data_sources"][0]["date_column"]["format"] = "%Q"
    with pytest.raises(DataError, match=r"%Q(.|\n)*date_column\.format"):
        columns(values)
