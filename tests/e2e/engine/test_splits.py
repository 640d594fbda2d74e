"""How entities and times are split for validation, and what is refused."""

import logging

import numpy as np
import pytest

from monad.config.loading import load_config, parse_config
from monad.data.cache import open_store
from monad.data.split_query import held_out_entities
from monad.errors import ConfigError, DataError
from tests.unit.engine.sample import shop_config, write_config, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop on disk."""
    return write_shop(tmp_path_factory.mktemp("splits"), customers=40)


def held(shop, tmp_path, **split):
    """Names of the entities that a split holds out."""
    values = shop_config(shop)
    values["data_params"]["split"] = split
    config = load_config(write_config(tmp_path, values))
    store, _ = open_store(config, None)
    return set(np.array(store.entity_ids)[held_out_entities(config, store)])


def test_a_percentage_is_stable_and_about_right(shop, tmp_path):
    """The same entities each time; more percent hold out these and more."""
    some, more = held(shop, tmp_path, percentage=20), held(shop, tmp_path, percentage=60)
    assert some == held(shop, tmp_path, percentage=20)
    assert some < more
    assert 2 <= len(some) <= 16
    assert held(shop, tmp_path, percentage=0) == set()


def test_a_query_holds_out_its_ids(shop, tmp_path):
    """The query sees every source by its name; its first column holds the ids."""
    query = "SELECT customer_id FROM customers WHERE club = 'gold' AND customer_id < 'c010'"
    assert held(shop, tmp_path, query=query) == {f"c00{i}" for i in (0, 2, 4, 6, 8)}


def test_a_file_holds_out_its_ids(shop, tmp_path):
    """One id a line; unknown ids do no harm."""
    file = tmp_path / "ids.txt"
    file.write_text("c001\n\nc005\nnobody\n")
    assert held(shop, tmp_path, file=str(file)) == {"c001", "c005"}


@pytest.mark.parametrize(
    ("split", "error", "text"),
    [
        ({"query": "SELECT customer_id FROM clients"}, DataError, "split.query failed"),
        ({"query": "SELECT 'x'"}, DataError, "holds out no main entity"),
        ({"query": "SELECT customer_id FROM transactions"}, DataError, "every main entity"),
        ({"file": "nowhere.txt"}, ConfigError, "does not exist"),
        ({"file": "a", "query": "b"}, ConfigError, "query and file are mutually exclusive"),
        ({"percentage": 5, "file": "a"}, ConfigError, "percentage and file are mutually"),
        ({"percentage": 100}, ConfigError, "from 0 to below 100"),
        ({"percentage": "ten"}, ConfigError, "must be a number"),
    ],
)
def test_unusable_splits_are_refused(shop, tmp_path, split, error, text):
    """What cannot be split is said, with what was observed."""
    with pytest.raises(error, match=text):
        held(shop, tmp_path, **split)


def test_a_time_split_beside_an_entity_split_warns(shop, caplog):
    """With validation_start_date scenarios are split by time, and the entity split says so."""
    values = shop_config(shop)
    values["data_params"] |= {"split": {"percentage": 5}, "validation_start_date": "2020-07-29"}
    with caplog.at_level(logging.WARNING, "monad"):
        parse_config(values)
    assert "split has no effect on scenarios" in caplog.text


def test_dates_out_of_order_are_refused(shop):
    """A range that ends before it starts is named by its keys."""
    values = shop_config(shop)
    values["data_params"]["test_end_date"] = "2020-07-01"
    with pytest.raises(ConfigError, match="test_end_date lies before test_start_date"):
        parse_config(values)
