"""A training that is killed continues from its last complete checkpoint."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from monad.config import TrainingParams
from monad.training import resume
from monad.ui import pretrain
from monad.ui.module import BinaryClassificationTask, load_from_foundation_model
from tests.unit.engine.sample import shop_config, write_config, write_shop

ROOT = Path(__file__).resolve().parents[3]
PRETRAIN = """
import os, signal, sys
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from monad.training import loop
from monad.ui import pretrain

class Kill(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

made = loop.lightning.Trainer
loop.lightning.Trainer = lambda **k: made(**{**k, "callbacks": [*k["callbacks"], Kill()]})
pretrain(Path(sys.argv[1]), Path(sys.argv[2]), resume=True)
"""


def churn(history, future, attributes, ctx):
    """Whether the customer stays away."""
    return np.array([float(future["transactions"].count() == 0)], dtype=np.float32)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop whose pretraining takes three epochs of a few steps each."""
    directory = write_shop(tmp_path_factory.mktemp("resume"), customers=40)
    values = shop_config(directory, epochs=3, checkpoint_every_n_steps=2, precision=32)
    values["data_loader_params"] = {"max_tokens_per_batch": 100}
    config = write_config(directory, values)
    pretrain(config_path=config, output_path=directory / "whole")
    return directory


def weights(path: Path) -> dict:
    """The tensors of a checkpoint."""
    content = torch.load(path / "best_model.ckpt", weights_only=True)
    return {**content["network"], **{f"head.{k}": v for k, v in content["head"].items()}}


def same(one: dict, other: dict) -> bool:
    """Whether two sets of tensors are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def run_killed(shop: Path, output: Path, step: int) -> None:
    """Pretrain in a process of its own that is killed right after *step*."""
    ended = subprocess.run(
        [sys.executable, "-c", PRETRAIN, str(shop / "fm_config.yaml"), str(output), str(step)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'container' / 'engine'}"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]


def test_a_killed_pretraining_ends_as_an_uninterrupted_one(shop, tmp_path, caplog):
    """Killed twice, in the middle of an epoch and in another one, the weights are the same bits."""
    steps = json.loads((shop / "whole" / "lineage.json").read_text())["metrics"]["steps"]
    assert steps >= 9
    output = tmp_path / "out"
    run_killed(shop, output, 3)
    assert [p.name for p in sorted((output / "partial").iterdir())] == [
        "000000000",
        "000000002",
        "kept",
    ]
    assert not (output / "lineage.json").exists()
    run_killed(shop, output, int(steps) - 2)
    with caplog.at_level("INFO", "monad"):
        pretrain(config_path=shop / "fm_config.yaml", output_path=output, resume=True)
    assert "Resume: continuing from step" in caplog.text
    assert same(weights(output), weights(shop / "whole"))
    assert not (output / "partial").exists()
    listed = {e["path"] for e in json.loads((output / "lineage.json").read_text())["files"]}
    assert {"best_model.ckpt", "data.yaml", "features/representation.pt"} <= listed


def test_a_damaged_partial_checkpoint_is_left_out_for_the_one_before(shop, tmp_path, caplog):
    """A truncated state or a missing manifest is passed over; the result is still the same."""
    output = tmp_path / "out"
    run_killed(shop, output, 7)
    newest = max(p for p in (output / "partial").iterdir() if p.name.isdigit())
    (newest / "state.ckpt").write_bytes(b"half")
    with caplog.at_level("INFO", "monad"):
        pretrain(config_path=shop / "fm_config.yaml", output_path=output, resume=True)
    assert f"{newest.name}/state.ckpt differs" in caplog.text
    assert "Resume: continuing from step" in caplog.text
    assert same(weights(output), weights(shop / "whole"))


def test_another_configuration_does_not_continue(shop, tmp_path, caplog):
    """Partial checkpoints of other settings are said to be left out, and training starts anew."""
    output = tmp_path / "out"
    run_killed(shop, output, 3)
    values = shop_config(shop, epochs=1, seed=5)
    directory = tmp_path / "other"
    directory.mkdir()
    config = write_config(directory, values)
    with caplog.at_level("INFO", "monad"):
        pretrain(config_path=config, output_path=output, resume=True)
    assert "made with another configuration" in caplog.text
    assert (output / "lineage.json").is_file()
    assert not (output / "partial").exists()


class _Stop(Exception):
    """Stands for the process's end."""


@pytest.mark.parametrize("step", [2, 3, 5])
def test_an_interrupted_scenario_ends_as_an_uninterrupted_one(shop, tmp_path, step):
    """`TrainingParams(resume=True)` continues and ends with the same weights and best epoch."""
    from lightning.pytorch.callbacks import Callback

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == step:
                raise _Stop

    def module():
        return load_from_foundation_model(shop / "whole", BinaryClassificationTask(), churn)

    fields = {"epochs": 2, "limit_train_batches": 3, "checkpoint_every_n_steps": 1}
    module().fit(TrainingParams(checkpoint_dir=tmp_path / "whole", **fields))
    with pytest.raises(_Stop):
        module().fit(
            TrainingParams(checkpoint_dir=tmp_path / "cut", callbacks=[Interrupt()], **fields)
        )
    assert (tmp_path / "cut" / "partial").is_dir()
    module().fit(TrainingParams(checkpoint_dir=tmp_path / "cut", resume=True, **fields))
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    names = [
        sorted(p.name for p in (tmp_path / d / "lightning_checkpoints").iterdir())
        for d in ("cut", "whole")
    ]
    assert names[0] == names[1]


def test_two_partial_checkpoints_stay_and_unneeded_files_go(tmp_path):
    """Older steps are removed after a newer manifest is complete, with files nobody names."""
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    (scratch / "lightning_checkpoints").mkdir(parents=True)
    writer = resume.PartialWriter(output, scratch, "key")
    for step in range(1, 5):
        for old in (scratch / "lightning_checkpoints").iterdir():
            old.unlink()
        (scratch / "lightning_checkpoints" / f"epoch={step}.ckpt").write_text(str(step))
        state = scratch / "state.ckpt"
        state.write_text("state")
        writer.write(state, step=step, epoch=step, batch=0, used_seconds=1.5)
    assert sorted(p.name for p in (output / "partial").iterdir()) == [
        "000000003",
        "000000004",
        "kept",
    ]
    kept = {p.name for p in (output / "partial" / "kept" / "lightning_checkpoints").iterdir()}
    assert kept == {"epoch=3.ckpt", "epoch=4.ckpt"}
    shutil.rmtree(scratch)
    scratch.mkdir()
    found = resume.newest(output, "key", scratch)
    assert (found.step, found.used_seconds) == (4, 1.5)
    assert (scratch / "lightning_checkpoints" / "epoch=4.ckpt").read_text() == "4"


SCENARIO = """
from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

from monad.ui.module import BinaryClassificationTask

MARK = Path({mark!r})
TASK = BinaryClassificationTask()


def target_fn(history, future, attributes, ctx):
    return np.array([float(future["transactions"].count() == 0)], dtype=np.float32)


class Once(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4 and not MARK.exists():
            MARK.touch()
            raise RuntimeError("the node is gone")


TRAINING = {{
    "epochs": 2, "limit_train_batches": 3, "checkpoint_every_n_steps": 1, "callbacks": [Once()]
}}
"""


def test_the_train_script_resumes_in_its_directory(shop, tmp_path, monkeypatch, caplog):
    """`train.py --resume` continues after a lost node, and its manifest holds the result only."""
    monkeypatch.syspath_prepend(str(ROOT / "container" / "scripts"))
    monkeypatch.delitem(sys.modules, "train", raising=False)
    train = importlib.import_module("train")
    monkeypatch.delitem(sys.modules, "train")
    file = tmp_path / "scenario.py"
    file.write_text(SCENARIO.format(mark=str(tmp_path / "mark")))
    arguments = ["--checkpoint-dir", str(shop / "whole"), "--save-path", str(tmp_path / "out")]
    arguments += ["--scenario", str(file)]
    with pytest.raises(RuntimeError, match="node is gone"):
        train.main(arguments)
    manifests = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("lineage.json")]
    assert manifests
    assert {p.parts[:2] for p in manifests} == {("checkpoints", "partial")}
    with caplog.at_level("INFO", "monad"):
        train.main([*arguments, "--resume"])
    assert "Resume: continuing from step" in caplog.text
    listed = json.loads((tmp_path / "out" / "lineage.json").read_text())["files"]
    names = {entry["path"] for entry in listed}
    assert "checkpoints/best_model.ckpt" in names
    assert not any("partial" in name for name in names)
