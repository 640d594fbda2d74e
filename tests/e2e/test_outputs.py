"""Where outputs go, and which of them are removed."""

from dataclasses import replace

import dagster as dg
import pytest
import snowflake.connector

from monad_dagster.assets import build_graph
from monad_dagster.definitions import spcs_resource
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.stage import StageClient

STAGE = StagePath(QualifiedName("MONAD_DB", "DATA_SCHEMA", "MONAD_STAGE"))
MODEL = "image stage_contents stage_contents/pretrain foundation_model"


@pytest.fixture
def stage(local_account):
    """File operations with the pipeline's own rights."""
    with Session(lambda: snowflake.connector.connect(**local_account.connection())) as session:
        yield StageClient(session)


def _location(instance) -> StagePath:
    event = instance.get_latest_materialization_event(dg.AssetKey("foundation_model"))
    return StagePath.parse(event.asset_materialization.metadata["spcs/output_path"].value)


def _key(text: str) -> dg.AssetKey:
    return dg.AssetKey(text.split("/"))


def _run(settings, instance, partition=None, names=("foundation_model",)):
    return dg.materialize(
        build_graph(settings)["assets"],
        selection=dg.AssetSelection.assets(*names),
        partition_key=partition,
        resources={"spcs": spcs_resource(settings)},
        instance=instance,
    )


def test_old_outputs_go_and_what_a_live_artefact_names_stays(
    materialize, toy_settings, instance, stage
):
    """With one kept attempt the middle model goes; the one a scenario was made from stays."""
    materialize(MODEL, None)
    used = _location(instance)
    materialize("stage_contents stage_contents/train scenario_checkpoint")
    settings = replace(toy_settings, keep_attempts=1)
    locations = []
    for comment in ("second", "third"):
        # Outputs of one content have one version, and a version in use is never removed.
        config = toy_settings.fm_config
        config.write_text(f"{config.read_text()}\n# {comment}\n")
        _run(settings, instance, None, tuple(map(_key, MODEL.split())))
        locations.append(_location(instance))
    middle, newest = locations
    assert len({used, middle, newest}) == 3
    assert [bool(stage.list(path)) for path in (used, middle, newest)] == [True, False, True]


def test_the_documented_layout_writes_to_the_fixed_paths_again_and_again(
    materialize, toy_settings, instance, stage
):
    """With the documented settings every output has the page's path, also the second time."""
    slices = "stage_contents/pretrain stage_contents/train stage_contents/predict"
    materialize(f"image stage_contents {slices}", None)
    settings = replace(toy_settings, documented_layout=True)
    for _ in range(2):
        _run(settings, instance)
        _run(settings, instance, "churn", ("scenario_checkpoint",))
        _run(settings, instance, "churn", ("predictions",))
    found = {item.path.path for item in stage.list(STAGE)}
    assert {
        "fm_output/best_model.ckpt",
        "scenario_output/checkpoints/best_model.ckpt",
        "predictions/predictions.tsv",
    } <= found
