"""Logging in each way the connector knows over plain HTTP, and what a session is told."""

import json
import urllib.request

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from snowflake.connector.errors import DatabaseError, Error, ProgrammingError


@pytest.fixture
def user(cursor, unique):
    """Yield a fresh user who holds MONAD_ROLE and another role."""
    name = unique("U")
    cursor.execute(f"CREATE USER {name} PASSWORD = 'se''cret' DEFAULT_ROLE = MONAD_ROLE")
    cursor.execute(f"GRANT ROLE MONAD_ROLE TO USER {name}")
    yield name
    cursor.execute(f"DROP USER {name}")


def who(connection):
    """Return the user and role of a connection."""
    return connection.cursor().execute("SELECT CURRENT_USER(), CURRENT_ROLE()").fetchone()


def test_password(connect, user):
    """A password opens a session with the user's default role."""
    connection = connect("pipeline", user=user, password="se'cret", role=None)
    assert who(connection) == (user, "MONAD_ROLE")


@pytest.fixture
def expire(facts):
    """Return a function that lets a user's session expire, once."""

    def ask(user, **options):
        control = facts["control"]
        request = urllib.request.Request(
            f"http://{control['host']}:{control['port']}/monad/faults",
            data=json.dumps({"kind": "expired-token", "user": user, "count": 1, **options}).encode(),
            headers={
                "Authorization": f"Bearer {control['token']}", "Content-Type": "application/json",
            },
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=30).close()

    return ask


def test_an_expired_session_is_renewed(connect, expire, user):
    """The client renews its session and repeats the statement; nobody notices."""
    connection = connect("pipeline", user=user, password="se'cret")
    before = connection.cursor().execute("SELECT CURRENT_SESSION()").fetchone()
    expire(user)
    assert who(connection) == (user, "MONAD_ROLE")
    assert connection.cursor().execute("SELECT CURRENT_SESSION()").fetchone() == before


def test_a_session_whose_master_token_has_expired(connect, expire, user):
    """Without a master token nothing can be renewed, and the client says so."""
    connection = connect("pipeline", user=user, password="se'cret")
    expire(user, master=True)
    with pytest.raises(Error):
        who(connection)


def test_context_of_the_connection(connect):
    """The connection knows the current role, warehouse, database and schema from the login."""
    connection = connect("pipeline")
    assert (connection.role, connection.warehouse) == ("MONAD_ROLE", "MONAD_WAREHOUSE")
    assert (connection.database, connection.schema) == ("MONAD_DB", "DATA_SCHEMA")
    assert connection.account


@pytest.mark.parametrize("wrong", [{"password": "nope"}, {"user": "NOBODY"}])
def test_wrong_password_or_user(connect, wrong):
    """A wrong password and an unknown user are refused with one text."""
    with pytest.raises(DatabaseError, match="Incorrect username or password was specified"):
        connect(**wrong)


def test_role_that_is_not_granted(connect):
    """A role that the user does not hold is refused at login."""
    with pytest.raises(DatabaseError, match="ACCOUNTADMIN.*not granted to this user"):
        connect("pipeline", role="ACCOUNTADMIN")


def test_access_token(connect, cursor, user):
    """An access token logs its user in, as authenticator and in place of the password."""
    cursor.execute(f"ALTER USER {user} ADD PROGRAMMATIC ACCESS TOKEN ONE DAYS_TO_EXPIRY = 1")
    (name, secret) = cursor.fetchone()
    assert name == "ONE"
    kind = {"authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "password": None, "role": None}
    assert who(connect(user=user, token=secret, **kind)) == (user, "MONAD_ROLE")
    assert who(connect(user=user, password=secret, role=None)) == (user, "MONAD_ROLE")
    with pytest.raises(DatabaseError, match="Programmatic access token is invalid"):
        connect(user="MONAD_PIPELINE", token=secret, **kind)
    cursor.execute(f"ALTER USER {user} REMOVE PROGRAMMATIC ACCESS TOKEN ONE")
    with pytest.raises(DatabaseError, match="Programmatic access token is invalid"):
        connect(user=user, token=secret, **kind)


def test_access_token_of_one_role(connect, cursor, user):
    """A token with a role restriction opens sessions of that role only."""
    restriction = "ROLE_RESTRICTION = 'PUBLIC'"
    cursor.execute(f"ALTER USER {user} ADD PAT NARROW {restriction}")
    secret = cursor.fetchone()[1]
    kind = {"authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "password": None, "token": secret}
    connection = connect(user=user, role=None, **kind)
    assert who(connection) == (user, "PUBLIC")
    with pytest.raises(ProgrammingError, match="not assigned to the executing user"):
        connection.cursor().execute("USE ROLE MONAD_ROLE")
    with pytest.raises(DatabaseError, match="MONAD_ROLE"):
        connect(user=user, role="MONAD_ROLE", **kind)


@pytest.fixture(scope="module")
def keys():
    """Return two RSA keys."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def public_text(key, *, pem):
    """Return a public key as ALTER USER takes it."""
    text = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    lines = text.decode().strip().splitlines()
    return "\n".join(lines if pem else lines[1:-1])


def private_bytes(key):
    """Return a private key as the connector takes it."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("pem", [False, True])
def test_key_pair(connect, cursor, user, keys, pem):
    """The private half of a registered key logs in; another key does not."""
    cursor.execute(f"ALTER USER {user} SET RSA_PUBLIC_KEY = '{public_text(keys[0], pem=pem)}'")
    kind = {"user": user, "password": None, "role": None, "authenticator": "SNOWFLAKE_JWT"}
    assert who(connect(private_key=private_bytes(keys[0]), **kind)) == (user, "MONAD_ROLE")
    with pytest.raises(Error, match="JWT token is invalid"):
        connect(private_key=private_bytes(keys[1]), **kind)


def test_key_pair_rotation(connect, cursor, user, keys):
    """Two keys work side by side, and an unset one no longer."""
    first, second = (public_text(key, pem=False) for key in keys)
    cursor.execute(
        f"ALTER USER {user} SET RSA_PUBLIC_KEY = '{first}' RSA_PUBLIC_KEY_2 = '{second}'"
    )
    kind = {"user": user, "password": None, "role": None, "authenticator": "SNOWFLAKE_JWT"}
    for key in keys:
        assert who(connect(private_key=private_bytes(key), **kind))[0] == user
    cursor.execute(f"ALTER USER {user} UNSET RSA_PUBLIC_KEY")
    with pytest.raises(Error, match="JWT token is invalid"):
        connect(private_key=private_bytes(keys[0]), **kind)
    assert who(connect(private_key=private_bytes(keys[1]), **kind))[0] == user


def test_key_pair_file(connect, cursor, user, keys, tmp_path):
    """An encrypted key file logs in with its passphrase."""
    cursor.execute(f"ALTER USER {user} SET RSA_PUBLIC_KEY = '{public_text(keys[0], pem=True)}'")
    path = tmp_path / "key.p8"
    path.write_bytes(
        keys[0].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open"),
        )
    )
    connection = connect(
        user=user, password=None, role=None, authenticator="SNOWFLAKE_JWT",
        private_key_file=str(path), private_key_file_pwd="open",
    )  # fmt: skip
    assert who(connection) == (user, "MONAD_ROLE")


def test_oauth_token_of_a_job_service(connect, facts):
    """The token that a job service finds in its container opens a session of its owner role."""
    kind = {"user": None, "password": None, "role": None, "authenticator": "oauth"}
    connection = connect("pipeline", token=facts["job_token"], **kind)
    assert who(connection)[1] == "MONAD_ROLE"
    with pytest.raises(DatabaseError, match="Invalid OAuth access token"):
        connect("pipeline", token="forged", **kind)


def test_session_parameters(connect):
    """Session parameters of the login are in force and are shown."""
    wanted = {"QUERY_TAG": "a 'tag'", "TIMEZONE": "Europe/Warsaw", "WEEK_START": 1}
    cursor = connect(session_parameters=dict(wanted)).cursor()
    for name, value in wanted.items():
        row = cursor.execute(f"SHOW PARAMETERS LIKE '{name}'").fetchone()
        assert row[:2] == (name, str(value))
    cursor.execute("ALTER SESSION SET QUERY_TAG = 'other'")
    assert cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()[1] == "other"
    cursor.execute("ALTER SESSION UNSET QUERY_TAG")
    assert cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()[1] == ""


def test_closed_connection(connect):
    """A closed connection refuses further statements and stays closed."""
    connection = connect()
    connection.close()
    connection.close()
    assert connection.is_closed()
    with pytest.raises(Error, match="closed"):
        connection.cursor().execute("SELECT 1")


def test_is_valid(connect):
    """A live connection says so, which takes a heartbeat."""
    assert connect().is_valid()
