"""The image registry, judged by clients we did not write: docker CLI, docker-py and skopeo.

Every client logs in, pushes, pulls and is refused in its own way; SHOW IMAGES agrees with each.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile

import pytest
import requests

REPOSITORY = "monad_db/data_schema/image_repository"
INDEX = "application/vnd.oci.image.index.v1+json"
SECRET = "monad_db/data_schema/admins_only"


def _digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(text):
    """Return an image's file system with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("content.txt")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class DockerCli:
    """The docker command."""

    def __init__(self, engine, tmp_path):
        self.engine, self.tmp_path = engine, tmp_path

    def login(self, host, user, password):
        """Tell whether a login is accepted."""
        done = self.engine.docker(
            "login", "-u", user, "--password-stdin", host, input=password, check=False
        )
        return done.returncode == 0

    def push(self, reference, text):
        """Push a new image and return the digest that the client reports."""
        (self.tmp_path / "image.tar").write_bytes(archive(text))
        self.engine.docker("import", str(self.tmp_path / "image.tar"), reference)
        done = self.engine.docker("push", reference)
        return done.stdout.split("digest: ")[1].split()[0]

    def pull(self, reference):
        """Pull an image that is not there yet; return its digest, or None when refused."""
        self.engine.docker("rmi", "-f", reference, check=False)
        done = self.engine.docker("pull", reference, check=False)
        if done.returncode != 0:
            return None
        return done.stdout.split("Digest: ")[1].split()[0]

    def logout(self, host):
        """Forget the login."""
        self.engine.docker("logout", host)


class DockerPy:
    """The docker package."""

    def __init__(self, engine, tmp_path):
        import docker

        self.client = docker.DockerClient(base_url=engine.url)
        self.auth = None

    def login(self, host, user, password):
        """Tell whether a login is accepted."""
        from docker.errors import APIError

        try:
            self.client.login(user, password, registry=f"http://{host}", reauth=True)
        except APIError:
            return False
        self.auth = {"username": user, "password": password}
        return True

    def push(self, reference, text):
        """Push a new image and return the digest that the client reports."""
        repository, _, tag = reference.rpartition(":")
        self.client.api.import_image_from_data(archive(text), repository=repository, tag=tag)
        lines = self.client.images.push(
            repository, tag=tag, auth_config=self.auth, stream=True, decode=True
        )
        found = list(lines)
        assert not [line for line in found if "error" in line], found
        return next(line["aux"]["Digest"] for line in found if "aux" in line)

    def pull(self, reference):
        """Pull an image; return its digest, or None when refused."""
        from docker.errors import APIError

        repository, _, tag = reference.rpartition(":")
        try:
            image = self.client.images.pull(repository, tag=tag, auth_config=self.auth)
        except APIError:
            return None
        return next(name for name in image.attrs["RepoDigests"] if repository in name).split("@")[1]

    def logout(self, host):
        """Forget the login."""
        self.auth = None


class Skopeo:
    """The skopeo command, which needs no daemon."""

    command = ("skopeo",)

    def __init__(self, engine, tmp_path):
        if shutil.which(self.command[0]) is None:
            pytest.skip(f"{self.command[0]} is not installed")
        self.tmp_path = tmp_path
        self.environment = {**os.environ, "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}

    def _run(self, *arguments, **options):
        return subprocess.run(
            [*self.command, *arguments], env=self.environment, capture_output=True, text=True,
            timeout=120, check=False, **options,
        )  # fmt: skip

    def login(self, host, user, password):
        """Tell whether a login is accepted."""
        arguments = ("login", "--tls-verify=false", "-u", user, "--password-stdin", host)
        return self._run(*arguments, input=password).returncode == 0

    def push(self, reference, text):
        """Push a new image and return the digest of what was sent."""
        layout = self.tmp_path / "layout"
        write_layout(layout, text)
        digest_file = self.tmp_path / "digest"
        done = self._run("copy", "--dest-tls-verify=false", "--digestfile", str(digest_file),
                         f"oci:{layout}:image", f"docker://{reference}")  # fmt: skip
        assert done.returncode == 0, done.stderr
        return digest_file.read_text()

    def pull(self, reference):
        """Copy an image to a directory; return its digest, or None when refused."""
        target = self.tmp_path / "pulled"
        shutil.rmtree(target, ignore_errors=True)
        done = self._run("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{target}")
        if done.returncode != 0:
            return None
        return _digest((target / "manifest.json").read_bytes())

    def logout(self, host):
        """Forget the login."""
        self._run("logout", host)


def write_layout(layout, text):
    """Write an image in OCI layout."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def add(data, media_type):
        (blobs / _digest(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}

    tar = archive(text)
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]}}  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [add(tar, "application/vnd.oci.image.layer.v1.tar")],
    }
    entry = add(json.dumps(manifest).encode(), manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@pytest.fixture(params=[DockerCli, DockerPy, Skopeo])
def client(request, tmp_path):
    """One registry client after the other, logged in nowhere."""
    if request.param is Skopeo:
        return Skopeo(None, tmp_path)
    return request.param(request.getfixturevalue("container_engine"), tmp_path)


@pytest.fixture
def host(account):
    """The registry's host."""
    return f"localhost:{account.local.connection()['port']}"


@pytest.mark.docker
def test_client_pushes_and_pulls_what_sql_shows(account, client, host):
    """With the session token a client pushes and pulls; its digest is SHOW IMAGES'."""
    name = type(client).__name__.lower()
    reference = f"{host}/{REPOSITORY}/{name}:v1"
    assert client.login(host, *account.registry_credentials())
    digest = client.push(reference, f"an image of {name}")
    rows = account.rows("show images in image repository image_repository")
    shown = {(row["image_name"], row["tags"]): row["digest"] for row in rows}
    assert shown[name, "v1"] == digest
    assert client.pull(reference) == digest
    assert client.push(f"{host}/{REPOSITORY}/{name}:v2", f"an image of {name}, changed") != digest
    assert client.pull(reference) == digest
    session = requests.Session()
    session.auth = account.registry_credentials()
    tags = session.get(account.url(f"/v2/{REPOSITORY}/{name}/tags/list")).json()
    assert tags == {"name": f"{REPOSITORY}/{name}", "tags": ["v1", "v2"]}


@pytest.mark.docker
def test_client_logs_in_with_a_users_own_password_or_access_token(account, client, host):
    """A user's own name goes with that user's password or programmatic access token."""
    password = account.local.connection()["password"]
    assert client.login(host, "MONAD_PIPELINE", password)
    token_name = f"registry_{type(client).__name__}"
    account.rows(f"alter user add programmatic access token {token_name}")
    row = account.rows(f"alter user rotate programmatic access token {token_name}")[0]
    assert client.login(host, "MONAD_PIPELINE", row["token_secret"])
    account.rows(f"alter user remove programmatic access token {token_name}")
    assert not client.login(host, "MONAD_PIPELINE", row["token_secret"])


@pytest.mark.docker
def test_client_is_refused_with_what_is_not_a_login(account, client, host):
    """Wrong passwords and tokens, and a session token under a user's own name, are refused."""
    _, token = account.registry_credentials()
    password = account.local.connection()["password"]
    for user, secret in (
        ("MONAD_PIPELINE", "wrong"),
        ("NOBODY", password),
        ("0sessiontoken", json.dumps({"token": "wrong", "expires_in": 3600})),
        ("0sessiontoken", password),
        ("MONAD_PIPELINE", token),
        ("ADMIN", password),
    ):
        assert not client.login(host, user, secret), user


@pytest.mark.docker
def test_client_without_a_login_or_privilege_gets_nothing(account, client, host):
    """Anonymous clients and other roles pull nothing."""
    reference = f"{host}/{REPOSITORY}/monad:latest"
    client.logout(host)
    assert client.pull(reference) is None
    for statement in (
        "use schema monad_db.data_schema",
        "create image repository if not exists admins_only",
    ):
        account.rows(statement, "ADMIN")
    assert client.login(host, *account.registry_credentials("ADMIN"))
    digest = client.push(f"{host}/{SECRET}/monad:latest", "a secret")
    assert client.pull(f"{host}/{SECRET}/monad:latest") == digest
    client.logout(host)
    assert client.login(host, *account.registry_credentials())
    assert client.pull(f"{host}/{SECRET}/other:latest") is None
    assert client.pull(f"{host}/{SECRET}/monad:latest") is None


def test_interrupted_upload_is_resumed(account):
    """A client asks how much arrived and sends the rest."""
    session = requests.Session()
    session.auth = account.registry_credentials()
    data = os.urandom(300_000)
    start = session.post(account.url(f"/v2/{REPOSITORY}/resumed/blobs/uploads/"))
    location = account.url(start.headers["Location"])
    session.patch(location, data=data[:100_000], headers={"Content-Range": "0-99999"})
    again = requests.Session()
    again.auth = account.registry_credentials()
    asked = again.get(location)
    assert (asked.status_code, asked.headers["Range"]) == (204, "0-99999")
    rest = {"Content-Range": f"100000-{len(data) - 1}"}
    assert again.patch(location, data=data[100_000:], headers=rest).status_code == 202
    assert again.put(location, params={"digest": _digest(data)}).status_code == 201
    assert again.get(account.url(f"/v2/{REPOSITORY}/resumed/blobs/{_digest(data)}")).content == data
    assert again.get(location).status_code == 404


def test_manifest_list_is_kept_and_its_members_must_exist(account):
    """An index refers to manifests of the same image; job services run its linux/amd64 member."""
    session = requests.Session()
    session.auth = account.registry_credentials()
    manifests = account.url(f"/v2/{REPOSITORY}/monad/manifests")
    size = len(session.get(f"{manifests}/{account.digest}").content)
    member = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": size,
              "digest": account.digest, "platform": {"os": "linux", "architecture": "amd64"}}  # fmt: skip
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}).encode()
    stored = session.put(f"{manifests}/multi", data=body, headers={"Content-Type": INDEX})
    assert (stored.status_code, stored.headers["Docker-Content-Digest"]) == (201, _digest(body))
    fetched = session.get(f"{manifests}/multi", headers={"Accept": INDEX})
    assert (fetched.content, fetched.headers["Content-Type"]) == (body, INDEX)
    missing = {**member, "digest": "sha256:" + "1" * 64}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [missing]})
    refused = session.put(f"{manifests}/broken", data=body, headers={"Content-Type": INDEX})
    assert refused.status_code in (400, 404)
    spec = account.spec("import hello; print(hello.VALUE)").replace("monad:latest", "monad:multi")
    text = spec.replace("\\", "\\\\").replace("'", "\\'")
    account.rows(f"execute job service in compute pool cpu_pool name = from_index async = true"
                 f" from specification '{text}'")  # fmt: skip
    account.wait("from_index")
    assert account.logs("from_index") == "from the image"


def test_bad_digests_and_tags_are_refused(account):
    """What is not a digest or a tag never becomes a path."""
    session = requests.Session()
    session.auth = account.registry_credentials()
    base = account.url(f"/v2/{REPOSITORY}/monad")
    for reference in (
        "sha256:abc",
        "sha512:" + "0" * 128,
        "sha256:" + "G" * 64,
        ".hidden",
        "a" * 129,
    ):
        assert session.get(f"{base}/manifests/{reference}").status_code in (400, 404), reference
        put = session.put(f"{base}/manifests/{reference}", data=b"{}")
        assert put.status_code == 400, reference
    assert session.get(f"{base}/blobs/sha256:abc").status_code == 400
    assert session.delete(f"{base}/manifests/latest").status_code == 405
