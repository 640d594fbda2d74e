"""All six tasks train and predict; losses, metrics, callbacks and stopping are the user's."""

import logging

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from monad.config import (
    CustomMetric,
    EarlyStopping,
    EntityIds,
    MetricParams,
    OutputType,
    TestingParams,
    TrainingParams,
)
from monad.errors import CheckpointError, ConfigError
from monad.targets import sketch
from monad.ui import fit_behavioral_representation, pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    MultilabelClassificationTask,
    OneHotRecommendationTask,
    RecommendationTask,
    RegressionTask,
    load_from_checkpoint,
    load_from_foundation_model,
)
from tests.unit.engine.sample import KINDS, shop_config, write_config, write_shop


def churn(history, future, attributes, ctx):
    """Whether the customer stays away."""
    return np.array([float(future["transactions"].count() == 0)], dtype=np.float32)


def favourite(history, future, attributes, ctx):
    """Shares of the kinds bought next, or None."""
    shares, _ = future["transactions"].groupBy("kind").count(normalize=True, groups=KINDS)
    return shares if shares.sum() else None


def favourite_index(history, future, attributes, ctx):
    """The index of the kind bought most next, or None."""
    shares = favourite(history, future, attributes, ctx)
    return None if shares is None else np.array([float(shares.argmax())])


def kinds(history, future, attributes, ctx):
    """Which kinds are bought next."""
    return future["transactions"].groupBy("kind").exists(groups=KINDS)[0]


def amounts(history, future, attributes, ctx):
    """Spend and number of purchases."""
    source = future["transactions"]
    return np.array([source.sum("price"), source.count()], dtype=np.float32)


def items(history, future, attributes, ctx):
    """Items bought next, without those that were bought before."""
    bought = future["transactions"]["article_id"]
    wanted = sketch(bought).mask_loss(history["transactions"]["article_id"])
    return wanted if len(wanted) else None


TASKS = {
    "binary": (BinaryClassificationTask(), churn, ["score"]),
    "multiclass": (MulticlassClassificationTask(class_names=KINDS), favourite, KINDS),
    "index": (MulticlassClassificationTask(class_names=KINDS), favourite_index, KINDS),
    "multilabel": (MultilabelClassificationTask(class_names=KINDS), kinds, KINDS),
    "regression": (RegressionTask(num_targets=2), amounts, ["prediction_0", "prediction_1"]),
    "recommendation": (RecommendationTask(), items, ["item_1", "item_2", "score_1", "score_2"]),
    "one_hot": (OneHotRecommendationTask(), items, ["item_1", "item_2", "score_1", "score_2"]),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop and a foundation model."""
    directory = write_shop(tmp_path_factory.mktemp("tasks"), customers=40)
    config = write_config(directory, shop_config(directory, epochs=1))
    pretrain(config_path=config, output_path=directory / "fm")
    return directory


def scenario(shop, name):
    """An untrained scenario."""
    task, function, _ = TASKS[name]
    return load_from_foundation_model(shop / "fm", task, function)


def quick(**fields):
    """Training parameters for a few steps."""
    return TrainingParams(**{"epochs": 1, "limit_train_batches": 3, **fields})


def predicted(module, file, **fields):
    """Header and rows of a prediction file."""
    params = {"output_type": "decoded", "local_save_location": file, **fields}
    module.predict(TestingParams(**params))
    header, *rows = (line.split("\t") for line in file.read_text().splitlines())
    return header, rows


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_tests_and_predicts_from_its_checkpoint(shop, tmp_path, name):
    """Each task ends with its monitored metric, finite test metrics and well-formed predictions."""
    task, _, columns = TASKS[name]
    module = scenario(shop, name)
    module.fit(quick(checkpoint_dir=tmp_path / "c"))
    metrics = module.test(TestingParams(output_type="decoded"))
    monitored = task.monitor.removeprefix("val_")
    if name not in ("regression", "recommendation", "one_hot"):
        assert f"test_{monitored}" in metrics
    assert any(np.isfinite(v) for k, v in metrics.items() if not k.startswith("test_baseline"))
    ranked = {"top_k": 2} if task.kind == "recommendation" else {}
    loaded = load_from_checkpoint(tmp_path / "c")
    assert repr(loaded.task) == repr(task)
    header, rows = predicted(loaded, tmp_path / "p" / "predictions.tsv", **ranked)
    assert header == ["main_entity_id", *columns]
    assert len({row[0] for row in rows}) == len(rows) == 40
    numbers = [[float(x) for x in row[1:] if x] for row in rows]
    assert np.isfinite(np.concatenate(numbers)).all()
    if name in ("multiclass", "index"):
        assert np.allclose([sum(row) for row in numbers], 1.0, atol=1e-3)


def test_raw_output_and_thresholds(shop, tmp_path):
    """RAW writes the scores before the sigmoid; a threshold writes 0 and 1 for each label."""
    module = scenario(shop, "multilabel")
    module.fit(quick(checkpoint_dir=tmp_path / "c"))
    _, decoded = predicted(module, tmp_path / "a.tsv")
    _, raw = predicted(module, tmp_path / "b.tsv", output_type=OutputType.RAW)
    _, cut = predicted(module, tmp_path / "d.tsv", predictions_threshold=0.4)
    shares = np.array([row[1:] for row in decoded], dtype=float)
    scores = np.array([row[1:] for row in raw], dtype=float)
    assert np.allclose(1 / (1 + np.exp(-scores)), shares, atol=1e-4)
    assert np.array_equal(np.array([row[1:] for row in cut], dtype=float), shares >= 0.4)


def test_the_best_classes_of_a_multilabel_task(shop, tmp_path):
    """top_k marks the k best classes of each row; together with a threshold it is refused."""
    module = scenario(shop, "multilabel")
    module.fit(quick(checkpoint_dir=tmp_path / "c"))
    _, decoded = predicted(module, tmp_path / "a.tsv")
    _, best = predicted(module, tmp_path / "b.tsv", top_k=2)
    for scores, marks in zip(decoded, best, strict=True):
        chosen = {i for i, mark in enumerate(marks[1:]) if mark == "1"}
        assert chosen == set(np.argsort([-float(x) for x in scores[1:]], kind="stable")[:2])
    with pytest.raises(ConfigError, match="mutually exclusive"):
        TestingParams(output_type="decoded", top_k=2, predictions_threshold=0.5)


def test_half_precision_predicts_nearly_the_same(shop, tmp_path):
    """`precision="bf16-mixed"` changes scores by rounding only."""
    module = scenario(shop, "binary")
    module.fit(quick(checkpoint_dir=tmp_path / "c"))
    _, full = predicted(module, tmp_path / "a.tsv")
    _, half = predicted(module, tmp_path / "b.tsv", precision="bf16-mixed")
    one, two = (np.array([float(r[1]) for r in rows]) for rows in (full, half))
    assert np.allclose(one, two, atol=0.05)
    assert not np.array_equal(one, two)


def test_a_custom_loss_is_what_is_trained(shop, tmp_path):
    """The loss gets raw output and target; training follows it."""
    seen = []

    def loss(output, target):
        seen.append((output.shape, target.shape))
        return ((output + 5.0) ** 2).mean()

    module = scenario(shop, "binary")
    module.fit(quick(loss=loss, epochs=4, learning_rate=0.05, limit_train_batches=10))
    _, rows = predicted(module, tmp_path / "p.tsv")
    assert seen[0][0][1:] == seen[0][1][1:] == (1,)
    assert np.mean([float(row[1]) for row in rows]) < 0.1


def test_metrics_of_the_user_are_computed_and_monitored(shop, tmp_path, caplog):
    """Own metrics appear at validation and in the test; the best epoch follows the monitored one."""
    calls = []

    def negative(predictions, targets):
        calls.append(predictions.shape)
        return -float(len(calls))

    asked = [CustomMetric("falling", negative), MetricParams("sure", "brier")]
    module = scenario(shop, "binary")
    with caplog.at_level(logging.INFO, "monad"):
        module.fit(
            quick(
                metrics=asked,
                metric_to_monitor="val_falling",
                metric_monitoring_mode="max",
                epochs=3,
                checkpoint_dir=tmp_path / "c",
            )
        )
    assert len(calls) == 3
    assert "val_falling -1.0000" in caplog.text
    assert "val_sure_0" in caplog.text
    kept = torch.load(tmp_path / "c" / "lightning_checkpoints" / "epoch=0.ckpt", weights_only=True)[
        "state_dict"
    ]
    best = torch.load(tmp_path / "c" / "best_model.ckpt", weights_only=True)["network"]
    assert all(torch.equal(best[k], kept[f"network.{k}"]) for k in best)
    found = module.test(TestingParams(output_type="decoded", metrics=asked))
    assert found["test_falling"] == -4.0
    assert 0 <= found["test_sure_0"] <= 1


def test_unknown_metrics_are_refused_before_training(shop, tmp_path):
    """A metric that the task does not have leaves nothing behind."""
    with pytest.raises(ConfigError, match="rmse"):
        scenario(shop, "regression").fit(
            quick(metrics=[MetricParams("rmsee")], checkpoint_dir=tmp_path / "c")
        )
    assert not (tmp_path / "c").exists()


def test_a_fitted_representation_is_used_again(shop, tmp_path, caplog):
    """features_path leaves fitting out and gives the same weights; a longer range is a leak."""
    fit_behavioral_representation(shop / "fm_config.yaml", tmp_path / "features")
    values = shop_config(shop, epochs=1)
    values["data_params"]["features_path"] = str(tmp_path / "features")
    caplog.clear()
    with caplog.at_level(logging.INFO, "monad"):
        pretrain(write_config(tmp_path, values), tmp_path / "fm")
    assert "Fitting left out" in caplog.text
    assert "Fitting finished" not in caplog.text
    one, two = (
        torch.load(path / "fm" / "best_model.ckpt", weights_only=True)["network"]
        for path in (shop, tmp_path)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    values["data_params"]["training_end_date"] = "2020-06-30"
    with pytest.raises(CheckpointError, match="LEAK.*longer training range"):
        pretrain(write_config(tmp_path, values), tmp_path / "leaky")
    values["data_params"]["features_path"] = str(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no fitted representation"):
        pretrain(write_config(tmp_path, values), tmp_path / "none")


class Count(Callback):
    """Counts steps and epochs."""

    def __init__(self):
        self.steps = self.epochs = 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def on_train_epoch_end(self, *_):
        self.epochs += 1


def test_callbacks_and_early_stopping_steer_the_training(shop):
    """Callbacks are Lightning's; training stops when the monitored metric no longer improves."""
    count = Count()
    worse = iter(range(100))
    metric = CustomMetric("worse", lambda p, t: -float(next(worse)))
    module = scenario(shop, "binary")
    module.fit(
        quick(
            epochs=9,
            callbacks=[count],
            metrics=[metric],
            metric_to_monitor="val_worse",
            metric_monitoring_mode="max",
            early_stopping=EarlyStopping(patience=2),
        )
    )
    assert (count.epochs, count.steps) == (3, 9)


def test_entities_may_be_limited(shop, tmp_path):
    """Training, testing and predicting use the ids asked for, from a list or a file."""
    file = tmp_path / "ids.txt"
    file.write_text("c001\nc002\nc003\n")
    module = scenario(shop, "binary")
    module.fit(quick(entity_ids=EntityIds(file=file)))
    _, rows = predicted(module, tmp_path / "p.tsv", entity_ids=EntityIds(ids=["c002", "c007"]))
    assert [row[0] for row in rows] == ["c002", "c007"] or {r[0] for r in rows} == {"c002", "c007"}


def test_the_same_seed_gives_the_same_scenario_and_another_one_does_not(shop, tmp_path):
    """Weights and predictions repeat to the last bit on a CPU."""
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        module = scenario(shop, "regression")
        module.fit(quick(seed=seed, checkpoint_dir=tmp_path / name))
        predicted(module, tmp_path / f"{name}.tsv")
        content = torch.load(tmp_path / name / "best_model.ckpt", weights_only=True)
        found.append(({**content["network"], **content["head"]}, tmp_path / f"{name}.tsv"))
    same = [all(torch.equal(found[0][0][k], w[k]) for k in w) for w, _ in found]
    assert same == [True, True, False]
    assert found[0][1].read_text() == found[1][1].read_text() != found[2][1].read_text()
