"""What an asset is made from: the latest materializations of its upstream assets."""

from dataclasses import dataclass

import dagster as dg

from monad_dagster.assets.keys import FOUNDATION_MODEL, IMAGE, STAGE_CONTENTS, data_version_of
from monad_dagster.errors import ConfigError, problem
from monad_dagster.pipes import compat
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.spcs.identifiers import StagePath


@dataclass(frozen=True)
class Upstream:
    """One upstream output.

    Attributes:
        name: The upstream asset.
        version: Its data version.
        mounted: Where the container sees the output.
        location: Where it is on the stage.
    """

    name: str
    version: str | None
    mounted: str
    location: StagePath


@dataclass(frozen=True)
class PushedImage:
    """The image to run: its reference in a specification and its manifest digest."""

    reference: str
    digest: str


def check_selection(context: dg.AssetExecutionContext) -> None:
    """Refuse a run that stages files without the slice this asset waits for.

    Dagster orders steps by the selected edges only; without the slice this asset could start before
    the files are uploaded.

    Raises:
        ConfigError: `stage_contents` is selected and the slice is not.
    """
    selected = compat.selected_assets(context)
    slices = [
        key
        for key in context.assets_def.asset_deps[context.asset_key]
        if key.path[0] == STAGE_CONTENTS.path[0]
    ]
    if STAGE_CONTENTS in selected and not selected & set(slices):
        names = ", ".join(key.to_user_string() for key in slices)
        raise ConfigError(
            problem(
                f"{context.asset_key.to_user_string()} would not wait for stage_contents",
                f"the run selects stage_contents without {names}",
                f"Select {names} too, for example with 'stage_contents+'",
            )
        )


def latest_image(context: dg.AssetExecutionContext) -> PushedImage:
    """Return the image of the latest materialization of `image`.

    Raises:
        ConfigError: `image` was never materialized.
    """
    event = _latest(context, IMAGE, None)
    metadata = event.metadata
    return PushedImage(str(metadata["image_path"].value), str(metadata["digest"].value))


def latest_output(
    context: dg.AssetExecutionContext,
    spcs: PipesSPCSClient,
    key: dg.AssetKey,
    *,
    fixed_path: str | None = None,
) -> Upstream:
    """Return the output of the latest materialization of *key*, for this partition if it has one.

    Args:
        context: The executing asset.
        spcs: Knows the stage and its mount path.
        key: The upstream asset.
        fixed_path: Path on the stage that does not depend on the attempt; None takes the path from
            the materialization's metadata.

    Raises:
        ConfigError: The asset was never materialized.
    """
    partition = None if key == FOUNDATION_MODEL else compat.partition_key_of(context)
    event = _latest(context, key, partition)
    if fixed_path is not None:
        location = spcs.stage_root / fixed_path
    else:
        location = StagePath.parse(str(event.metadata["spcs/output_path"].value))
    version = data_version_of(event)
    return Upstream(key.to_user_string(), version, location.mounted(spcs.mount_path), location)


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
