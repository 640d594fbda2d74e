"""What follows an item, counted over histories, beside the network's own guess."""

import numpy as np
import pytest
import torch

from monad.data.fields import FIRST
from monad.data.transitions import followers
from monad.model.followers import Followers

A, B, C, D = range(FIRST, FIRST + 4)


@pytest.mark.parametrize("dense", [0, 100])
def test_followers_are_counted_within_an_owner_and_near(dense):
    """An item follows another of one owner, the more the nearer; what came before counts half."""
    codes = np.array([A, B, C, D, A, B])
    owner = np.array([0, 0, 0, 1, 2, 2])
    near, strength = followers(codes, owner, FIRST + 4, kept=3, dense=dense)
    assert near[A].tolist()[:2] == [B, C]
    scale = np.array([3.0, 3.0, 2.0]) ** -0.4  # of one over the frequency and one more
    assert strength[A].tolist() == pytest.approx([2 * scale[0] ** 2, 0.5 * scale[0] * scale[2], 0])
    assert near[C].tolist()[:2] == [B, A]
    assert strength[C].tolist() == pytest.approx(
        [0.5 * scale[0] * scale[2], 0.25 * scale[0] * scale[2], 0]
    )
    assert not strength[D].any()  # not the A that follows it at another owner
    assert not strength[:FIRST].any()


def test_counts_put_the_usual_follower_first():
    """The best item has log score zero; of a row without known items all are alike."""
    counts = Followers(FIRST + 4)
    near, strength = followers(np.array([A, B, A, B, A, C]), np.zeros(6, int), FIRST + 4)
    counts.know(near, strength)
    scores = counts(torch.tensor([[A, 0], [D, 0]]), torch.tensor([1, 1]))
    assert int(scores[0].argmax()) == B
    assert float(scores[0].max()) == 0.0
    assert float(scores[0, C]) > float(scores[0, D])
    assert torch.equal(scores[1], torch.zeros(FIRST + 4))


def test_a_weight_of_zero_leaves_the_network_alone():
    """Without a weight scores stay as they are; with one the counts are added."""
    counts = Followers(FIRST + 4)
    counts.know(*followers(np.array([A, B]), np.zeros(2, int), FIRST + 4))
    scores = torch.zeros(1, FIRST + 4)
    batch = {"codes": [torch.tensor([[A]])], "length": torch.tensor([1])}
    assert counts.added(scores, batch, 0) is scores
    counts.weight.fill_(0.5)
    assert int(counts.added(scores, batch, 0).argmax()) == B
