"""The shift that makes scores say how often a class really comes."""

import numpy as np
import pytest

from monad.config.time_range import DAY_SECONDS
from monad.training.calibration import MOST_ROWS, newest, shift_of
from monad.training.rows import Rows


def test_mean_probabilities_become_mean_targets():
    """After the shift each class is as likely on average as it is frequent, in the same order."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 2)) + np.array([2.0, -1.0])
    targets = (random.random((500, 2)) < [0.3, 0.6]).astype(float)
    shifted = logits + shift_of(logits, targets)
    assert (1 / (1 + np.exp(-shifted))).mean(0) == pytest.approx(targets.mean(0), abs=1e-6)
    assert (np.argsort(shifted, 0) == np.argsort(logits, 0)).all()


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_class_without_contrast_is_shifted_in_bounds(target):
    """Rows that are all alike move scores by five at most, not without end."""
    shift = shift_of(np.zeros((300, 1)), np.full((300, 1), target))
    assert abs(shift[0]) == pytest.approx(5.0, abs=1e-3)


def test_only_the_newest_rows_count():
    """Rows older than two weeks before the last split point are left out, and many are thinned."""
    days = np.repeat(np.arange(100), 60)
    rows = Rows(np.arange(len(days)), days * DAY_SECONDS, np.zeros((len(days), 1)))
    chosen = newest(rows)
    assert len(chosen) == min(14 * 60, MOST_ROWS)
    assert chosen.stamps.min() == 86 * DAY_SECONDS
    assert len(newest(rows.take(np.arange(0)))) == 0
