"""What a time budget adapts to device and data, and what it leaves as it was given."""

import logging

import pytest

from monad.config.loading import parse_config
from monad.config.params import TrainingParams
from monad.training.settings import Shape, history_rate, network_size, settings

LONG = Shape(events=1_000_000, mean_length=165.0, long_length=400.0, items=3_416)
SHORT = Shape(events=200_000, mean_length=9.0, long_length=14.0, items=12_101)


def config(**limits):
    """Return a configuration of one source."""
    return parse_config(
        {
            "data_sources": [
                {
                    "type": "event",
                    "name": "events",
                    "main_entity_column": "user",
                    "date_column": {"name": "time"},
                    "data_location": {
                        "database_type": "parquet",
                        "connection_params": {"path": "events.parquet"},
                        "table_name": "events",
                    },
                }
            ],
            "data_params": {"data_start_date": "2020-01-01"},
            "memory_constraining_params": limits,
        }
    )


@pytest.mark.parametrize(
    ("gpu", "shape", "expected"),
    [
        (False, LONG, (64, 2, 2, 0.2, 200)),
        (False, SHORT, (64, 1, 2, 0.5, 16)),
        (True, LONG, (256, 4, 4, 0.4, 256)),
        (True, SHORT, (128, 2, 2, 0.5, 16)),
    ],
)
def test_size_follows_device_and_data(gpu, shape, expected):
    """Long histories get depth and a long window, short and few ones less of both."""
    size = network_size(config(), gpu, shape, adapts=True)
    assert (size.width, size.layers, size.heads, size.dropout, size.max_events) == expected


def test_given_sizes_are_honoured_exactly():
    """A width, depth, number of heads or window in the configuration stays as it is."""
    given = config(hidden_dim=96, num_layers=3, num_heads=6, max_history_events=40)
    size = network_size(given, True, SHORT, adapts=True)
    assert (size.width, size.layers, size.heads, size.max_events) == (96, 3, 6, 40)


def test_without_a_budget_data_do_not_matter():
    """The sizes of a device are the same for all data when nothing adapts."""
    assert network_size(config(), True, SHORT, False) == network_size(config(), True, LONG, False)


def test_few_events_allow_a_higher_rate():
    """Rates are higher where there are few events, on either device."""
    few = Shape(events=100_000, mean_length=100.0, long_length=200.0, items=1_600)
    for gpu in (False, True):
        assert history_rate(gpu, few) > history_rate(gpu, LONG)


def test_a_given_rate_is_honoured_and_the_choice_is_logged(caplog):
    """A learning rate of the user's stays, and the log says what the budget chose."""
    params = TrainingParams(time_budget_seconds=60, learning_rate=7e-4, accelerator="cpu")
    with caplog.at_level(logging.INFO):
        chosen = settings(config(), params, 3e-3, logging.getLogger("test"), SHORT)
    assert chosen.learning_rate == 7e-4
    assert "Time budget 60 s on cpu: learning rate 0.0007" in caplog.text
