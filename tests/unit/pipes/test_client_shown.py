"""What the client shows of itself."""

import pytest
from dagster_snowflake import SnowflakeResource

from monad_dagster.pipes import LaunchOptions, PipesSPCSClient

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
