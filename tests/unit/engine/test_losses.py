"""The losses over large tables give what the plain ones give."""

import pytest
import torch
from torch.nn import functional

from monad.model import losses
from monad.model.losses import linear_cross_entropy, sampled_cross_entropy


@pytest.mark.parametrize("chunk", [1, 700, 1_000_000])
def test_the_chunked_loss_equals_cross_entropy(monkeypatch, chunk):
    """Value and gradients agree with plain cross entropy for any size of the chunks."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    torch.manual_seed(0)
    x, table = torch.randn(40, 8), torch.randn(70, 8)
    bias, target = torch.randn(70), torch.randint(0, 70, (40,))
    inputs = [x.requires_grad_(), table.requires_grad_(), bias.requires_grad_()]
    found = linear_cross_entropy(x, table, bias, target)
    wanted = functional.cross_entropy(x @ table.T + bias, target)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(3 * found, inputs), torch.autograd.grad(3 * wanted, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_sampled_negatives_estimate_the_full_loss():
    """With the correction of a uniform draw the sampled loss comes close to the full one."""
    torch.manual_seed(0)
    x, table = torch.randn(200, 8) * 0.5, torch.randn(400, 8) * 0.5
    bias, target = torch.zeros(400), torch.randint(2, 400, (200,))
    full = functional.cross_entropy((x @ table.T + bias)[:, 2:], target - 2)
    drawn = [sampled_cross_entropy(x, table, bias, target, 200, 2) for _ in range(50)]
    assert abs(float(torch.stack(drawn).mean()) - float(full)) < 0.05


@pytest.mark.parametrize("sampled", [False, True])
def test_positions_that_do_not_count_are_as_if_left_out(monkeypatch, sampled):
    """A loss by weight has the value and the gradients of the loss without those positions."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", 700)
    torch.manual_seed(0)
    inputs = [torch.randn(40, 8), torch.randn(70, 8), torch.randn(70)]
    inputs = [value.requires_grad_() for value in inputs]
    x, table, bias = inputs
    target, known = torch.randint(2, 70, (40,)), torch.rand(40) < 0.6

    def loss(x, target, known):
        torch.manual_seed(1)
        if sampled:
            return sampled_cross_entropy(x, table, bias, target, 20, 2, known)
        return linear_cross_entropy(x, table, bias, target, known)

    found, wanted = loss(x, target, known), loss(x[known], target[known], None)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_batch_in_which_nothing_counts_has_no_loss():
    """Rows that only fill a batch up give zero, not NaN."""
    x, table = torch.randn(4, 8), torch.randn(70, 8)
    nothing = torch.zeros(4, dtype=torch.bool)
    target = torch.zeros(4, dtype=torch.int64)
    assert float(linear_cross_entropy(x, table, torch.zeros(70), target, nothing)) == 0.0
    assert float(sampled_cross_entropy(x, table, torch.zeros(70), target, 9, 2, nothing)) == 0.0
