"""What depends on time and on tokens: sessions that expire, job tokens that are revoked.

These tests serve the account from this process, so that they hold its clock.
"""

import datetime as dt
import socket
import threading
import time

import pytest
import snowflake.connector
import uvicorn

from monad_dagster.local.account import Account
from monad_dagster.local.protocol.app import create_app


class Clock:
    """A clock that moves when told to."""

    def __init__(self):
        self.now = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)

    def __call__(self):
        return self.now

    def advance(self, **amount):
        """Move the clock forward."""
        self.now += dt.timedelta(**amount)


@pytest.fixture(scope="module")
def clock():
    """Return the account's clock."""
    return Clock()


@pytest.fixture(scope="module")
def served(tmp_path_factory, clock):
    """Yield an account served from a thread of this process."""
    account = Account(tmp_path_factory.mktemp("served"), clock=clock)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(account), log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    account.open(*listener.getsockname()[:2])
    yield account
    server.should_exit = True
    thread.join(10)
    account.close()


def connect(account, **overrides):
    """Log in as the administrator."""
    arguments = {
        "account": "LOCAL", "host": "127.0.0.1", "port": account.address[1], "protocol": "http",
        "user": "ADMIN", "password": account.credentials["users"]["ADMIN"], "login_timeout": 10,
    }  # fmt: skip
    return snowflake.connector.connect(**{**arguments, **overrides})


def test_expired_session_is_renewed_by_the_client(served, clock):
    """After the session token expires the client renews it with the master token and goes on."""
    connection = connect(served)
    before = connection.rest.token
    clock.advance(hours=2)
    assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
    assert connection.rest.token != before
    connection.close()


def test_expired_master_token_needs_a_new_login(served, clock):
    """After the master token expires the session is over."""
    connection = connect(served)
    clock.advance(hours=5)
    with pytest.raises(snowflake.connector.errors.Error):
        connection.cursor().execute("SELECT 1")


def test_job_token_gives_the_owner_role_and_public_only(served):
    """A job token logs in as the service's owner role, and cannot take another."""
    served.catalog.create("ROLE", "JOB_ROLE", "ACCOUNTADMIN")
    token = served.tokens.issue_job_token("D.S.JOB_1", "JOB_ROLE")
    job = {"user": None, "password": None, "authenticator": "oauth", "token": token}
    connection = connect(served, **job)
    assert connection.cursor().execute("SELECT CURRENT_ROLE()").fetchone() == ("JOB_ROLE",)
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="not assigned"):
        connection.cursor().execute("USE ROLE ACCOUNTADMIN")
    connection.close()
    served.tokens.revoke_job_tokens("D.S.JOB_1")
    with pytest.raises(snowflake.connector.errors.DatabaseError, match="Invalid OAuth"):
        connect(served, **job)


def test_registry_login(served):
    """The registry takes a session token with 0sessiontoken, and a user with its own password."""
    connection = connect(served)
    password = f'{{"token": "{connection.rest.token}", "expires_in": 3600}}'
    assert served.authenticate_registry("0sessiontoken", password).user == "ADMIN"
    assert served.authenticate_registry("ADMIN", password) is None
    assert served.authenticate_registry("0sessiontoken", '{"token": "forged"}') is None
    secret = served.credentials["users"]["ADMIN"]
    assert served.authenticate_registry("ADMIN", secret).role == "ACCOUNTADMIN"
    assert served.authenticate_registry("ADMIN", "wrong") is None
    connection.close()


def test_slow_statement_is_polled_for(served, monkeypatch):
    """A statement slower than the poll interval is answered by polling, with its result."""
    monkeypatch.setattr("monad_dagster.local.protocol.app.POLL_SECONDS", 0.05)
    from monad_dagster.local.sql import handlers

    @handlers.function("SYSTEM$TEST_PAUSE")
    def pause(session, statement, args):
        statement.cancelled.wait(0.4)
        return "done"

    connection = connect(served)
    assert connection.cursor().execute("SELECT SYSTEM$TEST_PAUSE()").fetchone() == ("done",)
    connection.close()
    del handlers.FUNCTIONS["SYSTEM$TEST_PAUSE"]
