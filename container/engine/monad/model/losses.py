"""Cross entropy against large tables without a tensor of all scores.

`linear_cross_entropy` works on chunks of positions and makes the gradient in the same pass, so that
memory does not grow with positions x classes. It is plain torch: CPU and GPU, any release since 2.4.
"""

import math
from typing import Any

import torch
from torch.nn import functional

_CHUNK_SCORES = 500_000  # scores of one chunk on a CPU: 2 MB, so that passes over it stay in caches
_CHUNK_SCORES_GPU = 64_000_000


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean of `cross_entropy(x @ weight.T + bias, target)`, chunk by chunk."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        target: torch.Tensor,
        known: torch.Tensor | None,
    ) -> torch.Tensor:
        most = _CHUNK_SCORES_GPU if x.is_cuda else _CHUNK_SCORES
        size = max(1, min(len(x), most // len(weight)))
        total = x.new_zeros((), dtype=torch.float32)
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        table = weight.to(x.dtype)
        for at in range(0, len(x), size):
            part, wanted = x[at : at + size], target[at : at + size]
            if x.dtype == torch.float32:
                scores = torch.addmm(bias, part, table.T)
            else:
                scores = (part @ table.T).float().add_(bias)
            scores = torch.softmax(scores, -1)  # one pass over each row
            picked = scores.gather(1, wanted[:, None])
            logs = picked.clamp(min=1e-35).log()
            scores.scatter_(1, wanted[:, None], picked - 1.0)
            if known is not None:
                counted = known[at : at + size, None]
                logs = logs * counted
                scores *= counted
            total -= logs.sum()
            grad_bias += scores.sum(0)
            share = scores.to(x.dtype)
            grad_x[at : at + size] = share @ table
            grad_weight += share.T @ part
        if known is None:
            count = total.new_full((), max(len(x), 1))
        else:
            count = known.sum(dtype=torch.float32).clamp(min=1.0)
        ctx.save_for_backward(grad_x, grad_weight, grad_bias, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        grad_x, grad_weight, grad_bias, count = ctx.saved_tensors
        scale = grad / count
        return grad_x * scale.to(grad_x.dtype), grad_weight * scale, grad_bias * scale, None, None


def linear_cross_entropy(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    target: torch.Tensor,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean full softmax loss of (N, D) queries over a (C, D) table.

    Positions that are not *known* (N) do not count; their targets may be any class.
    """
    return _LinearCrossEntropy.apply(  # type: ignore[return-value]
        x, weight, bias, target, known
    )


def sampled_cross_entropy(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    target: torch.Tensor,
    negatives: int,
    first: int,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the softmax loss over each target and uniform *negatives* shared by all positions.

    Uniform draws stand for `classes / negatives` of the table each, the logQ correction of a
    uniform proposal; draws that hit a position's own target are left out for it. Positions that
    are not *known* (N) do not count.
    """
    drawn = torch.randint(first, len(weight), (negatives,), device=x.device)
    rows = functional.embedding(torch.cat([target, drawn]), weight).to(x.dtype)
    biases = bias[torch.cat([target, drawn])]
    positive = (x * rows[: len(target)]).sum(-1).float() + biases[: len(target)]
    shift = math.log(max(len(weight) - first, 1) / negatives)
    other = (x @ rows[len(target) :].T).float() + (biases[len(target) :] + shift)
    other = other.masked_fill(drawn[None, :] == target[:, None], -math.inf)
    scores = torch.cat([positive[:, None], other], dim=1)
    if known is None:
        return functional.cross_entropy(scores, torch.zeros_like(target))
    loss = functional.cross_entropy(scores, torch.zeros_like(target), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
