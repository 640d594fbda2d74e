"""The aggregates' branch: what training leaves out at random must not change how large sums are."""

import torch
from torch import nn

from monad.model.panel import Panel


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
