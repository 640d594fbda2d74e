"""The network's shortcuts give what its full computation gives."""

import numpy as np
import pytest
import torch

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.model.network import Network, Size
from tests.unit.engine.sample import shop_config, write_shop


@pytest.mark.parametrize("layers", [1, 3])
def test_a_summary_needs_only_the_last_event_of_the_last_layer(tmp_path, layers):
    """`summarize` agrees with `forward` in value and gradient, for rows without history too."""
    store, plans = build_store(parse_config(shop_config(write_shop(tmp_path))), None)
    limits = MemoryConstrainingParams()
    representation = fit_representation(store, plans, store.last_time, limits, seed=0)
    torch.manual_seed(0)
    network = Network(representation, Size(16, layers, 2, 32, max_events=16)).eval()
    everyone = np.arange(store.num_entities)
    stamps = np.linspace(store.first_time - 1, store.last_time, len(everyone)).astype(np.int64)
    batch = RowReader(store, representation, 16).read(everyone, stamps)
    assert int(batch["length"].min()) == 0
    full, short = network(batch)[1], network.summarize(batch)
    torch.testing.assert_close(short, full)
    weights = list(network.blocks.parameters())
    expected = torch.autograd.grad(full.square().sum(), weights)
    found = torch.autograd.grad(short.square().sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
