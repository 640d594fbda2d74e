"""The checked part of the foundation-model YAML."""

import pytest
import yaml

from monad_dagster.assets.model_config import read_model_config
from monad_dagster.errors import ConfigError

VARIABLES = {"SNOWFLAKE_DATABASE": "HM_KAGGLE", "SNOWFLAKE_SCHEMA": "PUBLIC"}


def _document() -> dict:
    location = {
        "database_type": "snowflake",
        "connection_params": {
            "database": "${SNOWFLAKE_DATABASE}",
            "db_schema": "${SNOWFLAKE_SCHEMA}",
        },
        "table_name": "transactions",
    }
    return {
        "data_sources": [
            {
                "type": "event",
                "name": "transactions",
                "main_entity_column": "customer_id",
                "date_column": {"name": "t_dat", "format": "%Y-%m-%d"},
                "data_location": location,
            }
        ],
        "data_params": {"data_start_date": "2018-09-20"},
    }


def _read(tmp_path, document):
    path = tmp_path / "fm_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return read_model_config(path, VARIABLES)


def test_tables_and_key_columns_are_found(tmp_path):
    """Each Snowflake source gives its table in upper case and the columns it needs."""
    table = _read(tmp_path, _document()).tables[0]
    assert (table.fqn, table.required_columns) == (
        "HM_KAGGLE.PUBLIC.TRANSACTIONS",
        ("customer_id", "t_dat"),
    )


def test_a_parquet_source_gives_no_table(tmp_path):
    """A source outside Snowflake has no edge to a source table."""
    document = _document()
    document["data_sources"][0]["data_location"] = {"database_type": "parquet", "path": "x"}
    assert _read(tmp_path, document).tables == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("data_params"), "data_params is required"),
        (
            lambda d: d.update(data_source=d.pop("data_sources")),
            "Rename data_source to data_sources",
        ),
        (lambda d: d["data_params"].clear(), "data_params.data_start_date is required"),
        (lambda d: d["data_params"].update(data_start_date="soon"), "data_start_date is 'soon'"),
        (lambda d: d["data_sources"][0].pop("date_column"), r"data_sources\[0\].date_column.name"),
        (lambda d: d["data_sources"][0].update(type="events"), "is 'events'"),
        (
            lambda d: d["data_sources"][0].pop("main_entity_column"),
            "main_entity_column is required",
        ),
        (
            lambda d: d["data_sources"][0]["data_location"].update(table_name="${NOPE}"),
            r"\$\{NOPE\}, which the job service does not have",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_path(tmp_path, change, message):
    """A missing, misspelt or wrong key is refused with its path and what to do."""
    document = _document()
    change(document)
    with pytest.raises(ConfigError, match=message):
        _read(tmp_path, document)


def test_broken_yaml_and_missing_file_are_refused(tmp_path):
    """A file that is not YAML, or not there, is refused by name."""
    path = tmp_path / "fm_config.yaml"
    with pytest.raises(ConfigError, match="does not exist"):
        read_model_config(path, VARIABLES)
    path.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_model_config(path, VARIABLES)
