"""Raw HTTP to the local account, another role's objects, and a check that the account is up."""

import gzip
import http.client
import json
from dataclasses import dataclass

import pytest

from tests.support.oci_images import push_image, registry_login

OTHERS = """
CREATE ROLE IF NOT EXISTS OTHER_ROLE;
CREATE SCHEMA IF NOT EXISTS MONAD_DB.OTHERS;
CREATE STAGE IF NOT EXISTS MONAD_DB.OTHERS.SECRETS ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE');
CREATE IMAGE REPOSITORY IF NOT EXISTS MONAD_DB.OTHERS.IMAGES;
CREATE TABLE IF NOT EXISTS MONAD_DB.OTHERS.T (A INT);
CREATE IMAGE REPOSITORY IF NOT EXISTS MONAD_DB.DATA_SCHEMA.IMAGES;
GRANT READ, WRITE ON IMAGE REPOSITORY MONAD_DB.DATA_SCHEMA.IMAGES TO ROLE MONAD_ROLE;
CREATE COMPUTE POOL IF NOT EXISTS SECURITY_POOL MIN_NODES = 1 MAX_NODES = 2
  INSTANCE_FAMILY = CPU_X64_S;
GRANT USAGE, MONITOR ON COMPUTE POOL SECURITY_POOL TO ROLE MONAD_ROLE;
"""


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def refusal(self):
        """(success, code) of an answer of the client protocol."""
        return self.json["success"], self.json["code"]


@pytest.fixture(scope="session")
def address(account):
    """Return (host, port)."""
    facts = account.connection("ADMIN")
    return facts["host"], facts["port"]


@pytest.fixture
def send(address):
    """Return a function that sends one request as it is told, well formed or not."""

    def request(method, path, body=None, *, headers=None, token=None, zipped=False):
        headers = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if zipped:
            body = gzip.compress(body)
        if token is not None:
            headers["Authorization"] = f'Snowflake Token="{token}"'
        connection = http.client.HTTPConnection(*address, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    return request


@pytest.fixture
def query(send):
    """Return a function that runs a statement with a token and returns the answer."""
    return lambda token, sql: send(
        "POST", "/queries/v1/query-request?requestId=", {"sqlText": sql}, token=token
    )


@pytest.fixture(scope="session")
def others(account):
    """Make objects that belong to the administrator alone, and return their schema."""
    import snowflake.connector

    with snowflake.connector.connect(**account.connection("ADMIN")) as connection:
        for text in OTHERS.split(";"):
            if text.strip():
                connection.cursor().execute(text)
    return "MONAD_DB.OTHERS"


@pytest.fixture(scope="session")
def others_job_service(account, others):
    """Start a job service that belongs to the administrator alone, and return its name."""
    import snowflake.connector

    facts = account.connection("ADMIN")
    image, name = "monad_db/others/images/tool", f"{others}.J"
    spec = {
        "spec": {
            "containers": [
                {"name": "main", "image": f"/{image}:1",
                 "command": ["python", "-c", "import time; time.sleep(900)"]}
            ]
        }
    }  # fmt: skip
    with snowflake.connector.connect(**facts) as connection:
        push_image(
            f"http://{facts['host']}:{facts['port']}", image, "1", {"opt/monad/README": b"x"},
            registry_login(connection),
        )  # fmt: skip
        cursor = connection.cursor()
        cursor.execute(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL SECURITY_POOL NAME = {name} ASYNC = TRUE "
            f"FROM SPECIFICATION $${json.dumps(spec)}$$"
        )
        yield name
        cursor.execute(f"DROP SERVICE {name}")


@pytest.fixture(scope="session")
def lasting(account):
    """Yield a session of the administrator that lasts for all tests."""
    import snowflake.connector

    with snowflake.connector.connect(**account.connection("ADMIN")) as connection:
        yield connection


@pytest.fixture(autouse=True)
def still_up(lasting):
    """Check after each test that the account still serves a session opened before it."""
    yield
    assert lasting.cursor().execute("SELECT 1").fetchall() == [(1,)]
