"""A local account as a server process, one for the whole session of tests."""

import json
import os
import uuid

os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"

import pytest
import snowflake.connector

from monad_dagster.local import LocalAccount
from tests.support.faults import faults  # noqa: F401 - a fixture

SETUP = """
CREATE ROLE MONAD_ROLE;
GRANT ROLE MONAD_ROLE TO ROLE SYSADMIN;
GRANT ROLE MONAD_ROLE TO USER MONAD_PIPELINE;
CREATE DATABASE MONAD_DB;
CREATE SCHEMA MONAD_DB.DATA_SCHEMA;
CREATE STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE
  ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE') DIRECTORY = (ENABLE = TRUE);
CREATE WAREHOUSE MONAD_WAREHOUSE WAREHOUSE_SIZE = XSMALL INITIALLY_SUSPENDED = TRUE;
GRANT USAGE ON DATABASE MONAD_DB TO ROLE MONAD_ROLE;
GRANT USAGE ON SCHEMA MONAD_DB.DATA_SCHEMA TO ROLE MONAD_ROLE;
GRANT CREATE SERVICE, CREATE TABLE ON SCHEMA MONAD_DB.DATA_SCHEMA TO ROLE MONAD_ROLE;
GRANT READ ON STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE TO ROLE MONAD_ROLE;
GRANT WRITE ON STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE TO ROLE MONAD_ROLE;
GRANT USAGE ON WAREHOUSE MONAD_WAREHOUSE TO ROLE MONAD_ROLE;
"""


def set_up(account):
    """Apply the account set-up that most tests need."""
    with snowflake.connector.connect(**account.connection("ADMIN")) as connection:
        for text in SETUP.split(";"):
            if text.strip():
                connection.cursor().execute(text)


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """Yield a running local account with the documented objects."""
    local = LocalAccount(tmp_path_factory.mktemp("local") / "account")
    local.start()
    try:
        set_up(local)
        yield local
    finally:
        local.stop()


@pytest.fixture
def connect(account):
    """Return a function that logs a user in; connections are closed after the test."""
    opened = []

    def connect_as(known_user="MONAD_PIPELINE", /, **overrides):
        arguments = account.connection(known_user) | {"network_timeout": 60, "login_timeout": 10}
        connection = snowflake.connector.connect(**(arguments | overrides))
        opened.append(connection)
        return connection

    yield connect_as
    for connection in opened:
        connection.close()


@pytest.fixture
def admin(connect):
    """Return a connection of the administrator."""
    return connect("ADMIN")


@pytest.fixture
def pipeline(connect):
    """Return a connection of the pipeline's user."""
    return connect("MONAD_PIPELINE")


@pytest.fixture
def rows():
    """Return a function that runs a statement and returns its rows."""

    def run(connection, sql, *params):
        return connection.cursor().execute(sql, params or None).fetchall()

    return run


@pytest.fixture
def refused():
    """Return a function that runs a statement and returns (errno, sqlstate, message)."""

    def run(connection, sql):
        with pytest.raises(snowflake.connector.errors.ProgrammingError) as caught:
            connection.cursor().execute(sql)
        return caught.value.errno, caught.value.sqlstate, caught.value.raw_msg

    return run


@pytest.fixture
def database(admin):
    """Yield a fresh database, current in the administrator's session, dropped afterwards."""
    name = f"T_{uuid.uuid4().hex[:8].upper()}"
    admin.cursor().execute(f"CREATE DATABASE {name}")
    yield name
    admin.cursor().execute(f"DROP DATABASE {name}")


@pytest.fixture
def password(account):
    """Return a function that gives a user's password."""
    content = json.loads((account.state_dir / "credentials.json").read_text())
    return lambda user: content["users"][user]
