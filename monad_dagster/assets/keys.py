"""Names of the asset graph: keys, groups, kinds and the slices of the stage contents.

`stage_contents` is the whole manifest. A *slice* is the part of it that one kind of job service
reads; job-service assets depend on their slice, so that a new scenario file does not make the
foundation model stale.
"""

import dagster as dg

IMAGE = dg.AssetKey("image")
STAGE_CONTENTS = dg.AssetKey("stage_contents")
FOUNDATION_MODEL = dg.AssetKey("foundation_model")
SCENARIO_CHECKPOINT = dg.AssetKey("scenario_checkpoint")
PREDICTIONS = dg.AssetKey("predictions")
SCENARIO_FILE = dg.AssetKey("scenario_file")

PIPELINE_KEYS = (IMAGE, STAGE_CONTENTS, FOUNDATION_MODEL, SCENARIO_CHECKPOINT, PREDICTIONS)

# Dagster's own tag on materializations and observations.
DATA_VERSION_TAG = "dagster/data_version"

SLICE_NAMES = ("pretrain", "train", "predict")

GROUP_ENVIRONMENT = "environment"
GROUP_MODEL = "model"
GROUP_SOURCES = "sources"
GROUP_OPERATIONS = "operations"


def data_version_of(event: dg.AssetMaterialization | dg.AssetObservation) -> str | None:
    """Return the data version an event carries."""
    return (event.tags or {}).get(DATA_VERSION_TAG)


def slice_key(name: str) -> dg.AssetKey:
    """Return the asset key of one slice of the stage contents."""
    return dg.AssetKey(["stage_contents", name])


def table_key(database: str, schema: str, table: str) -> dg.AssetKey:
    """Return the asset key of a source table, as Snowflake shows its name."""
    return dg.AssetKey([database.upper(), schema.upper(), table.upper()])
