"""Training by two processes: each has batches of its own, and together they make one model."""

import json
import os

import pytest
import torch

from monad.config import TrainingParams
from monad.errors import ConfigError, DataError, EngineError
from monad.training import loop, ranks
from monad.training.pretraining import PretrainModule
from monad.ui import pretrain
from tests.unit.engine.sample import shop_config, write_config, write_shop


@pytest.mark.parametrize("budget", [None, 6.0])
def test_two_processes_learn_from_batches_of_their_own(tmp_path, monkeypatch, budget):
    """No batch of a pass is read by both, as many by one as by the other; one model is written.

    With OMP_NUM_THREADS set, Lightning leaves threads alone, and forked processes must not use many.
    """
    if budget is None:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    seen = tmp_path / "seen"
    seen.mkdir()
    plain = PretrainModule.training_step

    def step(self, batch, batch_idx):
        rank, size = ranks.rank_and_size()
        assert size == 2
        made = [int(batch["codes"][0].sum()), tuple(batch["length"].tolist())]
        with (seen / str(rank)).open("a") as file:
            file.write(json.dumps([self.current_epoch, made, self.progress()]) + "\n")
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(PretrainModule, "training_step", step)
    directory = write_shop(tmp_path, customers=60)
    values = shop_config(directory, epochs=2, accelerator="cpu", devices=2)
    if budget is not None:
        values = shop_config(directory, time_budget_seconds=budget, accelerator="cpu", devices=2)
    values["data_loader_params"] = {"max_tokens_per_batch": 100}
    pretrain(write_config(directory, values), directory / "out")
    first, second = (
        [json.loads(line) for line in (seen / str(rank)).read_text().splitlines()]
        for rank in (0, 1)
    )
    assert len(first) == len(second) >= 4
    if budget is None:
        for epoch in (0, 1):
            mine, other = ({str(x[1]) for x in rows if x[0] == epoch} for rows in (first, second))
            assert mine
            assert not mine & other
    else:
        assert [x[2] for x in first[11:]] == [x[2] for x in second[11:]]  # one rate for both
    content = torch.load(directory / "out" / "best_model.ckpt", weights_only=True)
    assert all(torch.isfinite(x).all() for x in content["network"].values())
    assert (directory / "out" / "lineage.json").is_file()


def test_batches_are_dealt_in_turn(monkeypatch):
    """Every process gets as many as the others; an incomplete last turn is left out."""
    dealt = {}
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank_and_size", lambda rank=rank: (rank, 3))
        dealt[rank] = list(ranks.dealt(iter(range(11))))
    assert dealt == {0: [0, 3, 6], 1: [1, 4, 7], 2: [2, 5, 8]}


def test_the_starting_process_does_not_touch_a_gpu(tmp_path, monkeypatch):
    """What is computed before the fork asks nothing of a GPU, as forked processes could not use it."""
    asked = []

    def ask(*args, **kwargs):
        asked.append(os.getpid())

    plain = torch.Tensor.backward
    monkeypatch.setattr(torch.accelerator, "current_accelerator", ask)
    monkeypatch.setattr(torch.Tensor, "backward", lambda *args: [ask(), plain(*args)])
    directory = write_shop(tmp_path, customers=60)
    values = shop_config(directory, epochs=1, accelerator="cpu", devices=2)
    pretrain(write_config(directory, values), directory / "out")
    assert os.getpid() not in asked
    weight = torch.zeros(1, requires_grad=True)
    torch.optim.AdamW([weight]).step()
    assert asked == [os.getpid()]  # so the check above sees what it is to see
    weight.sum().backward()  # autograd has a thread for each GPU, and asks how many there are
    assert asked == 2 * [os.getpid()]


def test_work_apart_gives_its_result_and_its_error():
    """A forked process does the work; what it raises is raised here, and its end is told."""
    assert ranks.apart(lambda: (os.getppid(), torch.ones(2).numpy().tolist())) == (
        os.getpid(),
        [1.0, 1.0],
    )
    with pytest.raises(DataError, match="no rows"):
        ranks.apart(lambda: _fail())
    with pytest.raises(EngineError, match="exit code 7"):
        ranks.apart(lambda: os._exit(7))


def _fail():
    raise DataError("no rows")


def test_several_gpus_need_a_process_that_has_used_none(monkeypatch):
    """The error comes before anything is forked, and says what to do."""
    monkeypatch.setattr(loop, "gpu_present", lambda: True)
    monkeypatch.setattr(loop, "gpu_used_here", lambda: True)
    params = TrainingParams(accelerator="gpu", devices=2)
    with pytest.raises(ConfigError, match="process of its own"):
        loop.device_settings(params)
    monkeypatch.setattr(loop, "gpu_used_here", lambda: False)
    assert loop.device_settings(params)["strategy"] == loop._FORKED
