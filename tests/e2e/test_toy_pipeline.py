"""The graph over real job services of the local account, with scripts that take a second."""

import json
import os
import signal

import dagster as dg
import pytest
import snowflake.connector
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from monad_dagster.assets import build_graph
from monad_dagster.assets.keys import PIPELINE_KEYS
from monad_dagster.definitions import spcs_resource
from monad_dagster.errors import MonadDagsterError

VERSION_TAG = "dagster/data_version"


def _event(instance, name: str) -> dg.AssetMaterialization:
    found = instance.get_latest_materialization_event(dg.AssetKey(name))
    assert found is not None
    return found.asset_materialization


def _query(account, text: str) -> list[tuple]:
    with snowflake.connector.connect(**account.connection()) as connection:
        return connection.cursor().execute(text).fetchall()


def _status(settings, instance, name: str, partition: str | None = None) -> StaleStatus:
    graph = dg.Definitions(
        assets=build_graph(settings)["assets"], resources={"spcs": spcs_resource(settings)}
    ).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return resolver.get_status(dg.AssetKey(name), partition)


def test_five_assets_materialize_with_lineage_in_three_places(materialize, instance, local_account):
    """One run gives five versions; Dagster, the stage and the LINEAGE table tell the same story."""
    materialize()
    events = {key.to_user_string(): _event(instance, key.to_user_string()) for key in PIPELINE_KEYS}
    versions = {name: event.tags[VERSION_TAG] for name, event in events.items()}
    assert len(set(versions.values())) == 5
    predictions = events["predictions"]
    assert (
        predictions.tags["dagster/input_data_version/image"]
        == events["image"].metadata["digest"].value
        == predictions.metadata["spcs/image_digest_observed"].value
    )
    location = predictions.metadata["spcs/output_path"].value
    rows = _query(
        local_account,
        "SELECT INPUT_NAME, INPUT_VERSION FROM MONAD_DB.DATA_SCHEMA.LINEAGE "
        f"WHERE OUTPUT_LOCATION = '{location}'",
    )
    assert dict(rows)["scenario_checkpoint"] == versions["scenario_checkpoint"]
    listed = {row[0] for row in _query(local_account, f"LIST {location}/")}
    assert {name.rsplit("/", 1)[1] for name in listed} == {"predictions.tsv", "lineage.json"}


def test_a_new_scenario_makes_only_itself_stale(materialize, toy_settings, instance):
    """A version covers only what is read: another scenario's file changes nothing else."""
    materialize()
    spend = toy_settings.container_dir / "scenarios" / "spend.py"
    spend.write_text(spend.read_text() + "\nWINDOW = 30\n")
    (toy_settings.container_dir / "scenarios" / "upsell.py").write_text(spend.read_text())
    materialize("stage_contents", None)
    fresh = [
        _status(toy_settings, instance, "foundation_model"),
        _status(toy_settings, instance, "scenario_checkpoint", "churn"),
        _status(toy_settings, instance, "predictions", "churn"),
    ]
    assert fresh == [StaleStatus.FRESH] * 3
    churn = toy_settings.container_dir / "scenarios" / "churn.py"
    churn.write_text(churn.read_text() + "\nWINDOW = 30\n")
    materialize("stage_contents", None)
    assert _status(toy_settings, instance, "scenario_checkpoint", "churn") == StaleStatus.STALE
    assert _status(toy_settings, instance, "foundation_model") == StaleStatus.FRESH


def test_a_changed_config_makes_the_foundation_model_stale(materialize, toy_settings, instance):
    """The config is part of what pretrain.py reads."""
    materialize("image stage_contents stage_contents/pretrain foundation_model", None)
    config = toy_settings.fm_config
    config.write_text(config.read_text() + "\n# other\n")
    materialize("stage_contents", None)
    assert _status(toy_settings, instance, "foundation_model") == StaleStatus.STALE


def test_a_selection_that_would_not_wait_is_refused(materialize):
    """Staging files and training without the slice between them is refused, not raced."""
    with pytest.raises(MonadDagsterError, match="would not wait for stage_contents"):
        materialize("image stage_contents foundation_model", None)


def test_unchanged_files_are_not_uploaded_again(materialize, instance):
    """A second materialization of the stage contents uploads nothing."""
    materialize("stage_contents", None)
    materialize("stage_contents", None)
    assert _event(instance, "stage_contents").metadata["uploaded"].value == []


def test_a_failing_script_fails_the_asset_and_keeps_earlier_artefacts(
    materialize, toy_settings, instance, local_account
):
    """Exit code and last log line reach the failure; the earlier output stays complete."""
    materialize("image stage_contents stage_contents/pretrain foundation_model", None)
    location = _event(instance, "foundation_model").metadata["spcs/output_path"].value
    config = toy_settings.fm_config
    config.write_text(config.read_text() + "\n# fail: exit\n")
    result = materialize(
        "stage_contents stage_contents/pretrain foundation_model", None, check=False
    )
    assert not result.success
    failure = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    text = failure.step_failure_data.error.to_string() + str(
        failure.step_failure_data.user_failure_data
    )
    assert "column t_dat not found" in text
    assert "exit code 3" in text
    assert _event(instance, "foundation_model").metadata["spcs/output_path"].value == location
    assert len(_query(local_account, f"LIST {location}/")) == 2


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda c: (c / "configs" / "fm_config.yaml").write_text("data_params: {}\n"),
            "data_sources",
        ),
        (
            lambda c: (c / "scenarios" / "churn.py").write_text("def target_fn(:\n"),
            "cannot be parsed",
        ),
        (lambda c: (c / "scripts" / "train.py").unlink(), "train.py is missing"),
    ],
)
def test_wrong_files_are_refused_before_any_job_service(
    materialize, toy_settings, break_it, message
):
    """A wrong config, scenario or script fails before something is submitted."""
    break_it(toy_settings.container_dir)
    with pytest.raises(Exception, match=message):
        materialize("image stage_contents stage_contents/pretrain foundation_model", None)


def test_a_missing_table_is_named(materialize, toy_settings):
    """A table that does not exist is refused with its full name and the source that names it."""
    config = toy_settings.fm_config
    config.write_text(config.read_text().replace("table_name: transactions", "table_name: sales"))
    with pytest.raises(MonadDagsterError, match="HM_KAGGLE.PUBLIC.SALES does not exist"):
        materialize("image stage_contents stage_contents/pretrain foundation_model", None)


def test_a_missing_column_lists_those_there_are(materialize, toy_settings):
    """A column that does not exist is refused with the table's columns."""
    config = toy_settings.fm_config
    config.write_text(config.read_text().replace("name: t_dat", "name: day"))
    with pytest.raises(MonadDagsterError, match="Column day not found.*T_DAT"):
        materialize("image stage_contents stage_contents/pretrain foundation_model", None)


def test_a_prediction_date_out_of_range_is_refused(materialize):
    """A date before the data is refused before a job service is submitted."""
    materialize()
    with pytest.raises(MonadDagsterError, match="prediction_date is out of range"):
        materialize(
            "predictions",
            run_config=dg.RunConfig(
                ops={"predictions": {"config": {"prediction_date": "1999-01-01"}}}
            ),
        )


def test_everything_is_there_after_the_account_was_killed(materialize, instance, local_account):
    """SIGKILL between two assets: the next asset starts the account and continues."""
    materialize("image stage_contents stage_contents/pretrain foundation_model", None)
    os.kill(local_account.status()["pid"], signal.SIGKILL)
    materialize("scenario_checkpoint")
    event = _event(instance, "scenario_checkpoint")
    lineage = event.metadata["lineage"].value
    document = json.loads(lineage) if isinstance(lineage, str) else lineage
    upstream = _event(instance, "foundation_model")
    assert document["inputs"]["foundation_model"] == upstream.tags[VERSION_TAG]
