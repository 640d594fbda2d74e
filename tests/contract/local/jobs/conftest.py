"""A running local account with the documented objects, an image and helpers to run job services."""

import gzip
import hashlib
import io
import itertools
import json
import tarfile

import pytest
import requests
import snowflake.connector

from monad_dagster.local import LocalAccount
from tests.support.container_engine import docker_host
from tests.support.faults import faults  # noqa: F401 - a fixture

SETUP = """
create role if not exists monad_role;
grant role monad_role to user monad_pipeline;
grant role monad_role to user admin;
create database if not exists monad_db;
create schema if not exists monad_db.data_schema;
create stage if not exists monad_db.data_schema.monad_stage encryption = (type = 'SNOWFLAKE_SSE');
create image repository if not exists monad_db.data_schema.image_repository;
create warehouse if not exists monad_warehouse;
create compute pool if not exists monad_compute_pool_gpu min_nodes = 1 max_nodes = 1
  instance_family = GPU_NV_S initially_suspended = true auto_suspend_secs = 300 auto_resume = true;
create compute pool if not exists cpu_pool min_nodes = 1 max_nodes = 4 instance_family = CPU_X64_S;
grant usage on database monad_db to role monad_role;
grant usage, create service on schema monad_db.data_schema to role monad_role;
grant read on image repository monad_db.data_schema.image_repository to role monad_role;
grant write on image repository monad_db.data_schema.image_repository to role monad_role;
grant read on stage monad_db.data_schema.monad_stage to role monad_role;
grant write on stage monad_db.data_schema.monad_stage to role monad_role;
grant usage, monitor, operate on compute pool monad_compute_pool_gpu to role monad_role;
grant usage, monitor, operate on compute pool cpu_pool to role monad_role;
grant usage on warehouse monad_warehouse to role monad_role;
alter schema monad_db.data_schema set log_level = INFO;
alter schema monad_db.data_schema set log_event_level = INFO;
"""
IMAGE = "/monad_db/data_schema/image_repository/monad:latest"


class AccountForTests:
    """A local account and shorthands for SQL, images and job services."""

    def __init__(self, state_dir):
        self.local = LocalAccount(state_dir)
        self.names = itertools.count()
        self.connections = {}

    def connect(self, user="MONAD_PIPELINE", **changes):
        """Open a connection of its own."""
        arguments = {**self.local.connection(user), **changes}
        return snowflake.connector.connect(**arguments)

    def rows(self, sql, user="MONAD_PIPELINE"):
        """Run a statement on a kept connection and return dictionaries."""
        if user not in self.connections:
            self.connections[user] = self.connect(user)
        cursor = self.connections[user].cursor(snowflake.connector.DictCursor)
        return cursor.execute(sql).fetchall()

    def value(self, sql, user="MONAD_PIPELINE"):
        """Run a statement and return its first cell."""
        return next(iter(self.rows(sql, user)[0].values()))

    def restarted(self):
        """Forget connections of an earlier server process."""
        self.connections.clear()
        return self.local.start()

    def url(self, path):
        """Return a URL of the registry."""
        facts = self.local.connection()
        return f"http://{facts['host']}:{facts['port']}{path}"

    def registry_credentials(self, user="MONAD_PIPELINE"):
        """Return what `snow spcs image-registry token` hands to docker."""
        connection = self.connect(user)
        issued = connection._rest._token_request("ISSUE")["data"]
        token = {"token": issued["sessionToken"], "expires_in": issued["validityInSecondsST"]}
        self.connections[f"registry {user}"] = connection
        return ("0sessiontoken", json.dumps(token))

    def push(
        self, files, *, tag="latest", repository="monad_db/data_schema/image_repository/monad"
    ):
        """Push an image of one layer and return its digest."""
        session = requests.Session()
        session.auth = self.registry_credentials()
        layer = gzip.compress(_tar(files), mtime=0)
        config = {
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PYTHONPATH=/opt/monad/engine"], "WorkingDir": "/opt/monad"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(_tar(files))]},
        }  # fmt: skip
        parts = [layer, json.dumps(config).encode()]
        for part in parts:
            start = session.post(self.url(f"/v2/{repository}/blobs/uploads/"))
            assert start.status_code == 202, start.text
            done = session.put(
                self.url(start.headers["Location"]), params={"digest": _digest(part)}, data=part
            )
            assert done.status_code == 201, done.text
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(parts[1], "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
        }
        answer = session.put(
            self.url(f"/v2/{repository}/manifests/{tag}"), data=json.dumps(manifest),
            headers={"Content-Type": manifest["mediaType"]},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        return answer.headers["Docker-Content-Digest"]

    def docker_push(self, engine, source, *, tag="latest", name="monad"):
        """Push an image of a container engine as the docker CLI does; return its digest."""
        facts = self.local.connection()
        repository = f"localhost:{facts['port']}/monad_db/data_schema/image_repository"
        user, token = self.registry_credentials()
        engine.docker("login", "-u", user, "--password-stdin", repository, input=token)
        engine.docker("tag", source, f"{repository}/{name}:{tag}")
        engine.docker("push", f"{repository}/{name}:{tag}")
        engine.docker("rmi", f"{repository}/{name}:{tag}")
        rows = self.rows("show images in image repository image_repository")
        return next(r["digest"] for r in rows if (r["image_name"], r["tags"]) == (name, tag))

    def spec(self, code, *args, pool_spec=None, env=None):
        """Return a specification that runs Python code with the stage mounted."""
        return json.dumps(
            {
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": IMAGE,
                            "command": ["python", "-c", code],
                            "args": list(args),
                            "env": env or {},
                            "volumeMounts": [{"name": "st", "mountPath": "/app/monad_stage"}],
                            **(pool_spec or {}),
                        }
                    ],
                    "volumes": [
                        {
                            "name": "st", "source": "stage", "uid": 1000, "gid": 1000,
                            "stageConfig": {"name": "@monad_db.data_schema.monad_stage"},
                        }
                    ],
                }
            }
        )  # fmt: skip

    def execute(self, code, *args, name=None, is_async=True, pool="cpu_pool", more="", **options):
        """Execute a job service and return its name."""
        name = name or f"JOB{next(self.names)}"
        spec = self.spec(code, *args, **options).replace("\\", "\\\\").replace("'", "\\'")
        self.rows(
            f"execute job service in compute pool {pool} name = {name} async = {is_async} {more}"
            f" from specification '{spec}'"
        )
        return name

    def status(self, name):
        """Return a job service's status."""
        return self.rows(f"describe service {name}")[0]["status"]

    def wait(self, name, status="DONE", seconds=60):
        """Wait for a status."""
        return self.value(f"call {name}!spcs_wait_for('{status}', {seconds})")

    def logs(self, name, instance=0):
        """Return a job service's log."""
        return self.value(f"call system$get_service_logs('{name}', '{instance}', 'main')")


def _tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text.encode()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(data, media_type):
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def make_account(state_dir, runner=None):
    """Start a set-up account with the image `monad:latest`, with one runner if given."""
    if runner is not None:
        (state_dir / "runner.json").write_text(json.dumps({"runner": runner}))
    (state_dir / "event_table.json").write_text('{"metric_seconds": 0.2}')
    account = AccountForTests(state_dir)
    account.local.start()
    admin = account.connect("ADMIN", database=None, schema=None, warehouse=None)
    for statement in SETUP.split(";"):
        if statement.strip():
            admin.cursor().execute(statement)
    account.digest = account.push({"opt/monad/engine/hello.py": "VALUE = 'from the image'\n"})
    return account


@pytest.fixture(scope="session")
def new_account():
    """Return the function that starts a set-up account in a directory."""
    return make_account


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """A set-up account whose containers are as isolated as this host allows."""
    account = make_account(tmp_path_factory.mktemp("account"))
    yield account
    account.local.reset()


@pytest.fixture(scope="session")
def plain_account(tmp_path_factory):
    """A set-up account whose containers are plain processes."""
    account = make_account(tmp_path_factory.mktemp("plain"), "plain")
    yield account
    account.local.reset()


@pytest.fixture(scope="session")
def docker_account(tmp_path_factory, container_engine, base_image):
    """A set-up account whose containers have an internal network in a private Docker Engine."""
    yield from _docker_account(tmp_path_factory, container_engine, base_image, "docker-bridge")


@pytest.fixture(scope="session")
def host_network_account(tmp_path_factory, container_engine, base_image):
    """A set-up account whose containers in a private Docker Engine share the host's network."""
    yield from _docker_account(tmp_path_factory, container_engine, base_image, "docker-host")


@pytest.fixture(params=["docker_account", "host_network_account"])
def either_docker_account(request):
    """Both of them, one after the other."""
    return request.getfixturevalue(request.param)


def _docker_account(tmp_path_factory, engine, image, runner):
    with docker_host(engine):
        account = make_account(tmp_path_factory.mktemp(runner), runner)
    try:
        account.digest = account.docker_push(engine, image)
        yield account
    finally:
        account.local.reset()
