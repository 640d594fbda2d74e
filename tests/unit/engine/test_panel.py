"""The aggregates' branch: what training leaves out at random must not change how large sums are."""

import numpy as np
import pytest
import torch
from torch import nn

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.model.build import build_head
from monad.model.network import Network, Size
from monad.model.panel import Panel
from monad.tasks import BinaryClassificationTask, RegressionTask
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture
def reader(tmp_path):
    store, plans = build_store(parse_config(shop_config(write_shop(tmp_path))), None)
    limits = MemoryConstrainingParams()
    representation = fit_representation(store, plans, store.last_time, limits, seed=0)
    return RowReader(store, representation, 16)


def test_inputs_left_out_in_training_keep_their_expectation():
    """The mean of many draws in training is what is read outside of it, so scores are not too sure."""
    torch.manual_seed(0)
    panel = Panel([0.0] * 6, [1.0] * 6, width=4, dropout=0.25)
    panel.layers, panel.scales = nn.ModuleList(), nn.ParameterList()  # what the first layer reads
    row = torch.tensor([[1.0, -2.0, 0.5, 3.0, -1.0, 2.0]])
    panel.train()
    drawn = panel(row.expand(40_000, 6))
    assert (drawn == 0).float().mean().sub(0.25).abs() < 0.01
    torch.testing.assert_close(drawn.mean(0), panel.eval()(row)[0], rtol=0.02, atol=0.02)


def test_the_head_decides_how_far_inputs_reach_outside_of_training(reader):
    """Amounts read inputs a third larger; training and what the branch foresees do not change."""
    network = Network(reader.representation, Size(16, 1, 2, 32, max_events=16)).eval()
    everyone = np.arange(reader.store.num_entities)
    rows = reader.aggregates.read(everyone, np.full(len(everyone), reader.store.last_time))
    inputs = torch.from_numpy(rows)
    plain, foreseen = network.panel(inputs), network.panel.foresee(rows)
    build_head(RegressionTask(), network, None, False)
    assert not torch.equal(network.panel(inputs), plain)
    np.testing.assert_array_equal(network.panel.foresee(rows), foreseen)
    for seed in (0, 1):
        torch.manual_seed(seed)
        trained = network.panel.train()(inputs)
        build_head(BinaryClassificationTask(), network, None, False)
        torch.manual_seed(seed)
        assert torch.equal(network.panel.train()(inputs), trained)
    assert torch.equal(network.panel.eval()(inputs), plain)
