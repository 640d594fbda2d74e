"""What follows an event: scores of the next event's categorical fields, tied to their tables.

Part of the network, because scenarios start from it: the score of the next item is the best guess of
a recommendation before the scenario has learned anything.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from monad.data.fields import FIRST, Field
from monad.model.losses import linear_cross_entropy, sampled_cross_entropy

_PREDICTED = 4


@dataclasses.dataclass
class Softmax:
    """How the next item is learned: against every item up to *full_items*, else a sample."""

    full_items: int = 8_000
    negatives: int = 1_024


def predicted_fields(categories: list[Field]) -> list[int]:
    """Return the positions of the categorical fields that are predicted: the largest ones."""
    order = sorted(range(len(categories)), key=lambda k: -categories[k].size)
    return sorted(order[:_PREDICTED])


class Following(nn.Module):
    """Queries and biases of the predicted fields."""

    def __init__(self, categories: list[Field], width: int) -> None:
        super().__init__()
        self.predicted = predicted_fields(categories)
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in self.predicted)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(categories[k].size)) for k in self.predicted
        )
        for query in self.queries:
            assert isinstance(query, nn.Linear)
            with torch.no_grad():  # begin at the state itself, as tied scores without a query do
                query.weight.copy_(torch.eye(width))
                query.bias.zero_()

    def scores(self, position: int, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the scores of every value of a predicted field for (N, D) states."""
        at = self.predicted.index(position)
        return functional.linear(self.queries[at](states), table, self.biases[at])

    def loss(
        self,
        position: int,
        states: torch.Tensor,
        table: torch.Tensor,
        target: torch.Tensor,
        softmax: Softmax,
        complete: bool = False,
        counted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean softmax loss; targets of events without the field are left out.

        *complete* says that there are none, which a GPU would have to be asked and waited for. With
        *counted* (N) positions are left out by weight, so that shapes depend on no values.
        """
        if counted is not None:
            counted = counted & (target >= FIRST - 1)
        elif not complete:
            known = target >= FIRST - 1
            states, target = states[known], target[known]
        if not len(target):
            return states.sum() * 0.0
        at = self.predicted.index(position)
        query = self.queries[at](states)
        if len(table) <= softmax.full_items:
            return linear_cross_entropy(query, table, self.biases[at], target, counted)
        return sampled_cross_entropy(
            query, table, self.biases[at], target, softmax.negatives, FIRST, counted
        )
