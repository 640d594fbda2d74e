"""Every field of the configuration and the parameters does something, or is said not to."""

import ast
import dataclasses
import logging
from pathlib import Path

import pytest

from monad.config import TestingParams, TrainingParams, params, schema
from monad.config.loading import parse_config
from tests.unit.engine.sample import shop_config

ENGINE = Path(schema.__file__).resolve().parents[1]
KINDS = [
    schema.DataLocation,
    schema.DateColumn,
    schema.JoinedDataSource,
    schema.SqlLambda,
    schema.SharedEntity,
    schema.DataSource,
    schema.Split,
    schema.DataParams,
    schema.DataLoaderParams,
    schema.MemoryConstrainingParams,
    schema.QueryOptimization,
    params.EarlyStopping,
    params.MetricParams,
    params.CustomMetric,
    params.EntityIds,
    TrainingParams,
    TestingParams,
]
# Said in the log when given; the contract test of the listed names checks that it is.
SAID = {
    "DataLoaderParams.num_workers",
    "DataLoaderParams.pin_memory",
    "TrainingParams.top_k",
    "TrainingParams.predictions_threshold",
    "TestingParams.strategy",
    "TestingParams.callbacks",
}
FIELDS = [
    pytest.param(kind, field.name, id=f"{kind.__name__}.{field.name}")
    for kind in KINDS
    for field in dataclasses.fields(kind)
]


def _read_names() -> set[str]:
    """Attributes and strings that the engine reads outside the modules that define the fields."""
    found: set[str] = set()
    for path in ENGINE.rglob("*.py"):
        if path.parent.name == "config" and path.name in ("schema.py", "loading.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


READ = _read_names()


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_is_read_or_said_to_have_no_effect(kind, name):
    """The engine's code reads the field, or the list of fields without effect names it."""
    said = f"{kind.__name__}.{name}" in SAID
    assert said or name in READ, f"{kind.__name__}.{name} is read nowhere and nobody is told"


def test_a_configuration_with_effect_warns_of_nothing(tmp_path, caplog):
    """What is known and used is read without a warning."""
    with caplog.at_level(logging.WARNING, "monad"):
        parse_config(shop_config(tmp_path))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("data_params.trainig_end_date", "training_end_date"),
        ("data_params.split.percent", "percentage"),
        ("data_loader_params.batchsize", "batch_size"),
        ("memory_constraining_params.hidden_dims", "hidden_dim"),
        ("query_optimization.chunk_row", "chunk_rows"),
        ("data_sources.0.where_conditions", "where_condition"),
        ("data_sources.0.date_column.formats", "format"),
        ("data_sources.0.data_location.tablename", "table_name"),
        ("data_sources.0.joined_data_sources.0.join_in", "join_on"),
        ("data_sources.0.sql_lambdas.0.aliases", "alias"),
        ("data_loader_parameters", "data_loader_params"),
    ],
)
def test_unknown_keys_warn_with_the_nearest_name(tmp_path, caplog, path, nearest):
    """A misspelt key in any block is one warning that names the key and its neighbour."""
    values = shop_config(tmp_path)
    *above, last = path.split(".")
    place = values
    for part in above:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    place[last] = 1
    with caplog.at_level(logging.WARNING, "monad"):
        parse_config(values)
    assert f"unknown key `{last}` is ignored; did you mean `{nearest}`?" in caplog.text
