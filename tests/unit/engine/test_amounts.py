"""Amounts are told as multiples of an entity's own level, when it has one that goes along with them."""

import numpy as np
import pytest
import torch

from monad.model.amounts import AmountHead
from monad.model.head import Known, logistic
from monad.tasks import RegressionTask

NAMES = ["events:days_30", "events:sum_price_365", "events:count_365", "events:tenure"]


def known(monthly: np.ndarray, days: float = 360.0) -> Known:
    """Return aggregates of entities that spent *monthly* for *days*."""
    months = np.full(len(monthly), days / 30)
    columns = [np.zeros(len(monthly)), np.log1p(monthly * months), np.log1p(months)]
    columns.append(np.full(len(monthly), np.log1p(days)))
    made = np.stack(columns, 1).astype(np.float32)
    return Known(made, NAMES, np.zeros((len(monthly), 0), np.float32))


def started(point: str = "median") -> tuple[AmountHead, np.ndarray]:
    """Return a head that has seen amounts of a tenth to ten times the level, half of them zero."""
    random = np.random.default_rng(0)
    monthly = np.exp(random.uniform(0, 10, 4000))
    factor = np.exp(random.normal(0, 0.5, 4000)) * (random.random(4000) < 0.7)
    head = AmountHead(RegressionTask(point=point), 8, 0.0)
    head.start_from((monthly * factor)[:, None].astype(np.float32), known(monthly))
    return head, monthly


def decoded(head: AmountHead, aggregates: np.ndarray) -> np.ndarray:
    """Return predictions of rows whose bins are as frequent as in training."""
    shares = head.members.bias[0].detach().expand(len(aggregates), 1, -1)
    levels = head.levels(torch.from_numpy(aggregates)).log()[..., None]
    return head.decode(torch.cat([shares, levels], -1))[:, 0]


# The centre: the median's share of the way, and of the rest the 70 % that are not zero.
CENTRE = 100 ** (0.35 + 0.65 * 0.7)


@pytest.mark.parametrize(("point", "wanted"), [("median", 100), ("mean", 100), ("centre", CENTRE)])
def test_predictions_grow_with_the_level(point, wanted):
    """Median and mean are multiples of the level; zeros, a third here, hold the centre back."""
    head, _ = started(point)
    assert NAMES[int(head.level_total[0])] == "events:sum_price_365"
    small, large = decoded(head, known(np.array([1e3, 1e5])).aggregates)
    assert large / small == pytest.approx(wanted, rel=0.05)


def test_amounts_without_a_level_stay_as_they_are():
    """When no column goes along with the amounts, bins are of the bare amount."""
    random = np.random.default_rng(1)
    head = AmountHead(RegressionTask(), 8, 0.0)
    head.start_from(random.random((500, 1)).astype(np.float32), known(random.random(500) * 100))
    assert int(head.level_total[0]) == -1
    assert torch.equal(head.levels(torch.zeros(3, len(NAMES))), torch.ones(3, 1))


def test_the_loss_is_least_at_the_right_multiple():
    """The same multiple of different levels falls into the same bin."""
    head, _ = started()
    aggregates = torch.from_numpy(known(np.array([50.0, 5000.0])).aggregates)
    levels = head.levels(aggregates)
    bins = torch.searchsorted(head.edges, torch.tensor([[0.8]]))
    scores = torch.full((2, 1, len(head.edges[0]) + 1), -9.0)
    scores[:, 0, bins[0, 0]] = 9.0
    batch = {"target": 0.8 * levels, "aggregates": aggregates}
    right = head.loss(scores, batch)
    wrong = head.loss(scores, batch | {"target": 8.0 * levels})
    assert float(right) < 0.01 < float(wrong)


def test_the_logistic_start_is_where_its_loss_is_least():
    """The gradient of the penalized loss vanishes, and separable inputs do not blow up."""
    random = np.random.default_rng(2)
    inputs = random.normal(size=(400, 3))
    target = (random.random(400) < 1 / (1 + np.exp(-inputs[:, 0] - 0.5))).astype(np.float64)
    weights, start = logistic(inputs, target, 0.0)
    share = 1 / (1 + np.exp(-(inputs @ weights + start)))
    np.testing.assert_allclose(inputs.T @ (share - target) + 25.0 * weights, 0, atol=1e-2)
    assert abs((share - target).mean()) < 1e-3
    split = (inputs[:, 0] > 0).astype(np.float64)
    assert np.abs(logistic(inputs, split, 0.0)[0]).max() < 10
