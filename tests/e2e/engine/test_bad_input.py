"""What a user gets from unusable target functions, tiny data and a full disk."""

import logging
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from monad.config import OutputType, TestingParams, TrainingParams
from monad.data.ingest import _mapped
from monad.errors import CheckpointError, DataError, TargetFunctionError
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    RegressionTask,
    load_from_checkpoint,
    load_from_foundation_model,
)
from tests.unit.engine.sample import shop_config, write_config, write_shop

HERE = Path(__file__).name


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A directory with data, configuration and a small foundation model."""
    directory = write_shop(tmp_path_factory.mktemp("bad"), customers=20)
    config = write_config(directory, shop_config(directory, epochs=1))
    pretrain(config_path=config, output_path=directory / "fm")
    return directory


def always(history, future, attributes, ctx):
    return np.array([1.0], dtype=np.float32)


def never(history, future, attributes, ctx):
    return None


def misspelt(history, future, attributes, ctx):
    return np.array([future["transactions"].sum("prise")])


def two_numbers(history, future, attributes, ctx):
    return np.array([1.0, 0.0])


def matrix(history, future, attributes, ctx):
    return np.ones((2, 3))


@pytest.mark.parametrize(
    ("function", "failed", "observed", "do"),
    [
        (never, "returned None for every row", "365 days before the end", "Check its window"),
        (
            misspelt,
            "The target function raised",
            "no column `prise`; did you mean",
            "Fix target_fn",
        ),
        (two_numbers, "the task cannot use", "needs an array of length 1", "or None to leave"),
        (matrix, "the task cannot use", "needs an array of length 1", "or None to leave"),
    ],
)
def test_an_unusable_target_function_writes_nothing(shop, tmp_path, function, failed, observed, do):
    """Fit fails before training, says what, why, what to do and where, and leaves no output."""
    module = load_from_foundation_model(shop / "fm", BinaryClassificationTask(), function)
    with pytest.raises(TargetFunctionError) as caught:
        module.fit(TrainingParams(checkpoint_dir=tmp_path / "checkpoints"))
    message = str(caught.value)
    for part in (failed, observed, do, HERE):
        assert part in message
    line = function.__code__.co_firstlineno + (function is misspelt)
    assert f"{HERE}, line {line}" in message
    assert not (tmp_path / "checkpoints").exists()
    assert (shop / "fm" / "lineage.json").is_file()


def test_one_main_entity_is_enough(tmp_path, caplog):
    """One entity trains without validation and is predicted; what has no value is said."""
    directory = write_shop(tmp_path / "one", customers=1)
    config = write_config(directory, shop_config(directory, epochs=1))
    pretrain(config_path=config, output_path=directory / "fm")
    module = load_from_foundation_model(directory / "fm", BinaryClassificationTask(), always)
    module.fit(TrainingParams(checkpoint_dir=directory / "checkpoints", epochs=1))
    logging.getLogger("monad.run").addHandler(caplog.handler)
    try:
        metrics = module.test(TestingParams(output_type=OutputType.DECODED))
    finally:
        logging.getLogger("monad.run").removeHandler(caplog.handler)
    assert metrics["test_rows"] == 1.0
    assert "test_auroc_0, test_baseline_recency_auroc_0 cannot be computed" in caplog.text
    file = tmp_path / "predictions.tsv"
    loaded = load_from_checkpoint(directory / "checkpoints")
    wanted = TestingParams(output_type=OutputType.DECODED, local_save_location=file)
    assert loaded.predict(wanted) == 1
    name, score = file.read_text().splitlines()[1].split("\t")
    assert name == "c000"
    assert 0.0 <= float(score) <= 1.0


@pytest.fixture
def small_disk(tmp_path):
    """A file system with little space, mounted for the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    # A memory-mapped file may live until the next collection, hence lazily.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_output_disk_is_no_result(shop, small_disk):
    """The message names the file, the error, the way out; no manifest, the model untouched."""
    before = (shop / "fm" / "lineage.json").read_text()
    module = load_from_foundation_model(shop / "fm", RegressionTask(), always)
    output = small_disk / "checkpoints"
    with pytest.raises(CheckpointError) as caught:
        module.fit(TrainingParams(checkpoint_dir=output, epochs=1, limit_train_batches=1))
    message = str(caught.value)
    for part in (f"{output}/", "No space left on device", "Free space", "is not used"):
        assert part in message
    assert not (output / "lineage.json").exists()
    assert (shop / "fm" / "lineage.json").read_text() == before


def test_a_full_scratch_disk_leaves_the_output_untouched(shop, small_disk, tmp_path, monkeypatch):
    """Running out of scratch is said as such, and the output directory is not begun."""
    monkeypatch.setenv("MONAD_SCRATCH_DIR", str(small_disk))
    module = load_from_foundation_model(shop / "fm", RegressionTask(), always)
    with pytest.raises(CheckpointError, match=r"(?s)full.*Free space.*MONAD_SCRATCH_DIR"):
        module.fit(TrainingParams(checkpoint_dir=tmp_path / "out", epochs=1))
    assert not (tmp_path / "out").exists()


def test_columns_that_do_not_fit_are_refused_before_they_are_written(small_disk):
    """A mapped column reserves its space: an error, where a write would end the process."""
    with pytest.raises(DataError, match=r"no space for the data.*No space left.*Free space"):
        _mapped(small_disk / "column.npy", np.float32, 100_000)
