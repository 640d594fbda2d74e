"""The whole engine on tiny data: pretrain, fit, test, predict, for three tasks."""

import json
import logging
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from monad.config import EntityIds, OutputType, TestingParams, TrainingParams
from monad.errors import CheckpointError, ConfigError
from monad.ui import fit_behavioral_representation, pretrain, train_foundation_model
from monad.ui.module import (
    BinaryClassificationTask,
    RecommendationTask,
    RegressionTask,
    load_from_checkpoint,
    load_from_foundation_model,
)
from monad.ui.target_function import SPLIT_TIMESTAMP, has_incomplete_training_window, sketch
from tests.unit.engine.sample import shop_config, write_config, write_shop

WINDOW = timedelta(days=30)


def churn(history, future, attributes, ctx):
    if has_incomplete_training_window(ctx, WINDOW):
        return None
    bought = future["transactions"].interval_from(ctx[SPLIT_TIMESTAMP], WINDOW).count()
    return np.array([0.0 if bought else 1.0], dtype=np.float32)


def spend(history, future, attributes, ctx):
    if has_incomplete_training_window(ctx, WINDOW):
        return None
    bought = future["transactions"].interval_from(ctx[SPLIT_TIMESTAMP], WINDOW)
    return np.array([bought.sum("price")], dtype=np.float32)


def next_items(history, future, attributes, ctx):
    items = np.unique(future["transactions"]["article_id"])
    return sketch(items, np.ones(len(items)))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data, configuration and a foundation model."""
    directory = write_shop(tmp_path_factory.mktemp("shop"))
    config = write_config(directory, shop_config(directory, epochs=2, learning_rate=1e-3))
    pretrain(config_path=config, output_path=directory / "fm_output")
    return directory


def scenario(shop: Path, task, target_fn, name: str):
    """Fit a scenario and return the module."""
    module = load_from_foundation_model(
        checkpoint_path=shop / "fm_output", downstream_task=task, target_fn=target_fn
    )
    module.fit(
        TrainingParams(checkpoint_dir=shop / name / "checkpoints", epochs=1, learning_rate=1e-3)
    )
    return module


def rows_of(path: Path) -> list[list[str]]:
    """Read a TSV file."""
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_foundation_model_directory_has_the_documented_files(shop):
    """The output directory holds the documented names and a manifest that lists them."""
    output = shop / "fm_output"
    for name in ("best_model.ckpt", "lightning_checkpoints", "data.yaml", "dataloader.yaml"):
        assert (output / name).exists()
    assert (output / "suggested_config.yaml").is_file()
    assert not (output / "target_fn.bin").exists()
    manifest = json.loads((output / "lineage.json").read_text())
    assert manifest["kind"] == "foundation_model"
    listed = {entry["path"] for entry in manifest["files"]}
    found = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
    assert found - {"lineage.json"} == listed
    torch.load(output / "best_model.ckpt", weights_only=True)


def test_churn_is_predicted_without_the_target_function(shop, tmp_path):
    """Predict needs neither trust nor target_fn.bin, and scores are probabilities."""
    scenario(shop, BinaryClassificationTask(), churn, "churn")
    copied = tmp_path / "checkpoints"
    shutil.copytree(shop / "churn" / "checkpoints", copied)
    (copied / "target_fn.bin").write_bytes(b"not a pickle")
    file = tmp_path / "predictions" / "predictions.tsv"
    count = load_from_checkpoint(checkpoint_path=copied).predict(
        TestingParams(
            output_type=OutputType.DECODED,
            local_save_location=file,
            prediction_date=datetime(2020, 8, 1),
        )
    )
    header, *rows = rows_of(file)
    assert header == ["main_entity_id", "score"]
    assert count == len(rows) > 50
    assert all(0.0 <= float(row[1]) <= 1.0 for row in rows)
    assert json.loads((file.parent / "lineage.json").read_text())["kind"] == "predictions"


def test_stored_target_function_needs_trust(shop):
    """A loaded scenario unpickles its target function for test only with trust given."""
    scenario(shop, BinaryClassificationTask(), churn, "trust")
    path = shop / "trust" / "checkpoints"
    params = TestingParams(output_type=OutputType.DECODED)
    with pytest.raises(CheckpointError, match="not trusted"):
        load_from_checkpoint(path).test(params)
    metrics = load_from_checkpoint(path, trust_target_fn=True).test(params)
    assert 0.0 <= metrics["test_auroc_0"] <= 1.0
    assert "test_baseline_recency_auroc_0" in metrics


def test_spend_reports_errors_beside_the_baseline(shop, tmp_path):
    """A regression writes one prediction a row and reports MAE, RMSE and the zero baseline."""
    module = scenario(shop, RegressionTask(), spend, "spend")
    file = tmp_path / "spend.tsv"
    metrics = module.test(TestingParams(output_type=OutputType.DECODED, local_save_location=file))
    assert {"test_mae_0", "test_rmse_0", "test_baseline_zero_mae_0"} <= set(metrics)
    header, *rows = rows_of(file)
    assert header == ["main_entity_id", "prediction"]
    assert all(np.isfinite(float(row[1])) for row in rows)


def test_recommendations_are_distinct_known_items(shop, tmp_path):
    """A recommendation lists k distinct items, best score first."""
    module = scenario(shop, RecommendationTask(), next_items, "next")
    file = tmp_path / "next.tsv"
    metrics = module.test(
        TestingParams(output_type=OutputType.DECODED, local_save_location=file, top_k=5)
    )
    assert "test_MAP@5_0" in metrics
    header, *rows = rows_of(file)
    assert header == [
        "main_entity_id",
        *(f"item_{i}" for i in range(1, 6)),
        *(f"score_{i}" for i in range(1, 6)),
    ]
    for row in rows:
        assert len(set(row[1:6])) == 5
        assert all(1000 <= int(item) < 1024 for item in row[1:6])
        scores = [float(x) for x in row[6:]]
        assert scores == sorted(scores, reverse=True)


def test_output_directory_rules(shop):
    """A filled directory is refused, kept with resume, and emptied with overwrite."""
    config, output = shop / "fm_config.yaml", shop / "rerun"
    shutil.copytree(shop / "fm_output", output)
    before = (output / "lineage.json").read_text()
    with pytest.raises(CheckpointError, match="not empty"):
        pretrain(config_path=config, output_path=output)
    pretrain(config_path=config, output_path=output, resume=True)
    assert (output / "lineage.json").read_text() == before
    (output / "stray.txt").write_text("old")
    pretrain(config_path=config, output_path=output, overwrite=True)
    assert not (output / "stray.txt").exists()


def test_same_seed_gives_the_same_weights(shop, tmp_path):
    """Two runs in halves and in one go end with the same tensors, bit for bit."""
    config = shop / "fm_config.yaml"
    fit_behavioral_representation(config_path=config, output_path=tmp_path / "features")
    train_foundation_model(features_path=tmp_path / "features", output_path=tmp_path / "again")
    first = torch.load(shop / "fm_output" / "best_model.ckpt", weights_only=True)["network"]
    second = torch.load(tmp_path / "again" / "best_model.ckpt", weights_only=True)["network"]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_validation_batches_are_no_validation(shop, caplog):
    """`limit_val_batches=0` is honoured: nothing is validated and the last weights stay."""
    module = load_from_foundation_model(shop / "fm_output", BinaryClassificationTask(), churn)
    with caplog.at_level(logging.INFO, "monad"):
        module.fit(TrainingParams(epochs=1, limit_train_batches=2, limit_val_batches=0))
    assert "Validation:" not in caplog.text
    assert "Scenario trained" in caplog.text


def test_next_items_of_some_entities_are_learned_from_these(shop, caplog):
    """`entity_ids` limits training also where next items are asked for; a metric to monitor warns."""

    def next_item(history, future, attributes, ctx):
        return sketch(future["transactions"]["article_id"][:1])

    some = EntityIds([f"c{i:03d}" for i in range(30)])
    module = load_from_foundation_model(shop / "fm_output", RecommendationTask(), next_item)
    with caplog.at_level(logging.INFO, "monad"):
        module.fit(TrainingParams(epochs=1, limit_train_batches=2, entity_ids=some))
    assert module.next_item
    assert "at every event of 29 main entities" in caplog.text
    module = load_from_foundation_model(shop / "fm_output", RecommendationTask(), next_item)
    with caplog.at_level(logging.INFO, "monad"):
        module.fit(TrainingParams(epochs=1, limit_train_batches=2, metric_to_monitor="val_HR@10_0"))
    assert module.next_item
    assert "metric_to_monitor of next items is accepted but has no effect" in caplog.text


def test_a_scenario_is_refused_before_anything_is_read(shop):
    """A class in place of a task, and a metric that no validation computes."""
    with pytest.raises(TypeError, match=r"such as BinaryClassificationTask\(\)"):
        load_from_foundation_model(shop / "fm_output", BinaryClassificationTask, churn)
    module = load_from_foundation_model(shop / "fm_output", BinaryClassificationTask(), churn)
    with pytest.raises(ConfigError, match="did you mean `val_auroc_0`"):
        module.fit(TrainingParams(metric_to_monitor="val_auroc"))
