"""Connections of Snowflake's own file, read in a process whose SNOWFLAKE_HOME is the test's."""

import json
import os
import subprocess
import sys

import pytest

FILE = """
[work]
account = "acme"
user = "me"
password = "secret"

[default]
account = "other"
user = "me"
password = "secret"
"""
CLIENTS = {
    "named": "PipesSPCSClient(snowflake=NamedConnection(connection_name='work', role='LOADER'))",
    "typo": "PipesSPCSClient(snowflake=NamedConnection(connection_name='typo'))",
    "default": "PipesSPCSClient()",
    "chosen": "PipesSPCSClient()",
}
# One process for all, because the connector reads the file once and takes seconds to import.
CODE = """
import json, os, sys
import snowflake.connector
from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes import NamedConnection, PipesSPCSClient
from monad_dagster.spcs import sql
found = {}
def connect(**arguments):
    found[case] = arguments
    raise ValueError("this is as far as it goes")
snowflake.connector.connect = connect
for case, expression in json.loads(sys.argv[1]).items():
    if case == "chosen":
        os.environ["SNOWFLAKE_DEFAULT_CONNECTION_NAME"] = "work"
    try:
        with eval(expression).session() as session:
            session._attempts = 1
            session.execute(sql.current_region())
    except MonadDagsterError as error:
        found.setdefault(case, type(error).__name__ + ": " + str(error))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return what each client opens a connection with, or why it opens none."""
    home = tmp_path_factory.mktemp("snowflake")
    file = home / "connections.toml"
    file.write_text(FILE)
    file.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(CLIENTS)],
        env=os.environ | {"SNOWFLAKE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_named_connection_passes_its_name_and_what_is_set_beside_it(opened):
    """The file's values are the connector's to read; a field that is set wins over them."""
    assert opened["named"]["connection_name"] == "work"
    assert opened["named"]["role"] == "LOADER"
    assert {"user", "account", "password"}.isdisjoint(opened["named"])


def test_without_a_connection_the_default_one_is_used(opened):
    """SNOWFLAKE_DEFAULT_CONNECTION_NAME chooses it, as for Snowflake's own clients."""
    assert opened["default"]["connection_name"] == "default"
    assert opened["chosen"]["connection_name"] == "work"


def test_a_connection_that_is_not_in_the_file_is_named_with_those_that_are(opened):
    """The error says what to add and where; nothing is connected to."""
    assert opened["typo"].startswith("ConfigError: Snowflake connection 'typo' is not configured")
    assert "default, work" in opened["typo"]
    assert "connections.toml" in opened["typo"]
