"""The metrics agree with scikit-learn and with values worked out by hand."""

import numpy as np
import pytest

from bench.evaluation import metrics as m

sklearn_metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities with ties."""
    rng = np.random.default_rng(3)
    target = (rng.random(500) < 0.3).astype(float)
    return target, np.round(np.clip(rng.random(500) * 0.7 + target * 0.2, 0.01, 0.99), 2)


def test_auroc_agrees(scored):
    """AUROC with ties is scikit-learn's."""
    assert m.auroc(*scored) == pytest.approx(sklearn_metrics.roc_auc_score(*scored))


def test_weighted_auroc_agrees(scored):
    """AUROC with multiplicities is scikit-learn's with sample weights."""
    weight = np.random.default_rng(0).integers(0, 4, 500)
    expected = sklearn_metrics.roc_auc_score(*scored, sample_weight=weight)
    assert m.auroc(*scored, weight) == pytest.approx(expected)


def test_auroc_of_one_class_is_nan():
    """Without both classes there is no area."""
    assert np.isnan(m.auroc(np.ones(3), np.arange(3.0)))


def test_average_precision_agrees(scored):
    """Average precision with ties is scikit-learn's."""
    expected = sklearn_metrics.average_precision_score(*scored)
    assert m.average_precision(*scored) == pytest.approx(expected)


def test_log_loss_agrees(scored):
    """Log-loss is scikit-learn's."""
    assert m.log_loss(*scored) == pytest.approx(sklearn_metrics.log_loss(*scored))


def test_errors_agree(scored):
    """MAE and RMSE of log1p are scikit-learn's."""
    target, value = scored[0] * 100, scored[1] * 100
    assert m.mae(target, value) == pytest.approx(sklearn_metrics.mean_absolute_error(target, value))
    expected = sklearn_metrics.mean_squared_log_error(target, value) ** 0.5
    assert m.rmsle(target, value) == pytest.approx(expected)


def test_ndcg_agrees():
    """NDCG of full rankings with binary gains is scikit-learn's."""
    rng = np.random.default_rng(1)
    gains = (rng.random((20, 12)) < 0.3).astype(float)
    gains[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(12.0), (20, 1)), axis=1)
    ranked = np.argsort(-scores, axis=1)[:, :10]
    found = m.ranking_rows(ranked, np.argwhere(gains > 0), 12)["ndcg@10"]
    assert found.mean() == pytest.approx(sklearn_metrics.ndcg_score(gains, scores, k=10))


def test_map_by_hand():
    """MAP@k divides by min(true items, k); short lists and rows without purchases are handled."""
    ranked = np.array([[5, 6, 7], [1, -1, -1], [2, 3, 4]])
    bought = np.array([[0, 5], [0, 7], [1, 9], [1, 1], [1, 8], [1, 7]])
    found = m.ranking_metrics(ranked, bought, 10)
    assert found["map@3"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)
    assert found["hr@3"] == 1.0


def test_calibration_error_by_hand():
    """A constant 0.9 on labels of mean 0.5 is off by 0.4."""
    found = m.calibration_error(np.array([0.0, 1.0]), np.array([0.9, 0.9]))
    assert found == pytest.approx(0.4)


def test_top_spenders_are_left_out():
    """The trimmed error ignores the highest 1 % of targets."""
    target = np.append(np.zeros(199), 1e6)
    assert m.regression_metrics(target, np.zeros(200))["mae_without_top_1_percent"] == 0.0


def test_bootstrap_interval_holds_a_known_difference():
    """The interval of a constant difference is that constant; of noise it holds zero."""
    noise = np.random.default_rng(0).normal(size=400)
    found = m.paired_bootstrap(lambda w: float(np.average(noise, weights=w)), 400, rounds=300)
    assert found[1] < 0 < found[2]
    constant = m.paired_bootstrap(lambda w: float(np.average(np.ones(9), weights=w)), 9, rounds=20)
    assert constant == (1.0, 1.0, 1.0)
