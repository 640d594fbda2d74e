"""The foundation model's YAML as dataclasses.

Block and field names are the documented ones; the inner keys of `joined_data_sources`,
`sql_lambdas`, `shared_entities`, `split` and the four optional blocks are this engine's own.
"""

from dataclasses import dataclass, field
from typing import Any

EVENT = "event"
ENTITY_ATTRIBUTE = "main_entity_attribute"
ATTRIBUTE = "attribute"
PARQUET_PARAMS = ("path", "cache_path", "config_overrides")
# Others go to the connector as they are, too: it has many more.
SNOWFLAKE_PARAMS = (
    "user",
    "password",
    "account",
    "warehouse",
    "database",
    "db_schema",
    "schema",
    "role",
)
COLUMN_TYPES = (
    "decimal",
    "categorical",
    "categorical_compressed",
    "text",
    "time_series",
    "embedding",
    "date",
)


@dataclass(frozen=True)
class DataLocation:
    """Where a table is: the connector, its connection values and the table's name."""

    database_type: str
    connection_params: dict[str, Any] = field(default_factory=dict)
    table_name: str | None = None


@dataclass(frozen=True)
class DateColumn:
    """The event time: a column and, for text or numbers, its strptime format."""

    name: str
    format: str | None = None


@dataclass(frozen=True)
class JoinedDataSource:
    """An attribute table joined to an event source by pairs of (event, attribute) columns."""

    name: str
    join_on: list[list[str]]


@dataclass(frozen=True)
class SqlLambda:
    """A computed column: an SQL expression of the source's own dialect, and its name."""

    alias: str
    expression: str


@dataclass(frozen=True)
class SharedEntity:
    """Columns, of this source and others that use the name, that hold the same kind of thing."""

    name: str
    columns: list[str]


@dataclass(frozen=True)
class DataSource:
    """One table of `data_sources`."""

    type: str
    name: str
    data_location: DataLocation
    main_entity_column: str | None = None
    date_column: DateColumn | None = None
    allowed_columns: list[str] | None = None
    disallowed_columns: list[str] | None = None
    column_type_overrides: dict[str, str] = field(default_factory=dict)
    joined_data_sources: list[JoinedDataSource] = field(default_factory=list)
    sql_lambdas: list[SqlLambda] = field(default_factory=list)
    where_condition: str | None = None
    shared_entities: list[SharedEntity] = field(default_factory=list)


@dataclass(frozen=True)
class Split:
    """How entities are held out for validation: a percentage, a query or a file of ids."""

    percentage: float = 10.0
    query: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class DataParams:
    """Dates (inclusive days) and splits."""

    data_start_date: Any
    training_end_date: Any = None
    validation_start_date: Any = None
    validation_end_date: Any = None
    test_start_date: Any = None
    test_end_date: Any = None
    training_and_validation_end: Any = None
    features_path: str | None = None
    maximum_splitpoints_per_entity: int | None = None
    split: Split = field(default_factory=Split)


@dataclass(frozen=True)
class DataLoaderParams:
    """How batches are made; None adapts to data and device."""

    batch_size: int | None = None
    max_tokens_per_batch: int | None = None
    num_workers: int = 0
    pin_memory: bool = False


@dataclass(frozen=True)
class MemoryConstrainingParams:
    """The size of the model; None adapts to data, device and budget."""

    hidden_dim: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    max_history_events: int | None = None
    max_vocabulary: int = 100_000
    tail_buckets: int = 64
    max_memory: str | None = None


@dataclass(frozen=True)
class QueryOptimization:
    """How tables are read."""

    num_threads: int | None = None
    chunk_rows: int = 262_144


@dataclass(frozen=True)
class FoundationModelConfig:
    """A whole `fm_config.yaml`, with the text values it came from.

    Attributes:
        raw: The YAML as read, `${NAME}` references kept; this is what checkpoints store.
    """

    data_sources: list[DataSource]
    data_params: DataParams
    data_loader_params: DataLoaderParams
    training_params: dict[str, Any]
    memory_constraining_params: MemoryConstrainingParams
    query_optimization: QueryOptimization
    calibration_params: dict[str, Any]
    raw: dict[str, Any]

    def sources(self, kind: str) -> list[DataSource]:
        """Return the data sources of one type, in their order."""
        return [source for source in self.data_sources if source.type == kind]
