"""What an asset is made from: the latest materializations of its upstream assets."""

from dataclasses import dataclass

import dagster as dg

from monad_dagster.assets.keys import IMAGE
from monad_dagster.errors import ConfigError, problem
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.spcs.identifiers import StagePath

_DATA_VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class Upstream:
    """One upstream output: its name, data version, and where the container sees it."""

    name: str
    version: str | None
    mounted: str


@dataclass(frozen=True)
class PushedImage:
    """The image to run: its reference in a specification and its manifest digest."""

    reference: str
    digest: str


def latest_image(context: dg.AssetExecutionContext) -> PushedImage:
    """Return the image of the latest materialization of `image`.

    Raises:
        ConfigError: `image` was never materialized.
    """
    event = _latest(context, IMAGE, None)
    metadata = event.metadata
    return PushedImage(str(metadata["image_path"].value), str(metadata["digest"].value))


def latest_output(
    context: dg.AssetExecutionContext, spcs: PipesSPCSClient, key: dg.AssetKey
) -> Upstream:
    """Return the output of the latest materialization of *key*, for this partition if it has one.

    Raises:
        ConfigError: The asset was never materialized.
    """
    partitioned = context.has_partition_key and key != dg.AssetKey("foundation_model")
    event = _latest(context, key, context.partition_key if partitioned else None)
    metadata = event.metadata
    name = "spcs/output_path" if "spcs/output_path" in metadata else "output_path"
    location = str(metadata[name].value)
    if location.startswith("@"):
        location = StagePath.parse(location).mounted(spcs.mount_path)
    return Upstream(key.to_user_string(), (event.tags or {}).get(_DATA_VERSION_TAG), location)


def _latest(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partition: str | None
) -> dg.AssetMaterialization:
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None),
        limit=1,
    ).records
    event = records[0].asset_materialization if records else None
    if event is None:
        named = f"{key.to_user_string()} ({partition})" if partition else key.to_user_string()
        raise ConfigError(
            problem(
                f"Upstream asset {named} was never materialized",
                "there is no output to start from",
                f"Materialize {key.to_user_string()} first, or select it together with this asset",
            )
        )
    return event
