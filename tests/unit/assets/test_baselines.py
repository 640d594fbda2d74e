"""Metrics are paired with the naive baselines reported beside them."""

from monad_dagster.assets.baselines import compare


def test_a_metric_finds_the_best_of_its_baselines():
    """The stronger baseline is the one to beat."""
    metrics = {
        "test_auroc_0": 0.74,
        "test_baseline_recency_auroc_0": 0.66,
        "test_baseline_frequency_auroc_0": 0.70,
    }
    (found,) = compare(metrics)
    assert (found.method, found.baseline, found.is_better) == ("frequency", 0.70, True)


def test_errors_are_better_when_smaller():
    """For MAE the smallest baseline counts, and a smaller value wins."""
    (found,) = compare({"mae": 300.0, "baseline_zero_mae": 317.0, "baseline_mean_mae": 400.0})
    assert (found.baseline, found.is_better) == (317.0, True)


def test_metrics_of_other_prefixes_are_not_mixed():
    """A validation metric has no baseline when only the test reported one."""
    found = compare({"val_auroc_0": 0.8, "test_baseline_recency_auroc_0": 0.66})
    assert found == []
