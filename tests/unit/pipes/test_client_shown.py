"""What the client shows of itself."""

import subprocess
import sys

import pytest
from dagster_snowflake import SnowflakeResource

import monad_dagster.pipes
from monad_dagster.errors import ConfigError
from monad_dagster.pipes import LaunchOptions, PipesSPCSClient
from monad_dagster.pipes.launch import LaunchRequest
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.spec import SpecSettings

CONNECTION = SnowflakeResource(account="A", user="U", password="open-sesame")


def test_the_client_does_not_show_the_password_of_its_connection():
    """Neither form of the resource as text holds the secret."""
    client = PipesSPCSClient(snowflake=CONNECTION, compute_pool="P")
    for text in (repr(client), str(client), f"{client}"):
        assert "open-sesame" not in text
        assert "pool P" in text


@pytest.mark.parametrize(
    "names",
    [
        {"stage": "WORK_DB.WORK.FILES"},
        {"stage": "files", "database": "work_db", "job_schema": "work"},
        {"stage": "work.files", "database": "work_db"},
    ],
)
def test_a_qualified_stage_carries_database_and_schema(names):
    """Job services, stage and lineage table are in one schema, however it was named."""
    client = PipesSPCSClient(snowflake=CONNECTION, lineage_table="LINEAGE", **names)
    assert str(client.stage_root) == "@WORK_DB.WORK.FILES"
    settings = client._settings(LaunchOptions())
    assert str(settings.lineage_table) == "WORK_DB.WORK.LINEAGE"
    assert client._stage_in_spec() == "@work_db.work.files"


def request(**changes):
    """Build what one call wants to run."""
    return LaunchRequest(
        image="/d/s/r/i:1", stage=StagePath.parse("@D.S.ST"), settings=SpecSettings(), **changes
    )


@pytest.mark.parametrize("output_path", ["runs", "runs/mine", "./runs", "."])
def test_an_output_never_lies_among_context_and_messages(output_path):
    """There the manifest would hold them, and every attempt another data version."""
    with pytest.raises(ConfigError, match="context and messages of every attempt"):
        request(output_path=output_path)


@pytest.mark.parametrize(
    "texts", [{"command": ["x", "{output_path}"]}, {"args": ["--out={output_path}"]}]
)
def test_an_output_placeholder_without_an_output_path_is_refused(texts):
    """In the container it would be a directory of that very name, lost with the node."""
    with pytest.raises(ConfigError, match="names no output_path"):
        request(**texts)
    assert request(output_path="out", **texts).output_path == "out"


def test_settings_that_are_not_known_name_those_that_are():
    """A misspelt policy and an impossible number of instances are errors before any statement."""
    client = PipesSPCSClient(snowflake=CONNECTION, on_interrupt="ask")
    with pytest.raises(ConfigError, match="'ask' is not known.*auto, cancel, detach"):
        client._settings(LaunchOptions())
    with pytest.raises(ConfigError, match="replicas is 0"):
        LaunchOptions(replicas=0)


def test_reading_a_log_imports_no_dagster():
    """The command line answers at once; Dagster and dagster-snowflake take seconds to import."""
    code = "import sys, monad_dagster.pipes.log_reading; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_package_has_its_names_and_no_other():
    """Names are imported when asked for, and a misspelt one is the usual error."""
    for name in monad_dagster.pipes.__all__:
        assert getattr(monad_dagster.pipes, name).__name__ == name
    with pytest.raises(AttributeError, match="PipesSPCSClien'"):
        monad_dagster.pipes.PipesSPCSClien  # noqa: B018
