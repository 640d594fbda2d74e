"""Same seed, same data, fixed number of steps: the same result to the last digit on a CPU."""

import numpy as np
import pytest
import torch

from monad.config import TrainingParams
from monad.ui import pretrain
from monad.ui.module import RecommendationTask, RegressionTask, load_from_foundation_model
from tests.e2e.engine.test_flow import next_items, spend
from tests.unit.engine.sample import shop_config, write_config, write_shop


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
