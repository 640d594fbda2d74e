"""snowflake-core over REST: compute pools, image repositories, stages and job services."""

import json
import time
import urllib.error
import urllib.request

import pytest
from snowflake.connector import connect
from snowflake.core import CreateMode, Root
from snowflake.core.compute_pool import ComputePool
from snowflake.core.exceptions import ConflictError, NotFoundError
from snowflake.core.image_repository import ImageRepository
from snowflake.core.service import JobService, ServiceSpec
from snowflake.core.stage import Stage

IMAGE = "/monad_db/data_schema/image_repository/tool:1"


@pytest.fixture(scope="module")
def roots(facts):
    """Return the API's root for each user."""
    connections = {name: connect(**facts[name]) for name in ("admin", "pipeline")}
    yield {name: Root(connection) for name, connection in connections.items()}
    for connection in connections.values():
        connection.close()


@pytest.fixture
def root(roots):
    """Return the administrator's root."""
    return roots["admin"]


@pytest.fixture
def schema(root):
    """Return the schema of the tests."""
    return root.databases["MONAD_DB"].schemas["DATA_SCHEMA"]


def test_compute_pool(root, unique):
    """A pool is created once, listed, described, resumed, suspended and dropped."""
    name = unique("P")
    wanted = ComputePool(
        name=name, min_nodes=1, max_nodes=2, instance_family="CPU_X64_XS", auto_resume=False,
        auto_suspend_secs=300, comment="it's",
    )  # fmt: skip
    pool = root.compute_pools.create(wanted, initially_suspended=True)
    with pytest.raises(ConflictError):
        root.compute_pools.create(wanted)
    root.compute_pools.create(wanted, mode=CreateMode.if_not_exists)
    found = pool.fetch()
    assert (found.name, found.state, found.max_nodes) == (name, "SUSPENDED", 2)
    assert (found.auto_resume, found.auto_suspend_secs, found.comment) == (False, 300, "it's")
    assert [p.name for p in root.compute_pools.iter(like=f"{name}%")] == [name]
    pool.resume()
    assert pool.fetch().state in {"STARTING", "IDLE"}
    pool.stop_all_services()
    pool.suspend()
    pool.drop()
    with pytest.raises(NotFoundError):
        pool.fetch()


def test_image_repository(schema, unique):
    """A repository is created, found, listed with its images and dropped."""
    name = unique("R")
    repository = schema.image_repositories.create(ImageRepository(name=name))
    assert repository.fetch().repository_url.endswith(name.lower())
    assert name in {found.name for found in schema.image_repositories.iter()}
    assert list(repository.list_images_in_repository()) == []
    images = schema.image_repositories["IMAGE_REPOSITORY"].list_images_in_repository()
    assert "tool" in {image.image_name for image in images}
    repository.drop()
    with pytest.raises(NotFoundError):
        repository.fetch()


def test_stage(schema, unique, tmp_path):
    """A stage is created, filled by SQL, listed, read back and dropped."""
    stage = schema.stages.create(Stage(name=unique("ST"), comment="made by core"))
    assert stage.fetch().comment == "made by core"
    (tmp_path / "a.txt").write_text("a")
    stage.put(str(tmp_path / "a.txt"), "/dir", auto_compress=False)
    files = list(stage.list_files())
    assert [file.name.split("/", 1)[1] for file in files] == ["dir/a.txt"]
    target = tmp_path / "down"
    target.mkdir()
    stage.get("/dir/a.txt", str(target))
    assert (target / "a.txt").read_text() == "a"
    stage.drop()
    with pytest.raises(NotFoundError):
        stage.fetch()


def spec(code):
    """Return an inline specification."""
    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", code]}
    endpoint = {"name": "web", "port": 8000}
    return ServiceSpec(json.dumps({"spec": {"containers": [container], "endpoints": [endpoint]}}))


def test_job_service(schema, unique):
    """A job service is executed; its status, logs, containers and instances are read."""
    name = unique("J")
    code = "import time; print('hello from core', flush=True); time.sleep(120)"
    job = JobService(name=name, compute_pool="CPU_POOL", spec=spec(code), is_async_job=True)
    service = schema.services.execute_job(job)
    try:
        deadline = time.monotonic() + 60
        while "hello" not in (logs := _logs(service)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "hello from core" in logs
        found = service.fetch()
        assert (found.name, found.status, found.is_job) == (name, "RUNNING", True)
        assert name in {item.name for item in schema.services.iter()}
        assert [c.container_name for c in service.get_containers()] == ["main"]
        assert [i.instance_id for i in service.get_instances()] == ["0"]
        assert [(e.name, e.port) for e in service.get_endpoints()] == [("web", 8000)]
        assert json.loads(json.dumps(service.get_service_status()))[0]["status"] == "READY"
    finally:
        service.drop()
    with pytest.raises(NotFoundError):
        service.fetch()


def _logs(service):
    try:
        return service.get_service_logs("0", "main")
    except Exception as error:
        assert "PENDING" in str(error) or "not" in str(error), error  # noqa: PT017 - or logs
        return ""


def test_privileges(roots, unique):
    """REST refuses what SQL refuses: another role's objects do not exist."""
    name = unique("R")
    admin = roots["admin"].databases["MONAD_DB"].schemas["PUBLIC"]
    repository = admin.image_repositories.create(ImageRepository(name=name))
    other = roots["pipeline"].databases["MONAD_DB"].schemas["PUBLIC"]
    with pytest.raises(NotFoundError):
        other.image_repositories[name].fetch()
    repository.drop()


@pytest.mark.parametrize("header", [{}, {"Authorization": 'Snowflake Token="forged"'}])
def test_without_a_session(facts, header):
    """Without a live session's token the API is closed."""
    where = facts["admin"]
    url = f"http://{where['host']}:{where['port']}/api/v2/compute-pools"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, headers=header))
    assert caught.value.code == 401
    assert json.load(caught.value)["error_code"] in {"390103", "390104"}
