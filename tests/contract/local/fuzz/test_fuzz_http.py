"""The HTTP routes on any request: an answer of the protocol, and the account stays up."""

import http.client
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.local.fuzz.conftest import corpus

FUZZ = settings.get_profile("fuzz")
PATHS = st.sampled_from(
    ["/session/v1/login-request", "/session/token-request", "/session/heartbeat", "/session",
     "/telemetry/send", "/queries/v1/query-request", "/queries/v1/abort-request",
     "/queries/{}/abort-request", "/queries/{}/result", "/monitoring/queries/{}",
     "/monitoring/queries//{}", "/monad/results/{}/{}/0", "/monad/blob/stages/{}/{}/{}/{}", "/login",
     "/v2/", "/v2/{}/{}/{}/{}/tags/list", "/v2/{}/{}/{}/{}/manifests/{}",
     "/v2/{}/{}/{}/{}/blobs/{}", "/v2/{}/{}/{}/{}/blobs/uploads/{}", "/monad/faults", "/api/v2/{}",
     "/{}"]
)  # fmt: skip
PARTS = st.one_of(
    st.sampled_from(["..", "%2e%2e", "%00", "%", "monad_db", "DATA_SCHEMA", "x", "", "sha256:0", "-1"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#{}"), max_size=8),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["data", "sqlText", "bindings", "parameters", "requestType", "1", "type",
                             "value", "LOGIN_NAME", "PASSWORD", "ACCOUNT_NAME", "TOKEN",
                             "AUTHENTICATOR", "SESSION_PARAMETERS", "CLIENT_APP_VERSION",
                             "describeOnly", "asyncExec", "requestId"]),
            inner,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
BODIES = st.one_of(st.none(), st.binary(max_size=100), JSON.map(lambda j: json.dumps(j).encode()))
WORDS = st.sampled_from(
    ["SELECT", "SHOW", "DESCRIBE", "CREATE", "DROP", "ALTER", "GRANT", "REVOKE", "EXECUTE", "CALL",
     "USE", "LIST", "REMOVE", "GET", "PUT", "COPY", "INTO", "FILES", "FROM", "IN", "ON", "TO", "LIKE",
     "ROLE", "STAGE", "STAGES", "TABLE", "SERVICE", "SERVICES", "JOB", "COMPUTE", "POOL", "POOLS",
     "IMAGE", "REPOSITORY", "SCHEMA", "DATABASE", "USER", "WAREHOUSE", "GRANTS", "PARAMETERS",
     "SPECIFICATION", "NAME", "=", "=>", "(", ")", ",", ".", ";", "'x'", '"x"', "$$x$$", "1", "NULL",
     "?", "@MONAD_STAGE", "@x/y", "file:///tmp/x", "X", "MONAD_DB", "DATA_SCHEMA", "IDENTIFIER('X')",
     "SYSTEM$TYPEOF", "CONTAINERS", "INSTANCES", "ASYNC", "TRUE", "SET", "UNSET", "COMMENT", "!",
     "SPCS_GET_LOGS", "TABLE(", "LIMIT", "STARTS", "WITH", "AS", "ALL", "FUTURE", "PRIVILEGES"]
)  # fmt: skip


@pytest.fixture(scope="module")
def address(account):
    """Return (host, port)."""
    facts = account.connection("ADMIN")
    return facts["host"], facts["port"]


@pytest.fixture(scope="module")
def token(account):
    """Yield a session token of the pipeline's user, who can do little harm."""
    import snowflake.connector

    with snowflake.connector.connect(**account.connection()) as connection:
        yield connection.rest.token


def ask(address, method, path, body, headers):
    """Send one request and return (status, body)."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.putrequest(method, path)
        for name, value in {"Content-Length": str(len(body or b"")), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body or b"")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def judge(address, method, path, body, headers):
    """Send a request and check that the answer is no internal error."""
    status, answer = ask(address, method, path, body, headers)
    assert status < 500, (status, answer)
    assert b"Traceback" not in answer
    assert b"000603" not in answer
    assert ask(address, "GET", "/monad/ready", None, {})[0] == 200


@pytest.mark.parametrize("case", corpus("http"))
def test_found_requests(address, token, case):
    """A request of the corpus gets an answer of the protocol."""
    headers = {"Authorization": f'Snowflake Token="{token}"'} if case["session"] else {}
    judge(address, case["method"], case["path"], case["body"].encode(), headers)


@settings(FUZZ)
@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    PATHS, st.lists(PARTS, min_size=6, max_size=6), BODIES, st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_request(address, token, method, path, parts, body, with_session, zipped):
    """Any method, path and body gets an answer, with a session and without."""
    headers = {"Authorization": f'Snowflake Token="{token}"'} if with_session else {}
    if path == "/session":
        headers = {}  # would end the session
    if zipped:
        headers["Content-Encoding"] = "gzip"
    judge(address, method, path.format(*parts), body, headers)


@settings(FUZZ)
@given(st.lists(WORDS, min_size=1, max_size=14).map(" ".join))
def test_any_statement(address, token, sql):
    """Any sequence of Snowflake's words is executed or refused, and is never an internal error."""
    body = json.dumps({"sqlText": sql}).encode()
    headers = {"Authorization": f'Snowflake Token="{token}"'}
    status, answer = ask(address, "POST", "/queries/v1/query-request?requestId=", body, headers)
    code = json.loads(answer)["code"]
    assert status == 200
    assert code not in {"000603", "390400"}, (sql, answer)
