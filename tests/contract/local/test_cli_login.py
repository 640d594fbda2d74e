"""The commands log in to an account as the README says, with a key pair."""

import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from snowflake.connector.connection import DEFAULT_CONFIGURATION

from monad_dagster.cli.context import connection_parameters
from monad_dagster.settings import _SNOWFLAKE_ENV, Settings, load_settings


@pytest.fixture
def key_user(admin, tmp_path):
    """Yield the name of a user with a key, and the encrypted file of the key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path / "key.p8"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open"),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    admin.cursor().execute(f"CREATE USER CLI_KEY_USER RSA_PUBLIC_KEY = '{public.decode()}'")
    yield "CLI_KEY_USER", path
    admin.cursor().execute("DROP USER CLI_KEY_USER")


def test_a_key_pair_of_the_environment_logs_in(account, key_user):
    """SNOWFLAKE_PRIVATE_KEY_PATH and its passphrase are all that `monad-dagster` needs."""
    user, path = key_user
    place = account.connection("ADMIN")
    settings = load_settings(
        {
            "MONAD_DEPLOYMENT": "snowflake",
            "SNOWFLAKE_ACCOUNT": place["account"],
            "SNOWFLAKE_HOST": place["host"],
            "SNOWFLAKE_USER": user,
            "SNOWFLAKE_PRIVATE_KEY_PATH": str(path),
            "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "open",
        }
    )
    here = {"protocol": place["protocol"], "port": place["port"]}
    parameters = connection_parameters(settings, admin=True)
    with snowflake.connector.connect(**parameters, **here) as connection:
        assert connection.cursor().execute("SELECT CURRENT_USER()").fetchone() == (user,)


def test_the_connector_knows_every_parameter():
    """The connector passes over parameters that it does not know, so none may be of that kind."""
    settings = Settings(deployment="snowflake", snowflake=dict.fromkeys(_SNOWFLAKE_ENV, "x"))
    assert set(connection_parameters(settings)) - set(DEFAULT_CONFIGURATION) == set()
