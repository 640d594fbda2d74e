"""Attributions of one batch: integrated gradients, or gradient SHAP, over the inputs' gates.

Integrated gradients average the derivative of the explained number along the straight path from
the references (`monad.model.gates`) to the row as it is; over all inputs of a row they add up to
the difference of the two outputs. Gradient SHAP averages over random places of the path with noise on the gates.

B rows, T events, G event inputs, A aggregates, M attributes, P pairs.
"""

from typing import Any

import numpy as np
import torch

from monad.data.batches import Batch
from monad.errors import ConfigError, nearest, problem
from monad.model.gates import Gates, References
from monad.model.head import Head
from monad.model.network import Network

METHODS = ("integrated_gradients", "gradient_shap")
_STEPS = 24
_NOISE = 0.1


def check_method(method: str) -> None:
    """Refuse a method that is not known."""
    if method not in METHODS:
        raise ConfigError(problem(f"method is `{method}`", do=nearest(str(method), METHODS)))


def full_gates(network: Network, batch: Batch, references: References) -> Gates:
    """Return gates of ones for a batch."""
    rows, length = batch["valid"].shape
    device = batch["aggregates"].device
    inputs = network.events.num_inputs
    pairs = len(batch["pair_rows"]) if "pair_rows" in batch else 0

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, device=device)

    return Gates(
        ones(rows, length, inputs),
        [ones(len(codes)) for codes in batch["bag_codes"]],
        ones(rows, batch["aggregates"].shape[1]),
        ones(rows, network.num_attributes),
        ones(pairs),
        references,
    )


@torch.no_grad()
def background(network: Network, batch: Batch) -> References:
    """Return the references that a background batch gives."""
    network.eval()
    made = References()
    network.summarize({**batch, "gates": full_gates(network, batch, made)})
    return made


def explained_at(
    network: Network, head: Head, batch: Batch, index: torch.Tensor, gates: Gates
) -> torch.Tensor:
    """Return the explained number of each row (B,) with the given gates."""
    output = head.output(network, {**batch, "gates": gates})
    return head.explained(output, index)


def attribute(
    network: Network,
    head: Head,
    batch: Batch,
    index: torch.Tensor,
    references: References,
    method: str = METHODS[0],
    seed: int = 0,
) -> Gates:
    """Return the attribution of every input of a batch, in the shape of its gates."""
    network.eval()
    head.eval()
    whole = full_gates(network, batch, references)
    random = torch.Generator().manual_seed(seed)
    totals = [torch.zeros_like(tensor) for tensor in whole.tensors()]
    for step in range(_STEPS):
        if method == "gradient_shap":
            place = float(torch.rand((), generator=random))
            leaves = [_noisy(t, place, random).requires_grad_() for t in whole.tensors()]
        else:
            place = (step + 0.5) / _STEPS
            leaves = [(t * place).requires_grad_() for t in whole.tensors()]
        value = explained_at(network, head, batch, index, whole.like(leaves))
        found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        for total, gradient in zip(totals, found, strict=True):
            if gradient is not None:
                total.add_(gradient, alpha=1.0 / _STEPS)
    return whole.like(totals)


def _noisy(ones: torch.Tensor, place: float, random: torch.Generator) -> torch.Tensor:
    noise = torch.randn(ones.shape, generator=random).to(ones.device)
    return ones * place + _NOISE * noise


def chosen_index(
    head: Head, network: Network, batch: Batch, target_index: int | None, item: int | None
) -> torch.Tensor:
    """Return which output of each row is explained: the wanted one, else the row's largest."""
    rows = len(batch["length"])
    device = batch["aggregates"].device
    wanted = item if item is not None else target_index
    if wanted is not None:
        return torch.full((rows,), wanted, dtype=torch.long, device=device)
    network.eval()
    head.eval()  # in training a head answers for each of its members
    with torch.no_grad():
        output: Any = head.output(network, batch)
    if output.ndim == 2 and output.shape[1] > 1:
        return output.argmax(1)
    return torch.zeros(rows, dtype=torch.long, device=device)


def as_numpy(gates: Gates) -> list[np.ndarray]:
    """Return the attributions as arrays, in the order of `Gates.tensors`."""
    return [tensor.detach().cpu().numpy().astype(np.float64) for tensor in gates.tensors()]
