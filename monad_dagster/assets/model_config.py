"""What the code location reads of the foundation-model YAML, without the engine.

Only names, tables and dates: enough to draw the edges to source tables and to refuse a wrong
config before a job service is paid for. The engine validates the whole file inside the container.
BaseModel YAML reference, blocks `data_sources` and `data_params`.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml

from monad_dagster.errors import ConfigError, problem

TOP_LEVEL_KEYS = (
    "data_sources",
    "data_params",
    "data_loader_params",
    "training_params",
    "memory_constraining_params",
    "query_optimization",
    "calibration_params",
)
_SOURCE_TYPES = ("event", "main_entity_attribute", "attribute")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class SourceTable:
    """One table of the config and the columns a run cannot do without."""

    source_name: str
    database: str
    schema: str
    table: str
    required_columns: tuple[str, ...]

    @property
    def fqn(self) -> str:
        """The name as Snowflake shows it."""
        return f"{self.database}.{self.schema}.{self.table}"


@dataclass(frozen=True)
class ModelConfig:
    """The checked part of a foundation-model YAML."""

    path: Path
    sha256: str
    tables: tuple[SourceTable, ...]
    data_start_date: date


def read_model_config(path: Path, variables: Mapping[str, str]) -> ModelConfig:
    """Parse and check *path*; `${NAME}` values come from *variables*, the job service's env.

    Raises:
        ConfigError: The file is missing, not YAML, or a key is missing or wrong.
    """
    if not path.is_file():
        raise ConfigError(
            problem(
                "The foundation-model config does not exist",
                f"looked for {path}",
                "Set MONAD_CONFIG_FILE, or run: monad-dagster init DIR",
            )
        )
    raw = path.read_bytes()
    try:
        document = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(
            problem(
                f"{path.name} is not valid YAML", " ".join(str(error).split()), "Correct the file"
            )
        ) from error
    if not isinstance(document, dict):
        raise _error(path, "the top level", f"is a {type(document).__name__}", "Make it a mapping")
    _refuse_misspelt(path, document)
    tables = _tables(path, document["data_sources"], variables)
    params = document["data_params"]
    if not isinstance(params, dict) or "data_start_date" not in params:
        raise _error(
            path, "data_params.data_start_date", "is required", "Add a date such as 2018-09-20"
        )
    for key, value in params.items():
        if str(key).endswith("_date") and value is not None:
            _date(path, f"data_params.{key}", value)
    start = _date(path, "data_params.data_start_date", params["data_start_date"])
    return ModelConfig(path, hashlib.sha256(raw).hexdigest(), tables, start)


def _refuse_misspelt(path: Path, document: Mapping[str, Any]) -> None:
    """Name a missing required block, and the misspelt key it probably hides behind."""
    for key in ("data_sources", "data_params"):
        if key in document:
            continue
        unknown = [str(name) for name in document if name not in TOP_LEVEL_KEYS]
        near = difflib.get_close_matches(key, unknown, n=1)
        hint = f"rename {near[0]} to {key}" if near else f"add the block {key}"
        raise _error(path, key, "is required", hint.capitalize())


def _tables(path: Path, sources: Any, variables: Mapping[str, str]) -> tuple[SourceTable, ...]:
    """Check every data source and collect the Snowflake tables among them."""
    if not isinstance(sources, list) or not sources:
        raise _error(path, "data_sources", "is not a list with entries", "List the tables to read")
    tables: list[SourceTable] = []
    types: list[str] = []
    for index, source in enumerate(sources):
        where = f"data_sources[{index}]"
        if not isinstance(source, dict):
            raise _error(path, where, "is not a mapping", "Give it type, name and data_location")
        for key in ("type", "name", "data_location"):
            if not source.get(key):
                raise _error(path, f"{where}.{key}", "is required", "Add it")
        if source["type"] not in _SOURCE_TYPES:
            raise _error(
                path, f"{where}.type", f"is '{source['type']}'", f"Use {', '.join(_SOURCE_TYPES)}"
            )
        types.append(source["type"])
        required = _required_columns(path, where, source)
        location = source["data_location"]
        if isinstance(location, dict) and location.get("database_type") == "snowflake":
            tables.append(_snowflake_table(path, where, source, location, required, variables))
    if "event" not in types:
        raise _error(path, "data_sources", "has no source of type event", "Add one")
    return tuple(tables)


def _required_columns(path: Path, where: str, source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a source of this type must name."""
    columns: list[str] = []
    if source["type"] in ("event", "main_entity_attribute"):
        if not source.get("main_entity_column"):
            raise _error(path, f"{where}.main_entity_column", "is required", "Name the column")
        columns.append(str(source["main_entity_column"]))
    if source["type"] == "event":
        column = source.get("date_column")
        if not isinstance(column, dict) or not column.get("name"):
            raise _error(path, f"{where}.date_column.name", "is required", "Name the column")
        columns.append(str(column["name"]))
    return tuple(columns)


def _snowflake_table(
    path: Path,
    where: str,
    source: Mapping[str, Any],
    location: Mapping[str, Any],
    columns: Sequence[str],
    variables: Mapping[str, str],
) -> SourceTable:
    """Resolve the table name of one Snowflake source."""
    params = location.get("connection_params") or {}
    parts = {
        "database": params.get("database"),
        "schema": params.get("db_schema", params.get("schema")),
        "table_name": location.get("table_name"),
    }
    for key, value in parts.items():
        if not value:
            raise _error(path, f"{where}.data_location.{key}", "is required", "Add it")
    database, schema, table = (
        _resolve(path, where, str(value), variables).upper() for value in parts.values()
    )
    return SourceTable(str(source["name"]), database, schema, table, tuple(columns))


def _resolve(path: Path, where: str, text: str, variables: Mapping[str, str]) -> str:
    """Replace `${NAME}`; only the job service's own variables are available."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in variables:
            raise _error(
                path,
                where,
                f"uses ${{{name}}}, which the job service does not have",
                f"Use one of {', '.join(sorted(variables))}",
            )
        return variables[name]

    return _VARIABLE.sub(value, text)


def _date(path: Path, where: str, value: Any) -> date:
    """Read a YAML date."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.fromisoformat(str(value)).date()
    except ValueError as error:
        raise _error(path, where, f"is '{value}'", "Write it as 2018-09-20") from error


def _error(path: Path, where: str, observed: str, do: str) -> ConfigError:
    return ConfigError(problem(f"{path.name}: {where} {observed}", "", do))
