"""Output rules: manifest last, storage configuration, trust, predictions."""

import json

import numpy as np
import pytest

from monad.errors import CheckpointError, ConfigError, NotBuiltError
from monad.io.checkpoint import load_target_fn, pickled_by_value, read_checkpoint
from monad.io.predictions import header
from monad.io.storage import resolve_output
from monad.io.writer import prepare_output, publish
from monad.ui.module import MultilabelClassificationTask, RecommendationTask, RegressionTask


def test_manifest_lists_files_and_the_data_version_follows_them(tmp_path, monkeypatch):
    """The data version changes with content only; inputs come from the environment."""
    monkeypatch.setenv("MONAD_LINEAGE_INPUTS", json.dumps({"image": "sha256:1"}))
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "b.txt").write_text("b")
    (source / "folder" / "a.txt").write_text("a")
    first = publish(source, tmp_path / "one", {"kind": "predictions"})
    second = publish(source, tmp_path / "two", {"kind": "predictions"})
    assert first["data_version"] == second["data_version"]
    assert [entry["path"] for entry in first["files"]] == ["b.txt", "folder/a.txt"]
    written = json.loads((tmp_path / "one" / "lineage.json").read_text())
    assert written["inputs"] == {"image": "sha256:1"}
    (source / "b.txt").write_text("c")
    third = publish(source, tmp_path / "three", {"kind": "predictions"})
    assert third["data_version"] != first["data_version"]


def test_resume_redoes_a_directory_without_manifest(tmp_path):
    """Only a directory with its manifest counts as complete."""
    (tmp_path / "best_model.ckpt").write_text("half")
    assert prepare_output(tmp_path, resume=True, overwrite=False) is False
    (tmp_path / "lineage.json").write_text("{}")
    assert prepare_output(tmp_path, resume=True, overwrite=False) is True
    with pytest.raises(CheckpointError, match="mutually exclusive"):
        prepare_output(tmp_path, resume=True, overwrite=True)


def test_storage_configuration(tmp_path):
    """Absent means local; a root is prepended; other backends are refused by name."""
    file = tmp_path / "storage.yaml"
    assert resolve_output(tmp_path / "x", None) == tmp_path / "x"
    file.write_text(f"backend: local\nroot: {tmp_path}\n")
    assert resolve_output(type(tmp_path)("x"), file) == tmp_path / "x"
    file.write_text("backend: s3\n")
    with pytest.raises(NotBuiltError, match="s3"):
        resolve_output(tmp_path, file)
    file.write_text("rooot: x\n")
    with pytest.raises(ConfigError, match="root"):
        resolve_output(tmp_path, file)


def test_target_function_is_stored_by_value_and_needs_trust(tmp_path):
    """A closure of a module that is gone elsewhere still loads, with trust only."""
    factor = 3

    def target_fn(history, future, attributes, ctx):
        return np.array([float(factor)])

    (tmp_path / "target_fn.bin").write_bytes(pickled_by_value(target_fn))
    with pytest.raises(CheckpointError, match="trust_target_fn=True"):
        load_target_fn(tmp_path, trust=False)
    assert load_target_fn(tmp_path, trust=True)(None, None, None, None).tolist() == [3.0]


def test_directory_without_checkpoint_is_named(tmp_path):
    """A wrong directory fails with what to give instead."""
    with pytest.raises(CheckpointError, match="no best_model"):
        read_checkpoint(tmp_path)


def test_prediction_columns():
    """Column names depend on the task."""
    assert header(RecommendationTask(), 2) == ["item_1", "item_2", "score_1", "score_2"]
    assert header(RegressionTask(), None) == ["prediction"]
    assert header(RegressionTask(num_targets=2), None) == ["prediction_0", "prediction_1"]
    assert header(MultilabelClassificationTask(class_names=["a", "b"]), None) == ["a", "b"]
