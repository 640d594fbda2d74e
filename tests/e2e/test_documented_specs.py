"""The three specifications of the documented page run unchanged on the local account."""

from pathlib import Path

import pytest
import snowflake.connector

from monad_dagster.assets.image_build import read_build_context, write_oci_layout
from monad_dagster.assets.stage_contents import collect_contents, upload_contents
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.stage import StageClient

SPECS = Path(__file__).parents[1] / "data" / "specs"
STAGE = StagePath(QualifiedName("MONAD_DB", "DATA_SCHEMA", "MONAD_STAGE"))


@pytest.fixture
def session(local_account, toy_settings, tmp_path):
    """A session of the pipeline's user, with the image `monad:latest` and the scripts in place."""
    with Session(lambda: snowflake.connector.connect(**local_account.connection())) as session:
        name = QualifiedName("MONAD_DB", "DATA_SCHEMA", "IMAGE_REPOSITORY")
        context = read_build_context(toy_settings.container_dir)
        layout = write_oci_layout(context, tmp_path / "layout", tag="latest")
        ImageRepository(session, name).push_layout(layout.directory, image="monad", tag="latest")
        upload_contents(StageClient(session), STAGE, collect_contents(toy_settings))
        yield session


def test_the_page_runs_from_pretraining_to_predictions(session):
    """Each specification is sent as printed; the next one finds what the one before wrote."""
    for name in ("pretrain", "train", "predict"):
        text = (SPECS / f"{name}.yaml").read_text()
        answer = session.execute(
            sql.Statement(
                "EXECUTE JOB SERVICE IN COMPUTE POOL monad_compute_pool_gpu "
                f"NAME = MONAD_DB.DATA_SCHEMA.PAGE_{name} FROM SPECIFICATION $${text}$$"
            )
        )
        assert answer.scalar == f"Job PAGE_{name.upper()} completed successfully with status: DONE."
    found = {file.path.path for file in StageClient(session).list(STAGE)}
    assert {
        "fm_output/best_model.ckpt",
        "scenario_output/checkpoints/best_model.ckpt",
        "predictions/predictions.tsv",
    } <= found
