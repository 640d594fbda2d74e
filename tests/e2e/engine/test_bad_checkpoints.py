"""Checkpoints that are damaged, foreign or mixed, training that diverges, places to save."""

import json
import logging
import pickle
import shutil

import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.errors import CheckpointError, ConfigError
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    RegressionTask,
    load_from_checkpoint,
    load_from_foundation_model,
)
from tests.unit.engine.sample import comes_back, shop_config, write_config, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop with a foundation model, and a scenario in `c`."""
    directory = write_shop(tmp_path_factory.mktemp("checkpoints"), customers=20)
    pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
    scenario(directory).fit(
        TrainingParams(epochs=1, limit_train_batches=1, checkpoint_dir=directory / "c")
    )
    return directory


def scenario(shop):
    """A scenario that is not trained."""
    return load_from_foundation_model(shop / "fm", BinaryClassificationTask(), comes_back)


@pytest.fixture
def copy(shop, tmp_path):
    """A copy of the scenario checkpoint, to be damaged."""
    shutil.copytree(shop / "c", tmp_path / "c")
    return tmp_path / "c"


def turned(content):
    """The bytes with some in the middle changed."""
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - x for x in content[middle : middle + 64])
        + content[middle + 64 :]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda _: b"hello world",
        lambda _: pickle.dumps(print),
        turned,
    ],
    ids=["half", "empty", "text", "code", "turned"],
)
@pytest.mark.parametrize("manifest", [True, False])
def test_damaged_weights_are_not_used(copy, change, manifest, request):
    """A cut, foreign or altered file is told, the last by the manifest; nothing is unpickled."""
    file = copy / "best_model.ckpt"
    file.write_bytes(change(file.read_bytes()))
    if not manifest:
        (copy / "lineage.json").unlink()
        if change is turned:
            pytest.skip("only the manifest tells a changed number from another one")
    with pytest.raises(CheckpointError, match=r"cannot be read.*best_model\.ckpt.*train it again"):
        load_from_checkpoint(copy)


def saved(copy, change):
    """Save a changed content of `best_model.ckpt`, without a manifest that tells."""
    content = torch.load(copy / "best_model.ckpt", weights_only=True)
    torch.save(change(content), copy / "best_model.ckpt")
    (copy / "lineage.json").unlink()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: torch.ones(3), "it holds Tensor, not a mapping"),
        (lambda _: {"state_dict": {}}, "format None"),
        (lambda _: {"format": 2}, "KeyError 'representation'"),
        (lambda c: c | {"size": {"wide": 3}}, "unexpected keyword argument 'wide'"),
        (lambda c: c | {"network": dict([*c["network"].items()][1:])}, "do not fit.*Missing key"),
        (lambda c: c | {"head": {"x": torch.ones(1)}}, "do not fit"),
        (
            lambda c: c | {"head": {k: v * float("nan") for k, v in c["head"].items()}},
            "are not numbers",
        ),
    ],
)
def test_foreign_and_mixed_checkpoints_are_told(copy, change, text):
    """Files of other programs, other sizes and of several checkpoints are clear errors."""
    saved(copy, change)
    with pytest.raises(CheckpointError, match=text):
        load_from_checkpoint(copy)


@pytest.mark.parametrize("name", ["data.yaml", "task.yaml", "dataloader.yaml"])
@pytest.mark.parametrize("content", [b"", b"- 1", b"\xff\xfe\x00{", b"a: [", None])
def test_damaged_settings_are_named(copy, name, content):
    """The file and what is wrong with it are in the message."""
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"cannot be read.*{name}"):
        load_from_checkpoint(copy)


def test_a_task_of_another_checkpoint_does_not_fit(copy):
    """Weights of one task under the name of another are refused."""
    (copy / "task.yaml").write_text(
        "task: MulticlassClassificationTask\nparams: {class_names: [a, b]}"
    )
    with pytest.raises(CheckpointError, match="do not fit its settings.*several checkpoints"):
        load_from_checkpoint(copy)


def test_a_checkpoint_without_manifest_warns(copy, caplog):
    """A writer that was killed leaves no manifest: what is there can be used, with a warning."""
    (copy / "lineage.json").unlink()
    with caplog.at_level(logging.WARNING, "monad"):
        load_from_checkpoint(copy)
    assert "has no readable lineage.json" in caplog.text


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"hello", "cannot be loaded"), (b"", "cannot be loaded"), (pickle.dumps(5), "no function")],
)
def test_target_functions_that_cannot_be_loaded_are_told(copy, content, text):
    """A damaged file, or one with something else in it, is an error that says the way out."""
    (copy / "target_fn.bin").write_bytes(content)
    wanted = TestingParams(output_type="decoded")
    with pytest.raises(CheckpointError, match=r"target_fn\.bin.*differs"):
        load_from_checkpoint(copy, trust_target_fn=True).test(wanted)
    (copy / "lineage.json").unlink()
    module = load_from_checkpoint(copy, trust_target_fn=True)
    with pytest.raises(CheckpointError, match=f"{text}.*ass target_fn"):
        module.test(wanted)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"learning_rate": 1e30, "epochs": 3}, "Training diverged"),
        ({"loss": lambda output, target: (output - target).sum() * float("nan")}, "diverged"),
        ({"loss": lambda output, target: None}, "returned no loss.*None, for output of shape"),
        ({"loss": lambda output, target: output - target}, "returned no loss.*one number"),
        ({"loss": lambda output, target: torch.tensor(1.0)}, "returned no loss.*depends"),
        ({"loss": lambda output, target: output @ target}, "loss raised.*output of shape"),
        ({"metric_to_monitor": "val_nope"}, "metric_to_monitor is `val_nope`.*val_loss"),
        ({"callbacks": [5]}, "callbacks holds what is no callback"),
        ({"devices": 0}, "devices is 0"),
        ({"accelerator": "cpu", "strategy": "nope", "devices": 2}, "strategy"),
    ],
)
def test_training_that_cannot_work_writes_nothing(shop, tmp_path, fields, text):
    """Weights that are no numbers, losses that are none and refused settings end in an error."""
    params = {"epochs": 1, "limit_train_batches": 3, "checkpoint_dir": tmp_path / "c", **fields}
    with pytest.raises(ConfigError, match=text):
        scenario(shop).fit(TrainingParams(**params))
    assert not (tmp_path / "c" / "best_model.ckpt").exists()


def test_pretraining_that_diverges_writes_nothing(shop, tmp_path):
    """The foundation model is checked likewise."""
    values = shop_config(shop, epochs=2, learning_rate=1e30)
    with pytest.raises(ConfigError, match="Training diverged"):
        pretrain(write_config(tmp_path, values), tmp_path / "fm")
    assert not (tmp_path / "fm" / "best_model.ckpt").exists()


def test_places_that_cannot_be_written_are_told_before_any_work(shop, tmp_path):
    """A file where a directory must be, above or at the place, is found at once."""
    file = tmp_path / "file"
    file.write_text("mine")
    calls = []

    def counted(history, future, attributes, ctx):
        calls.append(1)
        return [1.0]

    module = load_from_foundation_model(shop / "fm", RegressionTask(), counted)
    trained = load_from_checkpoint(shop / "c")
    for place in (file, file / "deep" / "er"):
        with pytest.raises(CheckpointError, match="cannot be written.*not a directory"):
            module.fit(TrainingParams(checkpoint_dir=place))
        with pytest.raises(CheckpointError, match="cannot be written.*not a directory"):
            pretrain(shop / "fm_config.yaml", place)
        with pytest.raises(CheckpointError, match="cannot be written.*not a directory"):
            trained.predict(
                TestingParams(output_type="decoded", local_save_location=place / "p.tsv")
            )
    (tmp_path / "p.tsv").mkdir()
    with pytest.raises(CheckpointError, match="it is a directory"):
        trained.predict(
            TestingParams(output_type="decoded", local_save_location=tmp_path / "p.tsv")
        )
    assert not calls
    assert file.read_text() == "mine"


def test_predictions_do_not_replace_a_checkpoints_manifest(copy):
    """Beside a checkpoint they have a manifest of another name, in a directory of their own the usual."""
    module = load_from_checkpoint(copy)
    before = (copy / "lineage.json").read_text()
    beside = copy / "churners.tsv"
    module.predict(TestingParams(output_type="decoded", local_save_location=beside))
    assert (copy / "lineage.json").read_text() == before
    made = json.loads((copy / "churners.lineage.json").read_text())
    assert (made["kind"], made["files"][0]["path"]) == ("predictions", "churners.tsv")
    load_from_checkpoint(copy)
    place = copy.parent / "p" / "predictions.tsv"
    for _ in range(2):
        module.predict(TestingParams(output_type="decoded", local_save_location=place))
    assert json.loads((place.parent / "lineage.json").read_text())["kind"] == "predictions"
