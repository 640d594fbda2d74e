"""The image registry, as docker and the command line client use it."""

import hashlib
import json

import pytest
import requests
import snowflake.connector

REPOSITORY = "monad_db/data_schema/image_repository"


def _digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def session(account):
    """An HTTP session that is logged in with a session token."""
    session = requests.Session()
    session.auth = account.registry_credentials()
    return session


def upload(account, session, data, name=f"{REPOSITORY}/other", digest=None):
    """Upload a blob in two chunks and return the last answer."""
    start = session.post(account.url(f"/v2/{name}/blobs/uploads/"))
    assert start.status_code == 202, start.text
    location = account.url(start.headers["Location"])
    half = len(data) // 2
    first = session.patch(location, data=data[:half], headers={"Content-Range": f"0-{half - 1}"})
    assert (first.status_code, first.headers["Range"]) == (202, f"0-{half - 1}")
    location = account.url(first.headers["Location"])
    return session.put(location, params={"digest": digest or _digest(data)}, data=data[half:])


def test_bearer_token_of_login_is_accepted(account, session):
    """/login gives a bearer token for Basic credentials."""
    token = session.get(account.url("/login")).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert requests.get(account.url("/v2/"), headers=bearer).status_code == 200
    tags = requests.get(account.url(f"/v2/{REPOSITORY}/monad/tags/list"), headers=bearer).json()
    assert "latest" in tags["tags"]  # other tests of the module's account push more


@pytest.mark.parametrize(
    "credentials",
    [None, ("0sessiontoken", '{"token": "wrong"}'), ("0sessiontoken", "x"), ("ADMIN", "wrong")],
)
def test_wrong_credentials_are_refused(account, credentials):
    """Without valid credentials the answer is 401 with a challenge."""
    answer = requests.get(account.url("/v2/"), auth=credentials)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_session_token_needs_its_own_user_name(account):
    """The token is refused with a user's own name, which goes with the user's password."""
    _, token = account.registry_credentials()
    assert requests.get(account.url("/v2/"), auth=("MONAD_PIPELINE", token)).status_code == 401
    password = account.local.connection()["password"]
    user = ("MONAD_PIPELINE", password)
    assert requests.get(account.url("/v2/"), auth=user).status_code == 200


def test_chunked_upload_and_download(account, session):
    """A blob sent in chunks comes back byte by byte, with ranges."""
    data = bytes(range(256)) * 4096
    done = upload(account, session, data)
    assert done.status_code == 201, done.text
    url = account.url(f"/v2/{REPOSITORY}/other/blobs/{_digest(data)}")
    assert session.head(url).headers["Content-Length"] == str(len(data))
    assert session.get(url).content == data
    assert session.get(url, headers={"Range": "bytes=5-9"}).content == data[5:10]


def test_wrong_digest_is_refused(account, session):
    """Content that does not have the digest it was announced with is not kept."""
    answer = upload(account, session, b"some content", digest="sha256:" + "0" * 64)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"


def test_chunk_must_follow_the_last_one(account, session):
    """A gap in an upload is refused."""
    start = session.post(account.url(f"/v2/{REPOSITORY}/other/blobs/uploads/"))
    answer = session.patch(
        account.url(start.headers["Location"]), data=b"x", headers={"Content-Range": "7-7"}
    )
    assert answer.status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/v2/monad_db/data_schema/nowhere/monad/tags/list",
        "/v2/monad_db/data_schema/image_repository/tags/list",
        "/v2/monad_db/data_schema/image_repository/../../../account.sqlite/tags/list",
        "/v2/monad_db/data_schema/image_repository/%2e%2e/%2e%2e/x/manifests/latest",
        "/v2/monad_db/data_schema/image_repository/monad/blobs/sha256:..%2f..%2faccount.sqlite",
        "/v2/monad_db/data_schema/image_repository/monad/manifests/..%2f..%2fx",
        "/v2/",
    ],
)
def test_paths_are_confined(account, session, path):
    """No path reaches anything but an image of an existing repository."""
    request = requests.Request("GET", account.url(path), auth=session.auth).prepare()
    request.url = account.url(path)
    answer = session.send(request)
    assert answer.status_code in ({200} if path == "/v2/" else {400, 404})


def test_manifest_by_tag_and_digest_and_in_sql(account, session):
    """HEAD, GET and SHOW IMAGES agree on the digest."""
    manifests = account.url(f"/v2/{REPOSITORY}/monad/manifests")
    by_tag = session.get(f"{manifests}/latest")
    assert by_tag.headers["Docker-Content-Digest"] == account.digest == _digest(by_tag.content)
    assert session.get(f"{manifests}/{account.digest}").content == by_tag.content
    head = session.head(f"{manifests}/latest")
    assert head.headers["Docker-Content-Digest"] == account.digest
    assert head.headers["Content-Type"] == by_tag.headers["Content-Type"]
    shown = account.rows("show images in image repository image_repository")
    (row,) = [row for row in shown if row["digest"] == account.digest]
    assert list(row) == ["created_on", "image_name", "tags", "digest", "image_path"]
    assert (row["image_name"], row["tags"], row["digest"]) == ("monad", "latest", account.digest)


def test_repository_url_is_where_images_are_pushed(account):
    """SHOW IMAGE REPOSITORIES names the host that docker takes without TLS."""
    row = account.rows("show image repositories like 'IMAGE_REPOSITORY'")[0]
    port = account.local.connection()["port"]
    assert row["repository_url"] == f"localhost:{port}/{REPOSITORY}"
    assert list(row) == [
        "created_on", "name", "database_name", "schema_name", "repository_url", "owner",
        "owner_role_type", "comment", "encryption",
    ]  # fmt: skip


def test_reader_may_pull_and_not_push(account):
    """READ pulls, WRITE pushes; without either the repository does not exist."""
    admin = account.connect("ADMIN", database="MONAD_DB", schema="DATA_SCHEMA", warehouse=None)
    for statement in (
        "create role if not exists reader", "grant usage on database monad_db to role reader",
        "grant usage on schema data_schema to role reader", "grant role reader to user admin",
    ):  # fmt: skip
        admin.cursor().execute(statement)
    reader = account.connect("ADMIN", role="READER")
    issued = reader._rest._token_request("ISSUE")["data"]["sessionToken"]
    auth = ("0sessiontoken", json.dumps({"token": issued, "expires_in": 3600}))
    manifest = account.url(f"/v2/{REPOSITORY}/monad/manifests/latest")
    uploads = account.url(f"/v2/{REPOSITORY}/monad/blobs/uploads/")
    assert requests.get(manifest, auth=auth).status_code == 404
    admin.cursor().execute("grant read on image repository image_repository to role reader")
    assert requests.get(manifest, auth=auth).status_code == 200
    assert requests.post(uploads, auth=auth).status_code == 403
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
        reader.cursor().execute("drop image repository monad_db.data_schema.image_repository")
    assert raised.value.errno == 3001


def test_blob_is_mounted_across_repositories(account, session):
    """A blob of a readable repository is linked instead of uploaded again."""
    account.rows("grant create image repository on schema monad_db.data_schema to role monad_role",
                 "ADMIN")  # fmt: skip
    account.rows("create image repository if not exists second_repository")
    blob = b"shared layer"
    assert upload(account, session, blob).status_code == 201
    target = "monad_db/data_schema/second_repository/monad"
    url = account.url(f"/v2/{target}/blobs/{_digest(blob)}")
    assert session.head(url).status_code == 404
    answer = session.post(
        account.url(f"/v2/{target}/blobs/uploads/"),
        params={"mount": _digest(blob), "from": f"{REPOSITORY}/other"},
    )
    assert answer.status_code == 201
    assert session.get(url).content == blob
    account.rows("drop image repository second_repository")
    assert session.get(url).status_code == 404


def test_malformed_manifest_is_refused(account, session):
    """What is no manifest is not stored."""
    url = account.url(f"/v2/{REPOSITORY}/monad/manifests/bad")
    for body in (b"{", b"[]", b'{"layers": [{"digest": "../x"}]}'):
        assert session.put(url, data=body).status_code == 400
    assert session.put(url, data=b" " * (5 << 20)).status_code == 413
    assert session.get(url).status_code == 404
