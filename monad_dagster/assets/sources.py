"""The source tables as observable assets: their version is row count and last-altered time."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from monad_dagster.assets.keys import DATA_VERSION_TAG, GROUP_SOURCES, table_key
from monad_dagster.assets.model_config import ModelConfig, SourceTable
from monad_dagster.assets.preflight import TableFacts, read_table_facts
from monad_dagster.pipes import compat
from monad_dagster.pipes.client import PipesSPCSClient

if TYPE_CHECKING:
    from dagster import AssetsDefinition


def source_keys(config: ModelConfig) -> list[dg.AssetKey]:
    """Return the keys of the tables that *config* reads."""
    return sorted({_key(table) for table in config.tables})


def build_source_tables(config: ModelConfig) -> "list[AssetsDefinition]":
    """Return one observable asset for each source table; none when the config reads files."""
    if not config.tables:
        return []
    specs = [
        dg.AssetSpec(
            key,
            group_name=GROUP_SOURCES,
            kinds={"snowflake", "table"},
            description="A table that the foundation model reads.",
        )
        for key in source_keys(config)
    ]

    @dg.multi_observable_source_asset(name="source_tables", specs=specs)
    def source_tables(spcs: PipesSPCSClient) -> Iterator[dg.ObserveResult]:
        with spcs.session() as session:
            facts = read_table_facts(session, config.tables)
        for fact in {_key(item.table): item for item in facts}.values():
            yield dg.ObserveResult(
                asset_key=_key(fact.table),
                data_version=dg.DataVersion(fact.version),
                metadata=_metadata(fact),
            )

    return [source_tables]


def observe(context: dg.AssetExecutionContext, facts: Sequence[TableFacts]) -> None:
    """Log the versions that a job service is about to read, and make them its input versions."""
    for fact in {_key(item.table): item for item in facts}.values():
        key = _key(fact.table)
        context.log_event(
            dg.AssetObservation(
                key, metadata=_metadata(fact), tags={DATA_VERSION_TAG: fact.version}
            )
        )
        compat.forget_input_version(context, key)


def _key(table: SourceTable) -> dg.AssetKey:
    return table_key(table.database, table.schema, table.table)


def _metadata(fact: TableFacts) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {"last_altered": dg.MetadataValue.text(fact.last_altered)}
    if fact.row_count is not None:
        shown["dagster/row_count"] = dg.MetadataValue.int(fact.row_count)
    return shown
