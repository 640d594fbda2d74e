"""One training by two GPUs; skipped where there are fewer (continuous integration has none).

Each training begins in a process of its own: one that has used a GPU cannot start several. Run it
where there are two: `python -m pytest tests/e2e/engine/test_two_gpus.py`.
"""

import multiprocessing

import pytest
import torch

from monad.config import TrainingParams
from monad.training.ranks import gpu_present
from monad.ui import pretrain
from monad.ui.module import RecommendationTask, load_from_foundation_model
from tests.e2e.engine.test_gpu import next_item
from tests.e2e.engine.test_tasks import TASKS
from tests.unit.engine.sample import shop_config, write_config, write_shop

pytestmark = pytest.mark.skipif(
    not gpu_present() or torch.cuda.device_count() < 2, reason="fewer than two GPUs"
)
BUDGET, DEVICES = 8.0, {"accelerator": "gpu", "devices": 2}


def by_itself(work, *arguments):
    """Do *work* in a fresh process, which must end well."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def pretrain_shop(directory):
    values = shop_config(directory, time_budget_seconds=BUDGET, **DEVICES)
    pretrain(write_config(directory, values), directory / "fm")


def fit(directory, name, folder):
    task, target_fn, _ = TASKS.get(name, (RecommendationTask(), next_item, []))
    module = load_from_foundation_model(directory / "fm", task, target_fn)
    module.fit(TrainingParams(checkpoint_dir=folder, time_budget_seconds=BUDGET, **DEVICES))


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """A foundation model that two GPUs have trained."""
    directory = write_shop(tmp_path_factory.mktemp("shop"), customers=400)
    by_itself(pretrain_shop, directory)
    return directory


@pytest.mark.parametrize("name", ["binary", "regression", "recommendation", "next_item"])
def test_two_gpus_train_one_model(by_two, tmp_path, name):
    """Pretraining and scenarios by two processes, one a GPU, within their budgets."""
    by_itself(fit, by_two, name, tmp_path / "sc")
    content = torch.load(tmp_path / "sc" / "best_model.ckpt", weights_only=True)
    assert all(torch.isfinite(x).all() for x in content["network"].values())
