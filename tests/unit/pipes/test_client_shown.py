"""What the client shows of itself."""

from dagster_snowflake import SnowflakeResource

from monad_dagster.pipes import PipesSPCSClient


def test_the_client_does_not_show_the_password_of_its_connection():
    """Neither form of the resource as text holds the secret."""
    snowflake = SnowflakeResource(account="A", user="U", password="open-sesame")
    client = PipesSPCSClient(snowflake=snowflake, compute_pool="P")
    for text in (repr(client), str(client), f"{client}"):
        assert "open-sesame" not in text
        assert "pool P" in text
