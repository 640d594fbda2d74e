"""Connections of the connector under test."""

import pytest
import snowflake.connector

LIMITS = {"login_timeout": 15, "network_timeout": 60}


@pytest.fixture(scope="session")
def major():
    """Return the connector's major version, where the two lines differ."""
    return int(snowflake.connector.__version__.split(".")[0])


@pytest.fixture
def connect(facts):
    """Return a function that logs in; connections are closed after the test."""
    opened = []

    def connect_as(known="admin", /, **changes):
        arguments = {**facts[known], **LIMITS, **changes}
        arguments = {key: value for key, value in arguments.items() if value is not None}
        connection = snowflake.connector.connect(**arguments)
        opened.append(connection)
        return connection

    yield connect_as
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def shared(facts):
    """Return the administrator's connection that tests share which change nothing in it."""
    with snowflake.connector.connect(**facts["admin"], **LIMITS) as connection:
        yield connection


@pytest.fixture
def cursor(shared):
    """Return a cursor of the shared connection."""
    with shared.cursor() as cursor:
        yield cursor


@pytest.fixture
def schema(connect, unique):
    """Yield a cursor whose current schema is a fresh one, dropped afterwards."""
    name = unique("S")
    cursor = connect().cursor()
    cursor.execute(f"CREATE SCHEMA MONAD_DB.{name}")
    yield cursor
    cursor.execute(f"DROP SCHEMA MONAD_DB.{name}")
