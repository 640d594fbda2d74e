"""Data for the pipeline: a seeded, H&M-shaped sample and the reader of a user's own files.

`generate_sample` writes the tables TRANSACTIONS, CUSTOMERS and ARTICLES as Parquet;
`discover_tables` finds CSV and Parquet tables in a folder and prepares them for a stage.
Nothing here knows Snowflake or Dagster; numpy and pyarrow load on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monad_dagster.sample_data.generate import SampleSummary, generate_sample
    from monad_dagster.sample_data.tables import TableColumn, TableSource, discover_tables

__all__ = ["SampleSummary", "TableColumn", "TableSource", "discover_tables", "generate_sample"]

_HOMES = {
    "SampleSummary": "generate",
    "generate_sample": "generate",
    "TableColumn": "tables",
    "TableSource": "tables",
    "discover_tables": "tables",
}


def __getattr__(name: str) -> Any:
    """Load the module that defines *name* on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
