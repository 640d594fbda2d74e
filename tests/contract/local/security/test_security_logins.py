"""Credentials and tokens of every kind that must not open a session."""

import base64
import datetime as dt
import hmac
import json

import jwt
import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from snowflake.connector.errors import DatabaseError, ProgrammingError

LOGIN = "/session/v1/login-request"
BAD_PASSWORD = (False, "390100")
BAD_JWT = (False, "390144")
BAD_PAT = (False, "394400")


@pytest.fixture
def log_in(send):
    """Return a function that logs in with raw data and returns the answer."""

    def attempt(**data):
        body = {"data": {"ACCOUNT_NAME": "LOCAL", "CLIENT_APP_ID": "test", **data}}
        return send("POST", LOGIN, body)

    return attempt


@pytest.mark.parametrize(
    "data",
    [
        {"LOGIN_NAME": "ADMIN", "PASSWORD": "wrong"},
        {"LOGIN_NAME": "ADMIN", "PASSWORD": ""},
        {"LOGIN_NAME": "ADMIN"},
        {"LOGIN_NAME": "", "PASSWORD": ""},
        {"LOGIN_NAME": "NOBODY", "PASSWORD": "wrong"},
        {"LOGIN_NAME": "ADMIN' OR '1'='1", "PASSWORD": "x' OR '1'='1"},
        {"LOGIN_NAME": "ADMIN\x00", "PASSWORD": "wrong"},
        {"LOGIN_NAME": {"a": 1}, "PASSWORD": ["x"]},
        {"LOGIN_NAME": "ADMIN", "PASSWORD": True},
    ],
)
def test_wrong_passwords(log_in, data):
    """Wrong names and passwords of any shape are refused with one code."""
    assert log_in(**data).refusal == BAD_PASSWORD


def test_disabled_user(admin, log_in):
    """A disabled user cannot log in with the right password."""
    admin.cursor().execute("CREATE USER GONE PASSWORD = 'right'")
    assert log_in(LOGIN_NAME="GONE", PASSWORD="right").json["success"]
    admin.cursor().execute("ALTER USER GONE SET DISABLED = TRUE")
    assert log_in(LOGIN_NAME="GONE", PASSWORD="right").refusal == BAD_PASSWORD
    admin.cursor().execute("DROP USER GONE")


@pytest.fixture(scope="module")
def key():
    """Return an RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_user(admin, key):
    """Yield a user who has the public half of the key, and its fingerprint."""
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    cursor = admin.cursor()
    cursor.execute(f"CREATE USER KEYED RSA_PUBLIC_KEY = '{pem.decode()}'")
    cursor.execute("DESCRIBE USER KEYED")
    facts = {row[0]: row[1] for row in cursor.fetchall()}
    yield facts["RSA_PUBLIC_KEY_FP"]
    cursor.execute("DROP USER KEYED")


def claims(fingerprint, **changes):
    """Return the claims of a good token, changed."""
    now = dt.datetime.now(dt.UTC)
    good = {
        "iss": f"LOCAL.KEYED.{fingerprint}", "sub": "LOCAL.KEYED",
        "iat": now, "exp": now + dt.timedelta(minutes=5),
    }  # fmt: skip
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_good_key_pair_token(log_in, key, key_user):
    """A token signed with the registered key logs its user in."""
    token = jwt.encode(claims(key_user), key, "RS256")
    assert log_in(AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=token).json["success"]


def _ago(**amount):
    return dt.datetime.now(dt.UTC) - dt.timedelta(**amount)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": _ago(minutes=1), "iat": _ago(minutes=10)},
        {"iat": _ago(hours=-1), "exp": _ago(hours=-2)},
        {"iat": _ago(minutes=1), "exp": _ago(hours=-20)},
        {"exp": None},
        {"iat": None},
        {"sub": "LOCAL.ADMIN"},
        {"sub": None},
        {"iss": None},
        {"iss": "LOCAL.KEYED"},
        {"iss": "LOCAL.KEYED.SHA256:AAAA"},
        {"iss": "OTHER.KEYED.SHA256:AAAA", "sub": "OTHER.KEYED"},
        {"exp": "never"},
        {"exp": float("inf")},
    ],
)
def test_bad_claims(log_in, key, key_user, changes):
    """A well signed token with claims that do not hold is refused."""
    token = jwt.encode(claims(key_user, **changes), key, "RS256")
    assert log_in(AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=token).refusal == BAD_JWT


def with_public_key_as_secret(body, public):
    """Return a token whose HMAC was made with the public key, as a naive check would accept."""
    header = {"alg": "HS256", "typ": "JWT"}
    body = {**body, "iat": int(body["iat"].timestamp()), "exp": int(body["exp"].timestamp())}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, body)]
    digest = hmac.digest(public, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(digest).rstrip(b"=")]).decode()


def test_bad_signatures(log_in, key, key_user):
    """Tokens that are unsigned, signed by another key or with the public key as a secret fail."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    body = claims(key_user)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = jwt.encode(body, key, "RS256")
    header, _, signature = good.split(".")
    admin_body = {**body, "iss": body["iss"].replace("KEYED", "ADMIN"), "sub": "LOCAL.ADMIN"}
    forged = jwt.encode(admin_body, key, "RS256").split(".")[1]
    for token in (
        jwt.encode(body, other, "RS256"),
        jwt.encode(body, None, algorithm="none"),
        with_public_key_as_secret(body, public),
        f"{header}.{forged}.{signature}",
        good[:-10],
        "a.b.c",
        "",
        "." * 5000,
        base64.b64encode(b"{" * 10000).decode(),
    ):
        assert log_in(AUTHENTICATOR="SNOWFLAKE_JWT", TOKEN=token).refusal == BAD_JWT


@pytest.mark.parametrize("text", ["", "nonsense", "QUJD", "-----BEGIN PUBLIC KEY-----\nQUJD"])
def test_bad_public_keys(admin, refused, text):
    """What is no RSA public key is not stored."""
    admin.cursor().execute("CREATE USER IF NOT EXISTS KEYLESS")
    if text:
        assert refused(admin, f"ALTER USER KEYLESS SET RSA_PUBLIC_KEY = '{text}'")[0] == 390405


def test_short_public_key(admin, refused):
    """An RSA key of 1024 bits is too short."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    pem = short.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    admin.cursor().execute("CREATE USER IF NOT EXISTS KEYLESS")
    assert refused(admin, f"ALTER USER KEYLESS SET RSA_PUBLIC_KEY = '{pem}'")[0] == 390405


@pytest.fixture
def access_token(admin):
    """Yield the secret of an access token of MONAD_PIPELINE."""
    cursor = admin.cursor()
    cursor.execute("ALTER USER MONAD_PIPELINE ADD PAT SECURITY_TEST DAYS_TO_EXPIRY = 1")
    yield cursor.fetchone()[1]
    cursor.execute("ALTER USER MONAD_PIPELINE REMOVE PAT SECURITY_TEST")


def test_access_tokens_of_the_wrong_kind(log_in, access_token, connect):
    """Only a live access token of that user passes as one."""
    session = connect("ADMIN").rest.token
    kind = {"AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN"}
    assert log_in(LOGIN_NAME="MONAD_PIPELINE", TOKEN=access_token, **kind).json["success"]
    assert log_in(LOGIN_NAME="ADMIN", TOKEN=access_token, **kind).refusal == BAD_PAT
    for token in ("", "x", session, access_token[:-1], access_token + "x"):
        assert log_in(LOGIN_NAME="MONAD_PIPELINE", TOKEN=token, **kind).refusal == BAD_PAT
    assert log_in(AUTHENTICATOR="OAUTH", TOKEN=access_token).refusal == (False, "390303")


def test_access_tokens_of_others_cannot_be_managed(pipeline, refused):
    """A user makes, lists and removes tokens of their own only."""
    for sql in (
        "ALTER USER ADMIN ADD PROGRAMMATIC ACCESS TOKEN MINE",
        "ALTER USER ADMIN REMOVE PROGRAMMATIC ACCESS TOKEN MINE",
        "SHOW USER PROGRAMMATIC ACCESS TOKENS FOR USER ADMIN",
    ):
        assert refused(pipeline, sql)[:2] == (3001, "42501")
    role = "ALTER USER ADD PAT MINE ROLE_RESTRICTION = 'ACCOUNTADMIN'"
    assert refused(pipeline, role)[0] == 2003


def test_rotated_and_disabled_access_tokens(admin, log_in):
    """A rotated token works until its time is over, a disabled one not at all."""
    cursor = admin.cursor()
    cursor.execute("CREATE USER ROTATING")
    kind = {"AUTHENTICATOR": "PROGRAMMATIC_ACCESS_TOKEN", "LOGIN_NAME": "ROTATING"}
    first = cursor.execute("ALTER USER ROTATING ADD PAT P").fetchone()[1]
    rotate = "ALTER USER ROTATING ROTATE PAT P EXPIRE_ROTATED_TOKEN_AFTER_HOURS = 0"
    second = cursor.execute(rotate).fetchone()[1]
    assert log_in(TOKEN=first, **kind).refusal == BAD_PAT
    assert log_in(TOKEN=second, **kind).json["success"]
    cursor.execute("ALTER USER ROTATING MODIFY PAT P SET DISABLED = TRUE")
    assert log_in(TOKEN=second, **kind).refusal == BAD_PAT
    states = cursor.execute("SHOW USER PATS FOR USER ROTATING").fetchall()
    assert sorted(row[4] for row in states) == ["DISABLED", "EXPIRED"]
    assert not any(secret in str(row) for row in states for secret in (first, second))
    cursor.execute("DROP USER ROTATING")
    assert log_in(TOKEN=second, **kind).refusal == BAD_PAT


def test_tokens_of_the_wrong_kind(connect, query, send):
    """A master token runs nothing and a session token renews nothing."""
    connection = connect("ADMIN")
    assert query(connection.rest.master_token, "SELECT 1").refusal == (False, "390104")
    body = {"oldSessionToken": connection.rest.token, "requestType": "RENEW"}
    answer = send("POST", "/session/token-request", body, token=connection.rest.token)
    assert answer.refusal == (False, "390104")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer x", 'Snowflake Token="', 'Snowflake Token=""', 'Snowflake Token="None"',
     'Snowflake Token="' + "x" * 5000 + '"'],
)  # fmt: skip
def test_malformed_authorization(send, header):
    """Whatever is no session token in the header is refused."""
    for path in ("/queries/v1/query-request", "/session/heartbeat", "/session?delete=true"):
        answer = send("POST", path, {"sqlText": "SELECT 1"}, headers={"Authorization": header})
        assert answer.json["success"] is False
        assert answer.json["code"] in {"390103", "390104"}


def test_results_of_another_user(connect, send):
    """Another user's statement has no result, no status and cannot be canceled."""
    query_id = connect("ADMIN").cursor().execute("SELECT 'private'").sfqid
    token = connect("MONAD_PIPELINE").rest.token
    assert send("GET", f"/queries/{query_id}/result", token=token).refusal == (False, "000709")
    status = send("GET", f"/monitoring/queries/{query_id}", token=token)
    assert status.json["data"]["queries"] == []
    abort = send("POST", f"/queries/{query_id}/abort-request", {}, token=token)
    assert abort.refusal == (False, "000709")


def registry(send, user, password, path="/v2/"):
    """Ask the registry with Basic credentials."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return send("GET", path, headers={"Authorization": f"Basic {login}"})


def test_registry_credentials(connect, send, access_token, password):
    """A session token goes with 0sessiontoken only; a user with a password or an access token."""
    session = connect("MONAD_PIPELINE")
    token = json.dumps({"token": session.rest.token, "expires_in": 3600})
    master = json.dumps({"token": session.rest.master_token})
    secret = password("MONAD_PIPELINE")
    assert registry(send, "0sessiontoken", token).status == 200
    assert registry(send, "MONAD_PIPELINE", secret).status == 200
    assert registry(send, "MONAD_PIPELINE", access_token).status == 200
    for user, given in (
        ("MONAD_PIPELINE", token), ("0sessiontoken", secret), ("0sessiontoken", access_token),
        ("0sessiontoken", master), ("0sessiontoken", session.rest.token), ("ADMIN", secret),
        ("ADMIN", access_token), ("", ""), ("0sessiontoken", "[]"), ("0sessiontoken", "{}"),
        ("0sessiontoken", '{"token": null}'), ("0sessiontoken", "{" * 5000),
    ):  # fmt: skip
        answer = registry(send, user, given)
        assert answer.status == 401, user
        assert "WWW-Authenticate" in {name.title().replace("Www", "WWW") for name in answer.headers}
    session.close()
    assert registry(send, "0sessiontoken", token).status == 401


def test_registry_bearer_ends_with_its_session(connect, send):
    """A bearer token made from a session is worth nothing once the session is closed."""
    session = connect("MONAD_PIPELINE")
    token = json.dumps({"token": session.rest.token})
    bearer = registry(send, "0sessiontoken", token, "/login").json["token"]
    headers = {"Authorization": f"Bearer {bearer}"}
    assert send("GET", "/v2/", headers=headers).status == 200
    session.close()
    assert send("GET", "/v2/", headers=headers).status == 401
    assert send("GET", "/v2/", headers={"Authorization": "Bearer forged"}).status == 401


def test_role_restricted_access_token(admin, connect, refused):
    """A session of a restricted token cannot take another role."""
    cursor = admin.cursor()
    cursor.execute("ALTER USER MONAD_PIPELINE ADD PAT NARROW ROLE_RESTRICTION = 'PUBLIC'")
    secret = cursor.fetchone()[1]
    kind = {"authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "token": secret, "password": None}
    connection = connect("MONAD_PIPELINE", role=None, **kind)
    assert refused(connection, "USE ROLE MONAD_ROLE")[:2] == (3013, "42501")
    with pytest.raises(DatabaseError):
        connect("MONAD_PIPELINE", role="MONAD_ROLE", **kind)
    cursor.execute("ALTER USER MONAD_PIPELINE REMOVE PAT NARROW")


def test_unknown_authenticator(log_in):
    """An authenticator that is not emulated is refused by name."""
    answer = log_in(LOGIN_NAME="ADMIN", AUTHENTICATOR="EXTERNALBROWSER")
    assert answer.refusal == (False, "390107")


def test_session_survives_errors_only_as_itself(connect):
    """A forged token in a live connection ends in a login error, not in another session."""
    connection = connect("MONAD_PIPELINE")
    connection.rest.update_tokens("forged", "forged")
    with pytest.raises((ProgrammingError, DatabaseError, snowflake.connector.errors.Error)):
        connection.cursor().execute("SELECT 1")
