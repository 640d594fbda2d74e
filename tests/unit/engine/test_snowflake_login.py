"""How a Snowflake source logs in: session token inside a container, user and password elsewhere."""

import re

import pytest

from monad.config.loading import parse_config
from monad.config.schema import DataSource
from monad.data.snowflake import connection_arguments
from monad.errors import ConfigError

NAMES = ("HOST", "PORT", "PROTOCOL", "ACCOUNT", "WAREHOUSE", "DATABASE", "SCHEMA", "ROLE")


@pytest.fixture
def container(monkeypatch, tmp_path):
    """The environment of a job service container, with its token file."""
    for name in NAMES:
        monkeypatch.delenv(f"SNOWFLAKE_{name}", raising=False)
    for name in ("SNOWFLAKE_USER", "SNOWFLAKE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / "token"
    token.write_text("abc.def\n")
    monkeypatch.setenv("SNOWFLAKE_SESSION_TOKEN_PATH", str(token))
    monkeypatch.setenv("SNOWFLAKE_HOST", "127.0.0.1")
    monkeypatch.setenv("SNOWFLAKE_PORT", "8084")
    monkeypatch.setenv("SNOWFLAKE_PROTOCOL", "http")
    monkeypatch.setenv("SNOWFLAKE_ACCOUNT", "LOCAL")
    monkeypatch.setenv("SNOWFLAKE_DATABASE", "MONAD_DB")
    return token


def source(**connection) -> DataSource:
    """Return a Snowflake event source with the given connection parameters."""
    place = {"database_type": "snowflake", "connection_params": connection, "table_name": "T"}
    event = {
        "type": "event",
        "name": "events",
        "main_entity_column": "id",
        "date_column": {"name": "t", "format": "%Y-%m-%d"},
        "data_location": place,
    }
    config = {"data_sources": [event], "data_params": {"data_start_date": "2020-01-01"}}
    return parse_config(config).data_sources[0]


def test_without_a_login_the_session_token_is_used(container):
    """Token, host, port and protocol are the container's; given places win; no role is asked for."""
    found = connection_arguments(source(database="HM_KAGGLE", db_schema="PUBLIC", role="ANY"))
    assert found == {
        "host": "127.0.0.1",
        "port": 8084,
        "protocol": "http",
        "account": "LOCAL",
        "database": "HM_KAGGLE",
        "schema": "PUBLIC",
        "token": "abc.def",
        "authenticator": "oauth",
        "login_timeout": 60,
    }


def test_a_renewed_token_is_read_again(container):
    """The token file is read at each connection, because the platform renews it."""
    assert connection_arguments(source())["token"] == "abc.def"
    container.write_text("new")
    assert connection_arguments(source())["token"] == "new"


def test_unset_login_variables_mean_the_session_token(container, monkeypatch):
    """References to unset variables count as absent; set ones are a login."""
    login = source(user="${SNOWFLAKE_USER}", password="${SNOWFLAKE_PASSWORD}")
    assert connection_arguments(login)["authenticator"] == "oauth"
    monkeypatch.setenv("SNOWFLAKE_USER", "someone")
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "secret")
    found = connection_arguments(login)
    assert (found["user"], found["password"], found["role"]) == ("someone", "secret", "PUBLIC")
    assert not {"token", "authenticator"} & set(found)


def test_neither_login_nor_token_says_where_the_token_was_looked_for(container):
    """The message names the source, the token's path and what to do."""
    container.unlink()
    with pytest.raises(ConfigError, match="events has no login") as caught:
        connection_arguments(source())
    assert re.search(rf"no session token at {container}.*Give user and password", str(caught.value))
