"""The YAML schema: required keys, nearest names, substitution, exclusivities."""

import copy
import logging

import pytest

from monad.config import EntityIds, OutputType, TestingParams, TrainingParams
from monad.config.loading import parse_config
from monad.config.time_range import before, end_of
from monad.errors import ConfigError
from tests.unit.engine.sample import shop_config


@pytest.fixture
def values(tmp_path):
    """A valid configuration."""
    return copy.deepcopy(shop_config(tmp_path))


def test_valid_configuration_keeps_its_raw_text(values):
    """What is stored in checkpoints is the configuration as read."""
    config = parse_config(values)
    assert config.raw == values
    assert [source.name for source in config.sources("event")] == ["transactions"]


def test_misspelt_required_key_names_path_and_nearest(values):
    """A misspelt required key fails with the path to it and the key that was written."""
    values["data_sources"][0]["main_entity_colum"] = values["data_sources"][0].pop(
        "main_entity_column"
    )
    with pytest.raises(ConfigError, match=r"data_sources\[0\]\.main_entity_column is required"):
        parse_config(values)


def test_unknown_key_is_one_warning_with_the_nearest_name(values, caplog):
    """An unknown key in a known block warns once."""
    values["data_params"]["test_start_dat"] = "2020-01-01"
    with caplog.at_level(logging.WARNING, "monad.fit"):
        parse_config(values)
    lines = [r.getMessage() for r in caplog.records if "test_start_dat`" in r.getMessage()]
    assert len(lines) == 1
    assert "did you mean `test_start_date`?" in lines[0]


def test_an_end_of_the_data_is_the_end_of_training(values, caplog):
    """`data_end_date`, the natural partner of `data_start_date`, leads to the key that is meant."""
    values["data_params"]["data_end_date"] = "2020-01-01"
    with caplog.at_level(logging.WARNING, "monad.fit"):
        parse_config(values)
    assert "`data_end_date` is ignored; did you mean `training_end_date`?" in caplog.text


def test_field_without_effect_warns(values, caplog):
    """A field that is accepted but has no effect says so."""
    values["calibration_params"] = {"enabled": True}
    with caplog.at_level(logging.WARNING, "monad.fit"):
        parse_config(values)
    assert "calibration_params is accepted but has no effect" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("data_sources"), "data_sources is required"),
        (lambda v: v["data_params"].pop("data_start_date"), "data_params.data_start_date is"),
        (lambda v: v["data_sources"][0].update(type="events"), "did you mean `event`"),
        (lambda v: v["data_sources"].append(v["data_sources"][0]), "used twice"),
        (lambda v: v["data_params"].update(test_end_date="2020-01-02"), "lies before"),
        (lambda v: v["data_params"].update(test_end_date="soon"), "is not a date"),
        (
            lambda v: v["data_sources"][0].update(allowed_columns=["a"], disallowed_columns=["b"]),
            "mutually exclusive",
        ),
        (
            lambda v: v["data_sources"][0]["joined_data_sources"][0].update(name="article"),
            "did you mean `articles`",
        ),
    ],
)
def test_wrong_configuration_is_refused(values, change, message):
    """Each mistake is an error that says what to change."""
    change(values)
    with pytest.raises(ConfigError, match=message):
        parse_config(values)


def test_training_params_remember_what_was_given():
    """A budget may adapt only fields that were not given."""
    merged = TrainingParams(epochs=3).merged(TrainingParams(learning_rate=0.1))
    assert merged.given == {"epochs", "learning_rate"}
    assert TrainingParams().learning_rate == 0.0001


def test_testing_params_check_suffix_and_exclusivity():
    """Predictions go to a .tsv file; top_k and predictions_threshold exclude each other."""
    with pytest.raises(ConfigError, match=r"\.tsv"):
        TestingParams(output_type=OutputType.DECODED, local_save_location="out.csv")
    with pytest.raises(ConfigError, match="mutually exclusive"):
        TestingParams(output_type="decoded", top_k=3, predictions_threshold=0.5)
    with pytest.raises(TypeError):
        TestingParams()


def test_entity_ids_come_from_a_list_or_a_file(tmp_path):
    """Exactly one source of ids is accepted."""
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    assert EntityIds(file=tmp_path / "ids.txt").resolve() == ["a", "b"]
    with pytest.raises(ConfigError):
        EntityIds().resolve()


def test_dates_are_inclusive_days():
    """A range ends with the last second of its last day and a split lies before its first."""
    assert end_of("2020-01-01") + 1 == before("2020-01-02") + 1
