"""Metrics by name agree with scikit-learn; unknown ones are refused with the nearest name."""

import numpy as np
import pytest
from sklearn import metrics as reference

from monad.config import CustomMetric, MetricParams
from monad.errors import ConfigError
from monad.evaluation.catalogue import CATALOGUE, check_metrics, check_monitored, extra_metrics
from monad.tasks import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    MultilabelClassificationTask,
    RecommendationTask,
    RegressionTask,
)

RANDOM = np.random.default_rng(3)
SCORES = RANDOM.random((200, 2))
LABELS = (RANDOM.random((200, 2)) < SCORES).astype(np.float32)
CHOSEN = SCORES[:, 0] >= 0.5
EXPECTED = {
    "auroc": reference.roc_auc_score(LABELS[:, 0], SCORES[:, 0]),
    "average_precision": reference.average_precision_score(LABELS[:, 0], SCORES[:, 0]),
    "log_loss": reference.log_loss(LABELS[:, 0], SCORES[:, 0]),
    "brier": reference.brier_score_loss(LABELS[:, 0], SCORES[:, 0]),
    "accuracy": reference.accuracy_score(LABELS[:, 0], CHOSEN),
    "precision": reference.precision_score(LABELS[:, 0], CHOSEN),
    "recall": reference.recall_score(LABELS[:, 0], CHOSEN),
    "f1": reference.f1_score(LABELS[:, 0], CHOSEN),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_decisions_agree_with_the_reference(name):
    """Each metric of one label is scikit-learn's; a second label has a key of its own."""
    task = MultilabelClassificationTask(["a", "b"])
    found = extra_metrics([MetricParams(name)], task, SCORES, LABELS)
    assert found[f"{name}_0"] == pytest.approx(EXPECTED[name], abs=1e-6)
    assert set(found) == {f"{name}_0", f"{name}_1"}


def test_amounts_agree_with_the_reference():
    """Errors of amounts are scikit-learn's."""
    wanted = RANDOM.gamma(2.0, 5.0, (100, 1))
    made = wanted + RANDOM.normal(size=(100, 1))
    names = CATALOGUE["regression"]
    found = extra_metrics([MetricParams(n) for n in names], RegressionTask(), made, wanted)
    assert found["mae_0"] == pytest.approx(reference.mean_absolute_error(wanted, made))
    assert found["rmse_0"] == pytest.approx(reference.root_mean_squared_error(wanted, made))
    assert found["r2_0"] == pytest.approx(reference.r2_score(wanted, made))
    logs = reference.root_mean_squared_log_error(wanted, np.maximum(made, 0))
    assert found["rmse_log1p_0"] == pytest.approx(logs)


def test_classes_agree_with_the_reference():
    """Accuracy among the k best and mean recall are scikit-learn's."""
    task = MulticlassClassificationTask(["a", "b", "c"])
    scores = RANDOM.dirichlet([1, 1, 1], 150)
    truth = RANDOM.integers(0, 3, 150)
    wanted = np.eye(3)[truth]
    asked = [
        MetricParams("accuracy"),
        MetricParams("best_two", "accuracy", {"top_k": 2}),
        MetricParams("multiple_targets_recall"),
        MetricParams("log_loss"),
    ]
    found = extra_metrics(asked, task, scores, wanted)
    assert found["accuracy_0"] == pytest.approx(reference.accuracy_score(truth, scores.argmax(1)))
    assert found["best_two_0"] == pytest.approx(reference.top_k_accuracy_score(truth, scores, k=2))
    assert found["multiple_targets_recall_0"] == pytest.approx(
        reference.balanced_accuracy_score(truth, scores.argmax(1))
    )
    assert found["log_loss_0"] == pytest.approx(reference.log_loss(truth, scores))


def test_calibration_error_is_zero_for_certain_right_answers():
    """Probabilities that are the outcomes have no error; constant 0.9 at half has 0.4."""
    task = BinaryClassificationTask()
    ones = np.array([[0.0], [1.0]] * 10)
    assert extra_metrics([MetricParams("ece")], task, ones, ones)["ece_0"] == 0.0
    off = extra_metrics([MetricParams("ece")], task, np.full((20, 1), 0.9), ones)
    assert off["ece_0"] == pytest.approx(0.4)


def test_ranked_items_and_own_functions():
    """A recommendation's metrics take k; a custom metric gets ranked and relevant items."""
    ranked = [np.array([1, 2, 3]), np.array([4, 5, 6])]
    wanted = [np.array([3]), np.array([9])]
    asked = [
        MetricParams("hits", "HR", {"top_k": 2}),
        MetricParams("HR", kwargs={"top_k": 3}),
        CustomMetric("lists", lambda r, w: len(r) + len(w)),
    ]
    found = extra_metrics(asked, RecommendationTask(), ranked, wanted)
    assert found == {"hits_0": 0.0, "HR_0": 0.5, "lists": 4.0}


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (BinaryClassificationTask(), "AUROC"),
        (MulticlassClassificationTask(["a", "b"]), "MultipleTargetsRecall"),
        (RegressionTask(), "RMSE"),
        (RecommendationTask(), "HitRate@K"),
        (RecommendationTask(), "map"),
    ],
)
def test_the_documented_names_of_metrics_are_known(task, name):
    """The documentation writes AUROC and HitRate@K; the same metrics are meant."""
    check_metrics([MetricParams("mine", name)], task)
    if task.kind == "regression":
        found = extra_metrics([MetricParams("mine", name)], task, SCORES, LABELS)
        assert found["mine_0"] == pytest.approx(np.sqrt(((SCORES - LABELS)[:, 0] ** 2).mean()))


def test_unknown_metrics_and_arguments_are_refused():
    """A name the task does not have, or an argument a metric does not take, is an error."""
    with pytest.raises(ConfigError, match="did you mean `auroc`"):
        check_metrics([MetricParams("aurok")], BinaryClassificationTask())
    with pytest.raises(ConfigError, match="unusable kwargs"):
        extra_metrics(
            [MetricParams("f1", kwargs={"k": 2})],
            MultilabelClassificationTask(["a", "b"]),
            SCORES,
            LABELS,
        )


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (BinaryClassificationTask(), "val_auroc_0"),
        (BinaryClassificationTask(), "val_f1_0"),
        (BinaryClassificationTask(), "val_mine"),
        (MultilabelClassificationTask(["a", "b"]), "val_auroc_1"),
        (MulticlassClassificationTask(["a", "b"]), "val_multiple_targets_recall"),
        (RegressionTask(), "val_loss"),
        (RecommendationTask(), "val_HR@10_0"),
    ],
)
def test_metrics_that_validation_computes_can_be_monitored(task, name):
    """The task's own, the loss, and those that were asked for beside."""
    metrics = [CustomMetric("mine", lambda *_: 0.0)]
    if name == "val_f1_0":
        metrics.append(MetricParams("f1"))
    check_monitored(name, metrics, task)
    check_monitored(None, [], task)


def test_a_metric_that_validation_does_not_compute_is_refused_at_once():
    """A misspelt one would end training after its first epoch."""
    with pytest.raises(ConfigError, match="did you mean `val_auroc_0`"):
        check_monitored("val_aurok_0", [], BinaryClassificationTask())
    with pytest.raises(ConfigError, match="val_loss"):
        check_monitored("val_f1_0", [], BinaryClassificationTask())
