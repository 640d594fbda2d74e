"""Read `fm_config.yaml` into the schema's dataclasses.

A misspelt required key is an error that names the path to it; an unknown key elsewhere is one
warning that names the nearest known key; a field without effect warns too.
"""

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from monad.config import environment
from monad.config.params import TrainingParams, training_params_from_mapping
from monad.config.schema import (
    ATTRIBUTE,
    COLUMN_TYPES,
    ENTITY_ATTRIBUTE,
    EVENT,
    PARQUET_PARAMS,
    SNOWFLAKE_PARAMS,
    DataLoaderParams,
    DataLocation,
    DataParams,
    DataSource,
    DateColumn,
    FoundationModelConfig,
    JoinedDataSource,
    MemoryConstrainingParams,
    QueryOptimization,
    SharedEntity,
    Split,
    SqlLambda,
)
from monad.config.support import check_column_type, check_database, check_split
from monad.config.time_range import to_timestamp
from monad.config.values import names, typed
from monad.errors import ConfigError, nearest, problem

logger = logging.getLogger("monad.fit")
Made = TypeVar("Made")

_BLOCKS = (
    "data_sources",
    "data_params",
    "data_loader_params",
    "training_params",
    "memory_constraining_params",
    "query_optimization",
    "calibration_params",
)
# Goes with data_start_date, and another key is spelt more alike; ignored, training sees it all.
_MEANT = {"data_end_date": "training_end_date"}
_NO_EFFECT = {
    "data_loader_params": ("num_workers", "pin_memory"),
}
_DISJOINT = (
    ("training_end_date", "validation_start_date"),
    ("training_end_date", "test_start_date"),
    ("validation_end_date", "test_start_date"),
    ("training_and_validation_end", "test_start_date"),
)
_DATES = (
    "data_start_date",
    "training_end_date",
    "validation_start_date",
    "validation_end_date",
    "test_start_date",
    "test_end_date",
    "training_and_validation_end",
)


def load_config(path: Path | str) -> FoundationModelConfig:
    """Read and check one YAML file."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            problem("The configuration file does not exist", f"path {path}", "Check --config")
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(problem(f"{path.name} is not valid YAML", str(error))) from error
    return parse_config(raw, path.name)


def parse_config(raw: Any, where: str = "fm_config.yaml") -> FoundationModelConfig:
    """Check a configuration given as plain values; *where* begins every path in messages."""
    raw = _mapping(raw, where)
    _warn_unknown(raw, _BLOCKS, where)
    sources = _require(raw, "data_sources", where, _BLOCKS)
    if not isinstance(sources, list) or not sources:
        raise ConfigError(
            problem(f"{where}: data_sources must be a list", do="Add at least one event source")
        )
    parsed = [_source(item, f"{where}: data_sources[{i}]") for i, item in enumerate(sources)]
    _check_sources(parsed, where)
    params = _data_params(_require(raw, "data_params", where, _BLOCKS), f"{where}: data_params")
    training = dict(_mapping(raw.get("training_params") or {}, f"{where}: training_params"))
    training_params_from_mapping(training, f"{where}: training_params")
    fields = {f.name for f in dataclasses.fields(TrainingParams)}
    training = {key: value for key, value in training.items() if key in fields}
    return FoundationModelConfig(
        data_sources=parsed,
        data_params=params,
        data_loader_params=_optional(raw, "data_loader_params", DataLoaderParams, where),
        training_params=training,
        memory_constraining_params=_optional(
            raw, "memory_constraining_params", MemoryConstrainingParams, where
        ),
        query_optimization=_optional(raw, "query_optimization", QueryOptimization, where),
        calibration_params=_calibration(raw, where),
        raw=dict(raw),
    )


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            problem(f"{path} must be a mapping of keys to values", f"got {type(value).__name__}")
        )
    return value


def _require(values: Mapping[str, Any], key: str, path: str, known: Any) -> Any:
    if values.get(key) is None:
        others = [name for name in values if name not in known]
        hint = nearest(key, others) if others else f"Add `{key}`"
        separator = ": " if path.endswith((".yaml", ".yml")) else "."
        raise ConfigError(problem(f"{path}{separator}{key} is required", do=hint))
    return values[key]


def _warn_unknown(values: Mapping[str, Any], known: Any, path: str) -> None:
    for key in values:
        if key not in known:
            meant = _MEANT.get(key, key)
            logger.warning("%s: unknown key `%s` is ignored; %s", path, key, nearest(meant, known))


def _build(kind: type[Made], values: Mapping[str, Any], path: str) -> Made:
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    _warn_unknown(values, known, path)
    return kind(**typed(kind, {k: v for k, v in values.items() if k in known}, path))


def _optional(raw: Mapping[str, Any], block: str, kind: type[Made], where: str) -> Made:
    path = f"{where}: {block}"
    values = _mapping(raw.get(block) or {}, path)
    for name in _NO_EFFECT.get(block, ()):
        if values.get(name):
            logger.warning("%s.%s is accepted but has no effect in this engine", path, name)
    return _build(kind, values, path)


def _calibration(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = dict(_mapping(raw.get("calibration_params") or {}, f"{where}: calibration_params"))
    if values:
        logger.warning("%s: calibration_params is accepted but has no effect in this engine", where)
    return values


def _source(raw: Any, path: str) -> DataSource:
    values = _mapping(raw, path)
    known = [f.name for f in dataclasses.fields(DataSource)]
    kind = _require(values, "type", path, known)
    _require(values, "name", path, known)
    if kind not in (EVENT, ENTITY_ATTRIBUTE, ATTRIBUTE):
        kinds = (EVENT, ENTITY_ATTRIBUTE, ATTRIBUTE)
        raise ConfigError(problem(f"{path}.type is `{kind}`", do=nearest(str(kind), kinds)))
    if kind in (EVENT, ENTITY_ATTRIBUTE):
        _require(values, "main_entity_column", path, known)
    made = dict(values)
    made["data_location"] = _location(_require(values, "data_location", path, known), path)
    if kind == EVENT or values.get("date_column") is not None:
        date = _mapping(_require(values, "date_column", path, known), f"{path}.date_column")
        _require(date, "name", f"{path}.date_column", ("name", "format"))
        made["date_column"] = _build(DateColumn, date, f"{path}.date_column")
    if values.get("allowed_columns") and values.get("disallowed_columns"):
        raise ConfigError(
            problem(
                f"{path}: allowed_columns and disallowed_columns are mutually exclusive",
                do="Keep one of them",
            )
        )
    for name in ("allowed_columns", "disallowed_columns"):
        if values.get(name) is not None:
            names(values[name], f"{path}.{name}")
    made["joined_data_sources"] = [
        JoinedDataSource(str(item["name"]), _join_on(item["join_on"], f"{at}.join_on"))
        for at, item in _items(values, "joined_data_sources", ("name", "join_on"), path)
    ]
    made["sql_lambdas"] = [
        SqlLambda(**{key: str(value) for key, value in item.items()})
        for _, item in _items(values, "sql_lambdas", ("alias", "expression"), path)
    ]
    _check_aliases(made["sql_lambdas"], path)
    if values.get("joined_data_sources") and kind != EVENT:
        logger.warning(
            "%s.joined_data_sources has no effect on a source of type %s: tables are joined to"
            " event sources",
            path,
            kind,
        )
    overrides = dict(
        _mapping(values.get("column_type_overrides") or {}, f"{path}.column_type_overrides")
    )
    for column, wanted in overrides.items():
        check_column_type(wanted, f"{path}.column_type_overrides.{column}")
        if wanted not in COLUMN_TYPES:
            raise ConfigError(
                problem(
                    f"{path}.column_type_overrides.{column} is `{wanted}`",
                    do=nearest(str(wanted), COLUMN_TYPES),
                )
            )
    made["column_type_overrides"] = overrides
    made["shared_entities"] = [
        SharedEntity(str(item["name"]), names(item["columns"], f"{at}.columns"))
        for at, item in _items(values, "shared_entities", ("name", "columns"), path)
    ]
    return _build(DataSource, made, path)


def _items(
    values: Mapping[str, Any], block: str, keys: tuple[str, ...], path: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return the paths and the items of a list of mappings, each with all of *keys*."""
    given = values.get(block) or []
    if not isinstance(given, list):
        raise ConfigError(
            problem(
                f"{path}.{block} must be a list of mappings with {' and '.join(keys)}",
                f"got {type(given).__name__}",
            )
        )
    made = []
    for i, raw in enumerate(given):
        at = f"{path}.{block}[{i}]"
        item = _mapping(raw, at)
        _warn_unknown(item, keys, at)
        made.append((at, {key: _require(item, key, at, keys) for key in keys}))
    return made


def _join_on(given: Any, path: str) -> list[list[str]]:
    """Return pairs of an event source's column and the joined table's."""
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if not isinstance(pairs, list) or any(
        not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in pairs
    ):
        raise ConfigError(
            problem(
                f"{path} must be a list of pairs of columns",
                f"got {given!r}",
                "Write it like [[column of this source, column of the joined table]]",
            )
        )
    return [names(list(pair), path) for pair in pairs]


def _check_aliases(lambdas: list[SqlLambda], path: str) -> None:
    aliases = [item.alias.lower() for item in lambdas]
    for item in lambdas:
        if aliases.count(item.alias.lower()) > 1:
            raise ConfigError(problem(f"{path}.sql_lambdas: alias `{item.alias}` is used twice"))


def _location(raw: Any, path: str) -> DataLocation:
    path = f"{path}.data_location"
    values = _mapping(raw, path)
    known = [f.name for f in dataclasses.fields(DataLocation)]
    kind = _require(values, "database_type", path, known)
    check_database(kind, path)
    where = f"{path}.connection_params"
    params = _mapping(values.get("connection_params") or {}, where)
    if kind == "parquet":
        _require(params, "path", where, PARQUET_PARAMS)
        _warn_unknown(params, PARQUET_PARAMS, where)
        _mapping(params.get("config_overrides") or {}, f"{where}.config_overrides")
    if kind == "snowflake":
        _require(values, "table_name", path, known)
        for key in params:
            close = nearest(key, SNOWFLAKE_PARAMS)
            if key not in SNOWFLAKE_PARAMS and close.startswith("did you mean"):
                logger.warning("%s: `%s` is not documented; %s", where, key, close)
    return _build(DataLocation, values, path)


def _check_sources(sources: list[DataSource], where: str) -> None:
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(problem(f"{where}: data source name `{name}` is used twice"))
    if not any(source.type == EVENT for source in sources):
        raise ConfigError(problem(f"{where}: no source of type `event`", do="Add one"))
    attributes = {source.name for source in sources if source.type == ATTRIBUTE}
    for source in sources:
        for joined in source.joined_data_sources:
            if joined.name not in attributes:
                raise ConfigError(
                    problem(
                        f"{where}: source {source.name} joins `{joined.name}`",
                        "no source of type `attribute` has that name",
                        nearest(joined.name, attributes),
                    )
                )


def _data_params(raw: Any, path: str) -> DataParams:
    values = dict(_mapping(raw, path))
    known = [f.name for f in dataclasses.fields(DataParams)]
    _require(values, "data_start_date", path, known)
    if values.get("features_path"):
        text = str(values["features_path"])
        values["features_path"] = environment.substitute(text, f"{path}.features_path")
    split = _mapping(values.pop("split", None) or {}, f"{path}.split")
    values["split"] = _build(Split, split, f"{path}.split")
    check_split(split, f"{path}.split")
    if split.get("file") is not None:
        text = environment.substitute(str(split["file"]), f"{path}.split.file")
        values["split"] = dataclasses.replace(values["split"], file=text)
    if split and values.get("validation_start_date") is not None:
        logger.warning(
            "%s.split has no effect on scenarios: validation_start_date splits them by time", path
        )
    stamps = {}
    for key in _DATES:
        if values.get(key) is not None:
            if isinstance(values[key], str):
                values[key] = environment.substitute(values[key], f"{path}.{key}")
            stamps[key] = to_timestamp(values[key], f"{path}.{key}")
    ordered = [(key, stamps[key]) for key in _DATES[:6] if key in stamps]
    for (left, a), (right, b) in itertools.pairwise(ordered):
        if a > b:
            raise ConfigError(
                problem(f"{path}: {right} lies before {left}", f"{values[right]} < {values[left]}")
            )
    for left, right in _DISJOINT:
        if left in stamps and right in stamps and stamps[left] >= stamps[right]:
            raise ConfigError(
                problem(
                    f"{path}: {left} and {right} overlap",
                    f"{values[left]} is the last day of one range and not before {values[right]},"
                    " the first of the next: labels of that day would be in both",
                    f"Set {left} to the day before {right}",
                )
            )
    return _build(DataParams, values, path)
