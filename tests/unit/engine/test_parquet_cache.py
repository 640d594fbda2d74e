"""The cache of a Parquet source: used while nothing changed, made anew when anything did."""

import logging

import numpy as np
import pyarrow.parquet as pq
import pytest

from monad.config.loading import parse_config
from monad.data.ingest import build_store
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture
def shop(tmp_path):
    """A small shop."""
    return write_shop(tmp_path / "shop", customers=12)


def read(shop, cache, caplog, **more):
    """Read the shop; returns the store and whether the transactions came from the cache."""
    values = shop_config(shop)
    values["data_sources"][0]["data_location"]["connection_params"]["cache_path"] = str(cache)
    values["data_sources"][0] |= more
    caplog.clear()
    with caplog.at_level(logging.INFO, "monad"):
        store, _ = build_store(parse_config(values), None)
    return store, "from the cache" in caplog.text


def test_the_second_reading_comes_from_the_cache_and_is_the_same(shop, tmp_path, caplog):
    """Columns, order, computed columns and joins are those of the first reading."""
    first, cached = read(shop, tmp_path / "cache", caplog)
    assert not cached
    second, cached = read(shop, tmp_path / "cache", caplog)
    assert cached
    assert first.tables[0].column_names() == second.tables[0].column_names()
    assert np.array_equal(first.tables[0].times, second.tables[0].times)
    for name in first.tables[0].column_names():
        one, two = (s.tables[0].values(name, slice(None)) for s in (first, second))
        assert one.tolist() == two.tolist()


def test_changed_files_and_settings_are_read_anew(shop, tmp_path, caplog):
    """Another filter, or other rows in the file, are not served from the old cache."""
    first, _ = read(shop, tmp_path / "cache", caplog)
    some, cached = read(shop, tmp_path / "cache", caplog, where_condition="price < 10")
    assert not cached
    assert len(some.tables[0]) < len(first.tables[0])
    table = pq.read_table(shop / "transactions.parquet")
    pq.write_table(table.slice(0, 50), shop / "transactions.parquet")
    fewer, cached = read(shop, tmp_path / "cache", caplog)
    assert not cached
    assert len(fewer.tables[0]) == 50


def test_a_damaged_cache_is_made_anew(shop, tmp_path, caplog):
    """A file that is no database is said, replaced, and used the next time."""
    read(shop, tmp_path / "cache", caplog)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"garbage" * 1000)
    store, cached = read(shop, tmp_path / "cache", caplog)
    assert not cached
    assert "cannot be read, so it is made anew" in caplog.text
    assert len(store.tables[0]) > 0
    assert read(shop, tmp_path / "cache", caplog)[1]


def test_a_cache_that_cannot_be_written_does_no_harm(shop, tmp_path, caplog):
    """Where the folder is a file, the log says so and the data is read."""
    (tmp_path / "cache").write_text("in the way")
    store, cached = read(shop, tmp_path / "cache", caplog)
    assert not cached
    assert "cannot be written" in caplog.text
    assert len(store.tables[0]) > 0
