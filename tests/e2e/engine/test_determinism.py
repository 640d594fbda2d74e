"""Same seed, same data, fixed number of steps: the same result to the last digit on a CPU."""

import numpy as np
import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.training import scenario, threads, watch
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    RecommendationTask,
    RegressionTask,
    load_from_foundation_model,
)
from tests.e2e.engine.test_flow import next_items, spend
from tests.unit.engine.sample import comes_back, shop_config, write_config, write_shop


@pytest.mark.parametrize("task", ["spend", "items"])
def test_two_runs_with_one_seed_agree_to_the_last_digit(tmp_path, task):
    """Foundation model and scenario are bit for bit the same, another seed's are not."""
    shop = write_shop(tmp_path / "shop")

    def trained(name: str, seed: int) -> dict[str, torch.Tensor]:
        values = shop_config(shop, epochs=1, seed=seed, limit_train_batches=4)
        config = write_config(shop, values)
        pretrain(config_path=config, output_path=tmp_path / name)
        made = (RegressionTask(), spend) if task == "spend" else (RecommendationTask(), next_items)
        module = load_from_foundation_model(tmp_path / name, *made)
        module.fit(TrainingParams(epochs=1, limit_train_batches=4, seed=seed))
        return {**module.network.state_dict(), **module.head.state_dict(prefix="head.")}

    first, second = trained("one", 0), trained("two", 0)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    other = trained("three", 1)
    assert not np.all([torch.equal(value, other[name]) for name, value in first.items()])


def test_without_a_budget_nothing_is_decided_by_the_clock(tmp_path, monkeypatch):
    """No number of threads is measured in training, calibration, validation or prediction."""

    def measured(most: int) -> int:
        raise AssertionError("the number of threads was measured")

    for module in (scenario, threads, watch):
        monkeypatch.setattr(module, "calibrate_threads", measured)
    shop = write_shop(tmp_path / "shop")
    values = shop_config(shop, epochs=1, limit_train_batches=2)
    pretrain(config_path=write_config(shop, values), output_path=tmp_path / "fm")
    for task, function in (
        (BinaryClassificationTask(), comes_back),
        (RecommendationTask(), next_items),
    ):
        module = load_from_foundation_model(tmp_path / "fm", task, function)
        module.fit(TrainingParams(epochs=1, limit_train_batches=2))
        file = tmp_path / task.kind / "predictions.tsv"
        module.predict(TestingParams(output_type="decoded", local_save_location=file))
        assert len(file.read_text().splitlines()) > 1
