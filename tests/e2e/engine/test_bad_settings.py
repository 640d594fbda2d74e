"""Settings of the wrong kind, entity ids, and places that cannot be written."""

import math
import re

import numpy as np
import pytest

from monad.config import EarlyStopping, EntityIds, TestingParams, TrainingParams
from monad.config.params import training_params_from_mapping
from monad.config.time_range import to_timestamp
from monad.errors import ConfigError, DataError
from monad.ui import pretrain
from monad.ui.module import BinaryClassificationTask, load_from_foundation_model
from tests.unit.engine.sample import comes_back, shop_config, write_config, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop with a small foundation model."""
    directory = write_shop(tmp_path_factory.mktemp("settings"), customers=20)
    pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
    return directory


def scenario(shop):
    """A scenario that is not trained."""
    return load_from_foundation_model(shop / "fm", BinaryClassificationTask(), comes_back)


@pytest.fixture(scope="module")
def trained(shop):
    """A scenario that is."""
    module = scenario(shop)
    module.fit(TrainingParams(epochs=1, limit_train_batches=1))
    return module


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [0, -1, 1.5, math.nan, True]),
        ("learning_rate", [0, -1.0, math.nan, math.inf, "x"]),
        ("time_budget_seconds", [0, -5, math.nan, math.inf, "soon"]),
        ("batch_size", [0, 1.5]),
        ("limit_train_batches", [0, -3, 0.5]),
        ("limit_val_batches", [-1, 0.5]),
        ("gradient_clip_val", [-1.0, math.nan]),
        ("check_val_every_n_steps", [0]),
        ("check_val_every_n_epochs", [0, -1]),
        ("checkpoint_every_n_steps", [0, -1]),
        ("seed", [-1, 0.5]),
        ("precision", ["8", "half"]),
        ("accelerator", ["tpuu"]),
        ("metric_monitoring_mode", ["lowest"]),
        ("early_stopping", [3, {"patiense": 3}]),
        ("metrics", [[5], "auroc"]),
        ("loss", [5]),
        ("entity_ids", [["c001"], "c001"]),
    ],
)
def test_training_settings_of_the_wrong_kind_are_named(name, values):
    """The setting and what was given are in the message, before any data is read."""
    for value in values:
        with pytest.raises(ConfigError, match=name):
            TrainingParams(**{name: value})
        with pytest.raises(ConfigError, match=name):
            training_params_from_mapping({name: value}, "fm_config.yaml: training_params")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_type", "decodet"),
        ("top_k", 0),
        ("top_k", -1),
        ("top_k", 1.5),
        ("limit_test_batches", 0),
        ("limit_test_batches", -1),
        ("accelerator", "tpuu"),
        ("entity_ids", ["c001"]),
        ("metrics", [5]),
    ],
)
def test_testing_settings_of_the_wrong_kind_are_named(name, value):
    """Zero is not taken for "not given", nor a list for entity ids."""
    with pytest.raises(ConfigError, match=name):
        TestingParams(**{"output_type": "decoded", name: value})


def test_numbers_of_other_libraries_are_numbers():
    """Whole floats and numpy's numbers count; what is given stays as given."""
    params = TrainingParams(
        epochs=np.int64(2),  # type: ignore[arg-type]
        batch_size=8.0,  # type: ignore[arg-type]
        learning_rate=np.float32(0.5),  # type: ignore[arg-type]
        gradient_clip_val=0,
        early_stopping={"patience": 2},  # type: ignore[arg-type]
    )
    assert (params.epochs, params.batch_size, params.learning_rate) == (2, 8, 0.5)
    assert params.early_stopping == EarlyStopping(patience=2)
    assert params.given == {
        "epochs", "batch_size", "learning_rate", "gradient_clip_val", "early_stopping",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["2020-07-01", np.datetime64("2020-07-01"), np.datetime64("2020-07-01T00:00:00")]
)
def test_dates_of_other_libraries_are_dates(value):
    """Text and numpy's dates are read alike; what is none is a clear error."""
    assert to_timestamp(value) == to_timestamp("2020-07-01")
    for wrong in ("soon", ["2020-07-01"], None, np.datetime64("NaT")):
        with pytest.raises(ConfigError, match="prediction_date is not a date"):
            to_timestamp(wrong, "prediction_date")  # type: ignore[arg-type]


def predicted(module, directory, **params):
    """The ids that were predicted."""
    file = directory / "p" / "predictions.tsv"
    module.predict(TestingParams(output_type="decoded", local_save_location=file, **params))
    return [line.split("\t")[0] for line in file.read_text().splitlines()[1:]]


def test_entity_ids_are_distinct_and_may_come_from_anything(trained, tmp_path):
    """Duplicates are predicted once; iterators, numpy arrays and files of other systems are read."""
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffc001\r\n c002 \r\n\r\nc001\r\n".encode())
    for given in (
        EntityIds(ids=["c001", "c002", "c001"]),
        EntityIds(ids=(name for name in ("c001", "c002"))),
        EntityIds(ids=np.array(["c001", "c002"])),  # type: ignore[arg-type]
        EntityIds(file=file),
    ):
        assert sorted(predicted(trained, tmp_path, entity_ids=given)) == ["c001", "c002"]


def test_entity_ids_that_are_none_are_an_error(shop, trained, tmp_path):
    """Empty, unknown and misspelt lists say so, in training and in prediction alike."""
    binary, empty = tmp_path / "ids.bin", tmp_path / "empty.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    empty.write_text("\n")
    for make, text in (
        (lambda: EntityIds(ids="c001"), "must be a list"),
        (lambda: EntityIds(ids=5), "must be a list"),  # type: ignore[arg-type]
        (lambda: EntityIds(ids=[]).resolve(), "entity_ids is empty"),
        (lambda: EntityIds(file=empty).resolve(), "entity_ids is empty"),
        (lambda: EntityIds(file=binary).resolve(), "is no text file"),
    ):
        with pytest.raises(ConfigError, match=text):
            make()
    unknown = EntityIds(ids=["zz", "yy"])
    text = re.escape(
        "None of the entity_ids is in the data. 2 asked for, such as zz; the data has 20"
    )
    with pytest.raises(DataError, match=text):
        predicted(trained, tmp_path, entity_ids=unknown)
    with pytest.raises(DataError, match=text):
        scenario(shop).fit(TrainingParams(epochs=1, entity_ids=unknown))


def test_ids_of_an_iterator_are_used_for_the_fingerprint_and_for_training(shop, tmp_path):
    """Reading ids twice, for `resume` and for the rows, does not lose them."""
    ids = EntityIds(ids=(f"c{i:03d}" for i in range(12)))
    module = scenario(shop)
    module.fit(
        TrainingParams(
            epochs=1, limit_train_batches=1, entity_ids=ids, checkpoint_dir=tmp_path / "c"
        )
    )
    assert (tmp_path / "c" / "lineage.json").is_file()
