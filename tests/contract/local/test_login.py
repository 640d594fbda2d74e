"""Login, tokens and sessions, as the connector sees them."""

import json
import urllib.error
import urllib.request

import pytest
import snowflake.connector
from snowflake.connector.errors import DatabaseError, ProgrammingError


def post(account, path, body, token=None):
    """Post JSON to the account and return its answer."""
    facts = account.connection("ADMIN")
    request = urllib.request.Request(
        f"http://{facts['host']}:{facts['port']}{path}", json.dumps(body).encode(), method="POST"
    )
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f'Snowflake Token="{token}"')
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_login_sets_role_warehouse_and_schema(pipeline, rows):
    """A login makes the requested role, warehouse, database and schema current."""
    sql = "SELECT CURRENT_ROLE(), CURRENT_WAREHOUSE(), CURRENT_DATABASE(), CURRENT_SCHEMA()"
    assert rows(pipeline, sql) == [("MONAD_ROLE", "MONAD_WAREHOUSE", "MONAD_DB", "DATA_SCHEMA")]


def test_default_role_is_used_without_a_role(connect, rows):
    """A login that names no role takes the user's default role."""
    assert rows(connect(role=None), "SELECT CURRENT_ROLE()") == [("MONAD_ROLE",)]


@pytest.mark.parametrize("wrong", [{"password": "nope"}, {"user": "NOBODY"}, {"account": "OTHER"}])
def test_wrong_credentials_are_refused_alike(connect, wrong):
    """Wrong password, user and account are refused with one text, which tells nothing."""
    with pytest.raises(DatabaseError, match="Incorrect username or password was specified"):
        connect(**wrong)


def test_role_that_is_not_granted_is_refused(connect):
    """A login with a role that the user does not hold fails."""
    with pytest.raises(DatabaseError, match="ACCOUNTADMIN"):
        connect(role="ACCOUNTADMIN")


def test_unknown_job_token_is_refused(connect):
    """A login with an unknown job token fails."""
    with pytest.raises(DatabaseError, match="Invalid OAuth access token"):
        connect(user=None, password=None, authenticator="oauth", token="job-forged")


def test_session_token_is_issued_for_the_registry(connect):
    """A token request with the master token gives another session token."""
    connection = connect("ADMIN")
    first = connection.rest.token
    answer = connection._rest._token_request("ISSUE")
    assert answer["data"]["sessionToken"] != first
    assert answer["data"]["validityInSecondsST"] > 0


def test_forged_tokens_are_refused(account):
    """A request with an unknown or missing session token is refused, not executed."""
    body = {"sqlText": "SELECT 1"}
    path = "/queries/v1/query-request?requestId=r"
    assert post(account, path, body, "forged")["code"] == "390104"
    assert post(account, path, body)["code"] == "390103"


def test_closed_session_is_over(account, connect):
    """A token stops working when its session is closed."""
    connection = connect("ADMIN")
    token = connection.rest.token
    connection.close()
    answer = post(account, "/queries/v1/query-request?requestId=r", {"sqlText": "SELECT 1"}, token)
    assert (answer["success"], answer["code"]) == (False, "390104")


def test_malformed_bodies_do_not_break_the_account(account, connect, rows):
    """Requests that are not valid JSON are answered, and the account stays up."""
    facts = account.connection("ADMIN")
    for body in (b"", b"{", b"[1]", b"\x1f\x8b broken", b'{"data": 5}'):
        request = urllib.request.Request(
            f"http://{facts['host']}:{facts['port']}/session/v1/login-request", body, method="POST"
        )
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["success"] is False
    assert rows(connect("ADMIN"), "SELECT 1") == [(1,)]


def test_user_created_by_sql_logs_in(admin, connect, rows):
    """A user created with a password can log in and nothing more."""
    admin.cursor().execute("CREATE USER GUEST PASSWORD = 'a guest''s secret'")
    guest = connect(user="guest", password="a guest's secret", role=None)
    assert rows(guest, "SELECT CURRENT_USER(), CURRENT_ROLE()") == [("GUEST", "PUBLIC")]
    with pytest.raises(ProgrammingError, match="Insufficient privileges"):
        guest.cursor().execute("CREATE DATABASE MINE")
    admin.cursor().execute("DROP USER GUEST")
    with pytest.raises(snowflake.connector.errors.DatabaseError):
        connect(user="guest", password="a guest's secret", role=None)


def test_chunk_urls_open_one_result_only(account, connect):
    """A chunk URL has an unguessable token that opens no other result."""
    connection = connect("ADMIN")
    urls = []
    for _ in range(2):
        sql = "SELECT range AS N, 'padding' AS P FROM RANGE(300000)"
        batches = connection.cursor().execute(sql).get_result_batches()
        urls.append(
            next(
                b._remote_chunk_info.url for b in batches if getattr(b, "_remote_chunk_info", None)
            )
        )
    first, second = (url.split("/") for url in urls)
    mixed = "/".join([*second[:-3], first[-3], *second[-2:]])
    with urllib.request.urlopen(urls[1]) as response:
        assert response.status == 200
    for forged in (mixed, urls[1].replace(second[-3], "0" * 64), urls[1] + "/../../x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(forged)
        assert caught.value.code == 404


def test_the_connectors_own_heartbeat(account, connect):
    """What CLIENT_SESSION_KEEP_ALIVE sends keeps a session, and fails once it has ended."""
    connection = connect("ADMIN", client_session_keep_alive=True)
    assert connection.rest._heartbeat()["success"] is True
    token = connection.rest.token
    connection.close()
    answer = post(account, "/session/heartbeat?requestId=r", {}, token)
    assert (answer["success"], answer["code"]) == (False, "390104")
