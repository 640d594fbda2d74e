"""Removal of old outputs from the stage, never of one that a live artefact names."""

import json
from collections.abc import Iterator

import dagster as dg

from monad_dagster.assets.keys import (
    FOUNDATION_MODEL,
    PREDICTIONS,
    SCENARIO_CHECKPOINT,
    data_version_of,
)
from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes import compat
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient

_OUTPUT = "spcs/output_path"
_UPSTREAM_OF = {SCENARIO_CHECKPOINT: FOUNDATION_MODEL, PREDICTIONS: SCENARIO_CHECKPOINT}


def remove_old_attempts(
    context: dg.AssetExecutionContext, session: Session, root: StagePath, *, keep: int
) -> None:
    """Remove outputs of this asset and partition beyond the newest *keep* materializations.

    An output stays while the latest materialization of any other asset was made from it. A failure
    to clean up is logged and never fails the materialization.
    """
    partition = compat.partition_key_of(context)
    try:
        attempts = _outputs(context.instance, context.asset_key, partition)
        in_use = _locations_in_use(context.instance)
        for location in attempts[keep:]:
            if location in in_use or not location.startswith("@"):
                continue
            path = StagePath.parse(location)
            if path.stage != root.stage or len(path.path.split("/")) < 2:
                continue  # never anything but an attempt directory of this stage
            removed = StageClient(session).remove_directory(path)
            if removed:
                context.log.info(f"Removed {removed} files of the old output {location}")
    except MonadDagsterError as error:
        context.log.warning(f"Old outputs were not removed: {error}")


def _outputs(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> list[str]:
    """Return output locations, newest first, each once."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None),
        limit=1000,
    ).records
    locations = [
        str(event.metadata[_OUTPUT].value)
        for record in records
        if (event := record.asset_materialization) is not None and _OUTPUT in event.metadata
    ]
    return list(dict.fromkeys(locations))


def _locations_in_use(instance: dg.DagsterInstance) -> set[str]:
    """Return the outputs that the latest materialization of any partition is, or was made from."""
    in_use: set[str] = set()
    for key in (FOUNDATION_MODEL, SCENARIO_CHECKPOINT, PREDICTIONS):
        versions: set[str] = set()
        for event in _latest_by_partition(instance, key):
            if _OUTPUT in event.metadata:
                in_use.add(str(event.metadata[_OUTPUT].value))
            upstream = _UPSTREAM_OF.get(key)
            if upstream is not None and "lineage" in event.metadata:
                versions |= _input_versions(event, upstream)
        upstream = _UPSTREAM_OF.get(key)
        if versions and upstream is not None:
            in_use |= _locations_of_versions(instance, upstream, versions)
    return in_use


def _latest_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> Iterator[dg.AssetMaterialization]:
    seen: set[str | None] = set()
    for record in instance.fetch_materializations(key, limit=1000).records:
        event = record.asset_materialization
        if event is not None and event.partition not in seen:
            seen.add(event.partition)
            yield event


def _input_versions(event: dg.AssetMaterialization, upstream: dg.AssetKey) -> set[str]:
    """Return the upstream data versions in an output's lineage."""
    lineage = event.metadata["lineage"].value
    document = json.loads(lineage) if isinstance(lineage, str) else lineage
    inputs = document.get("inputs") if isinstance(document, dict) else None
    version = inputs.get(upstream.to_user_string()) if isinstance(inputs, dict) else None
    return {str(version)} if version else set()


def _locations_of_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, versions: set[str]
) -> set[str]:
    return {
        str(event.metadata[_OUTPUT].value)
        for record in instance.fetch_materializations(key, limit=1000).records
        if (event := record.asset_materialization) is not None
        and _OUTPUT in event.metadata
        and data_version_of(event) in versions
    }
