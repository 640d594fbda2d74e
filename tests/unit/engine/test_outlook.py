"""The aggregates' branch learns what follows a split point, from the training range alone."""

import numpy as np
import pytest
import torch

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.config.time_range import DAY_SECONDS
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.outlook import OUTLOOK_DAYS, outlook
from monad.data.representation import fit_representation
from monad.model.network import Network, Size
from monad.training.outlook import pretrain_panel
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> RowReader:
    """A reader of the made shop."""
    shop = write_shop(tmp_path_factory.mktemp("shop"))
    store, plans = build_store(parse_config(shop_config(shop)), None)
    limits = MemoryConstrainingParams()
    representation = fit_representation(store, plans, store.last_time, limits, seed=0)
    return RowReader(store, representation, 16)


def test_outcomes_are_what_counting_gives(reader):
    """Whether, how many and on how many days agree with counting the table's rows."""
    store = reader.store
    table, spec = store.tables[0], reader.aggregates.specs[0]
    entities = np.arange(store.num_entities)
    stamp = store.last_time - 45 * DAY_SECONDS
    stamps = np.full(len(entities), stamp)
    found, known = outlook(reader.aggregates, entities, stamps, store.last_time)
    kinds = 4 if spec.numbers else 3
    times = np.asarray(table.times)
    for place, days in enumerate(OUTLOOK_DAYS):
        assert known[:, place * kinds].all() == (days <= 45)
        inside = (times > stamp) & (times <= stamp + days * DAY_SECONDS)
        for entity in entities:
            mine = times[inside & (np.asarray(table.entities) == entity)]
            some, many, visits = found[entity, place * kinds : place * kinds + 3]
            assert some == (len(mine) > 0)
            assert many == pytest.approx(np.log1p(len(mine)), rel=1e-5)
            split_day = times[(np.asarray(table.entities) == entity) & (times <= stamp)]
            if not len(split_day) or split_day.max() // DAY_SECONDS < stamp // DAY_SECONDS:
                assert visits == pytest.approx(np.log1p(len(np.unique(mine // DAY_SECONDS))))


def test_what_comes_after_the_training_range_is_not_looked_at(reader):
    """A window that reaches past the end is not known, and holds no event from beyond it."""
    store = reader.store
    entities = np.arange(store.num_entities)
    end = store.last_time - 60 * DAY_SECONDS
    stamps = np.full(len(entities), end - 10 * DAY_SECONDS)
    found, known = outlook(reader.aggregates, entities, stamps, end)
    kinds = found.shape[1] // (len(OUTLOOK_DAYS) * len(store.tables))
    short, longer = found[:, kinds : 2 * kinds], found[:, 2 * kinds : 3 * kinds]
    assert known[:, :kinds].all()
    assert not known[:, kinds : 5 * kinds].any()
    np.testing.assert_array_equal(short, longer)  # both end where the training range does


def test_the_branch_learns_and_repeats_itself(reader):
    """The same seed gives the same weights, and the branch foresees better than the usual."""

    def trained() -> tuple[Network, float]:
        torch.manual_seed(0)
        network = Network(reader.representation, Size(16, 1, 2, 32, max_events=16))
        entities = np.arange(reader.store.num_entities)
        end = reader.store.last_time
        assert pretrain_panel(network.panel, reader, entities, end, 0, None, 60) == 60
        stamps = np.full(len(entities), end - 30 * DAY_SECONDS)
        wanted, known = outlook(reader.aggregates, entities, stamps, end)
        made = network.panel.foresee(reader.aggregates.read(entities, stamps))
        usual = np.broadcast_to(wanted.mean(0), wanted.shape)
        errors = [(((guess - wanted) ** 2) * known).sum() for guess in (made, usual)]
        return network, float(errors[0] / errors[1])

    (first, ratio), (second, _) = trained(), trained()
    for one, other in zip(first.panel.parameters(), second.panel.parameters(), strict=True):
        assert torch.equal(one, other)
    assert ratio < 1.3


def test_too_short_a_range_trains_nothing(reader):
    """Without room for the shortest window there is no row, and no step."""
    network = Network(reader.representation, Size(16, 1, 2, 32, max_events=16))
    entities, early = np.arange(reader.store.num_entities), reader.store.first_time + DAY_SECONDS
    assert pretrain_panel(network.panel, reader, entities, early, 0, None) == 0
