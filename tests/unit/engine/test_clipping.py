"""Gradients are clipped by the module itself."""

import torch

from monad.training.budget import BudgetModule
from monad.training.streams import Plan


def test_gradients_are_clipped_by_norm():
    """A gradient longer than the limit is shortened to it; without a limit it stays."""
    plan = Plan(1, 1, 1e-3, deadline=None, started=0.0, label="")
    module = BudgetModule(plan, None)  # type: ignore[arg-type]
    module.weight = torch.nn.Parameter(torch.zeros(4))
    module.weight.grad = torch.full((4,), 10.0)
    module.configure_gradient_clipping(None, None)  # type: ignore[arg-type]
    assert float(module.weight.grad.norm()) == 20.0
    module.configure_gradient_clipping(None, 1.0)  # type: ignore[arg-type]
    torch.testing.assert_close(module.weight.grad.norm(), torch.tensor(1.0), atol=1e-3, rtol=0)
