"""The aggregates: causal, many, and right on a log that can be counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from bench.evaluation.aggregates import aggregate
from bench.evaluation.events import DAY
from tests.unit.evaluation.logs import START, made_log, tiny_log

pytest.importorskip("pandas")


def column(found, name):
    """Return one column by name."""
    return found.values[:, found.names.index(name)]


def test_aggregates_by_hand():
    """Counts, sums, recency and gaps of a small log."""
    found = aggregate(tiny_log(), np.array([0, 1, 2]), START + 9 * DAY)
    assert column(found, "lines_30").tolist() == [2, 1, 1]
    assert column(found, "amount_7").tolist() == [4, 2, 8]
    assert column(found, "items_30").tolist() == [1, 1, 1]
    assert column(found, "recency").tolist() == [0, 4, 0]
    assert column(found, "gap_mean")[0] == 8
    assert np.isnan(column(found, "gap_mean")[1])


def test_at_least_two_hundred_columns():
    """The peer has as many columns as it was promised."""
    found = aggregate(made_log(), np.arange(10), START + 100 * DAY)
    assert found.values.shape[1] >= 200
    assert len(set(found.names)) == len(found.names)


def test_future_has_no_effect():
    """Events after the timestamp, however wild, change no column."""
    log, cutoff = made_log(), START + 120 * DAY
    after = log.time > cutoff
    planted = replace(
        log, amount=np.where(after, 1e9, log.amount), item=np.where(after, 1, log.item)
    )
    who = np.unique(log.entity[~after])
    np.testing.assert_array_equal(
        aggregate(log, who, cutoff).values, aggregate(planted, who, cutoff).values
    )


def test_names_do_not_depend_on_the_timestamp():
    """With one vocabulary, rows of different timestamps can be stacked."""
    log = made_log()
    names = [aggregate(log, np.arange(5), START + days * DAY, log).names for days in (100, 200)]
    assert names[0] == names[1]


def test_entity_without_history_has_a_row():
    """An entity with no event up to the timestamp gets zeros and missing values."""
    found = aggregate(tiny_log(), np.array([0, 2]), START + 2 * DAY)
    assert column(found, "lines_365").tolist() == [1, 0]
    assert np.isnan(column(found, "recency")[1])
