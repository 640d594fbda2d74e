"""Values of the YAML and of the parameters as people write them: taken, refused or warned of."""

import logging

import pytest
import yaml

from monad.config import (
    CustomMetric,
    EarlyStopping,
    EntityIds,
    MetricMonitoringMode,
    MetricParams,
    OutputType,
    TestingParams,
    TrainingParams,
)
from monad.config.loading import parse_config
from monad.errors import ConfigError
from monad.training.settings import training_params
from tests.unit.engine.sample import shop_config


@pytest.fixture
def values(tmp_path):
    """A valid configuration."""
    return shop_config(tmp_path)


def said(caplog, change, values) -> str:
    """Warnings of a configuration after a change of its first source or of all."""
    change(values)
    with caplog.at_level(logging.WARNING, "monad"):
        parse_config(values)
    return caplog.text


@pytest.mark.parametrize("text", ["learning_rate: 1e-4", "learning_rate: '0.0001'"])
def test_numbers_that_yaml_reads_as_text_are_numbers(values, text):
    """YAML reads `1e-4` as text; it is the learning rate that was meant."""
    values["training_params"] |= {**yaml.safe_load(text), "epochs": "3"}
    values["memory_constraining_params"]["hidden_dim"] = "32"
    config = parse_config(values)
    params = training_params(config)
    assert (params.learning_rate, params.epochs) == (0.0001, 3)
    assert config.memory_constraining_params.hidden_dim == 32


def test_unknown_training_parameter_warns_once(values, caplog):
    """More fields are documented than can be known, so an unknown one does not end the run."""
    values["training_params"]["epoch"] = 5
    with caplog.at_level(logging.WARNING, "monad"):
        training_params(parse_config(values))
    lines = [r.getMessage() for r in caplog.records if "`epoch`" in r.getMessage()]
    assert len(lines) == 1
    assert "did you mean `epochs`?" in lines[0]


def test_keys_without_a_value_are_left_out(values):
    """A bare `epochs:` is as if it were not there; null where it means something stays."""
    values["training_params"] |= {"epochs": None, "check_val_every_n_epochs": None}
    values["memory_constraining_params"]["max_vocabulary"] = None
    config = parse_config(values)
    params = training_params(config)
    assert (params.epochs, params.check_val_every_n_epochs) == (1, None)
    assert "epochs" not in params.given
    assert config.memory_constraining_params.max_vocabulary == 100_000


def test_small_types_are_made_from_mappings(values):
    """Early stopping, metrics and entity ids can be written in YAML."""
    values["training_params"] |= {
        "early_stopping": {"patience": 2},
        "metrics": [{"alias": "top", "metric_name": "f1"}, "brier"],
        "entity_ids": {"ids": ["a"]},
        "metric_monitoring_mode": "MAX",
    }
    params = training_params(parse_config(values))
    assert params.early_stopping == EarlyStopping(patience=2)
    assert params.metrics == [MetricParams("top", "f1"), MetricParams("brier")]
    assert params.entity_ids == EntityIds(ids=["a"])
    assert params.metric_monitoring_mode is MetricMonitoringMode.MAX


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "many"}, "epochs must be a whole number"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"learning_rate": -1}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"precision": "bf17"}, "precision is `bf17`"),
        ({"accelerator": "gpuu"}, "did you mean `gpu`"),
        ({"strategy": "dpp"}, "did you mean `ddp`"),
        ({"devices": "two"}, "devices must be a whole number"),
        ({"devices": 0}, "devices is 0"),
        ({"limit_train_batches": -1}, "limit_train_batches must be at least 1"),
        ({"gradient_clip_val": -1}, "gradient_clip_val must be at least 0"),
        ({"early_stopping": 3}, r"EarlyStopping\(patience, min_delta\)"),
        ({"early_stopping": {"patiense": 3}}, "did you mean `patience`"),
        ({"metric_monitoring_mode": "maximum"}, "did you mean `max`"),
        ({"metrics": "auroc"}, "must be a list"),
        ({"metrics": [{"name": "auroc"}]}, "not a field of MetricParams"),
        ({"entity_ids": "ids.txt"}, r"EntityIds\(ids, file\)"),
    ],
)
def test_unusable_training_parameters_are_refused_at_once(values, given, message):
    """A value that cannot be used is an error before any data is read, in Python and in YAML."""
    with pytest.raises(ConfigError, match=message):
        TrainingParams(**given)
    values["training_params"].update(given)
    with pytest.raises(ConfigError, match="training_params"):
        parse_config(values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_k": -1}, "top_k must be at least 1"),
        ({"limit_test_batches": -1}, "limit_test_batches must be at least 1"),
        ({"predictions_threshold": 1.5}, "between 0 and 1"),
        ({"predictions_threshold": "high"}, "must be a number"),
        ({"output_type": "decodedd"}, "did you mean `decoded`"),
        ({"accelerator": "tpuu"}, "accelerator is `tpuu`"),
        ({"devices": []}, "devices is"),
    ],
)
def test_unusable_testing_parameters_are_refused_at_once(given, message):
    """A value that cannot be used is an error before any prediction."""
    with pytest.raises(ConfigError, match=message):
        TestingParams(**({"output_type": OutputType.DECODED} | given))


def test_other_spellings_of_the_same_are_taken():
    """Lightning's short precisions, devices as text, metrics by name."""
    assert TrainingParams(precision=16).precision == "16-mixed"
    assert TestingParams("decoded", precision="bf16").precision == "bf16-mixed"
    assert TestingParams("DECODED").precision == 32
    assert TrainingParams(devices="2").devices == 2
    assert TrainingParams(devices="0,1").devices == [0, 1]
    mine = CustomMetric("mine", lambda *_: 0.0)
    assert TrainingParams(metrics=["f1", mine]).metrics == [MetricParams("f1"), mine]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"allowed_columns": "price"}, "allowed_columns must be a list"),
        ({"disallowed_columns": "price"}, "disallowed_columns must be a list"),
        ({"column_type_overrides": [{"price": "decimal"}]}, "must be a mapping"),
        ({"sql_lambdas": {"twice": "price * 2"}}, "list of mappings with alias and expression"),
        ({"sql_lambdas": [{"alias": "a", "expression": "1"}] * 2}, "`a` is used twice"),
        ({"shared_entities": [{"name": "x", "columns": "price"}]}, "columns must be a list"),
        ({"joined_data_sources": ["articles"]}, "must be a mapping"),
        *(
            ({"joined_data_sources": [{"name": "articles", "join_on": on}]}, "list of pairs")
            for on in ("article_id", ["article_id"], ["a", "b"], [["a", "b", "c"]])
        ),
        ({"date_column": "t_dat"}, "date_column must be a mapping"),
        (
            {"data_location": {"database_type": "parquet", "connection_params": {"pth": "x"}}},
            "path is required. did you mean `pth`",
        ),
        ({"data_location": {"database_type": "snowflake"}}, "table_name is required"),
    ],
)
def test_values_of_the_wrong_shape_name_the_right_one(values, change, message):
    """A list written as text, a pair as a list: an error with the path and the shape."""
    values["data_sources"][0].update(change)
    with pytest.raises(ConfigError, match=message):
        parse_config(values)


def test_joins_may_be_a_mapping(values):
    """`join_on: {left: right}` is the same as a list of pairs."""
    values["data_sources"][0]["joined_data_sources"][0]["join_on"] = {"ARTICLE_ID": "article_id"}
    joined = parse_config(values).data_sources[0].joined_data_sources[0]
    assert joined.join_on == [["ARTICLE_ID", "article_id"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["data_sources"][2].update(
                joined_data_sources=[{"name": "articles", "join_on": [["age", "article_id"]]}]
            ),
            "joined_data_sources has no effect on a source of type main_entity_attribute",
        ),
        (lambda v: v["data_params"].update(split={"percentage": 0.2}), "0.2 percent"),
        (
            lambda v: v["data_sources"][0]["data_location"]["connection_params"].update(
                cache_pth="x"
            ),
            "did you mean `cache_path`",
        ),
        (
            lambda v: v["data_sources"][0].update(
                data_location={
                    "database_type": "snowflake",
                    "connection_params": {"acount": "x"},
                    "table_name": "t",
                }
            ),
            "did you mean `account`",
        ),
    ],
)
def test_what_has_no_effect_is_said(values, caplog, change, message):
    """A join of an attribute table and a misspelt connection value warn."""
    assert message in said(caplog, change, values)


def test_the_file_of_a_split_may_be_in_the_environment(values, tmp_path, monkeypatch):
    """As other paths are; a file that is no text is named."""
    monkeypatch.setenv("IDS", str(tmp_path / "ids"))
    values["data_params"]["split"] = {"file": "${IDS}"}
    assert parse_config(values).data_params.split.file == str(tmp_path / "ids")
    (tmp_path / "ids").write_bytes(b"PAR1\x94")
    with pytest.raises(ConfigError, match="split.file is no text file"):
        EntityIds(file=tmp_path / "ids").resolve("split.file")
