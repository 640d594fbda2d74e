"""Metrics agree with scikit-learn and with hand-made cases."""

import numpy as np
import pytest

from monad.evaluation.metrics import auroc, average_precision, log_loss, ranking


def test_binary_metrics_agree_with_scikit_learn():
    """Areas are exact, ties included."""
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 500).astype(float)
    scores = np.round(np.clip(random.normal(targets * 0.3, 0.3), 0.01, 0.99), 1).clip(0.1, 0.9)
    assert auroc(scores, targets) == pytest.approx(metrics.roc_auc_score(targets, scores))
    assert average_precision(scores, targets) == pytest.approx(
        metrics.average_precision_score(targets, scores)
    )
    assert log_loss(scores, targets) == pytest.approx(metrics.log_loss(targets, scores))


def test_one_class_has_no_area():
    """An area without both classes is NaN, not a number that looks good."""
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([1.0, 1.0])))


def test_ranking_of_a_known_case():
    """MAP, hit rate and NDCG of two rows, one without a hit."""
    found = ranking(
        [np.array([1, 2, 3]), np.array([4, 5, 6])], [np.array([1, 3]), np.array([9])], 3
    )
    assert found["MAP@3"] == pytest.approx((1 + 2 / 3) / 2 / 2)
    assert found["HR@3"] == 0.5
    ideal = 1 + 1 / np.log2(3)
    assert found["NDCG@3"] == pytest.approx((1 + 1 / np.log2(4)) / ideal / 2)
