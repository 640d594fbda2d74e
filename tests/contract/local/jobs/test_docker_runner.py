"""Job services in a container engine: the same account, the containers in a private dockerd.

What depends on the network runs twice: with an address of its own for each instance in an
internal network, and with the host's network.
"""

import json
import os
import signal
import time

import pytest
import snowflake.connector

from monad_dagster.local.runners.docker_cleanup import LABEL
from tests.support.container_engine import docker_host

pytestmark = pytest.mark.docker
LOGIN = """
import json, os, urllib.request
def login():
    base = "http://%s:%s" % (os.environ["SNOWFLAKE_HOST"], os.environ["SNOWFLAKE_PORT"])
    token = open("/snowflake/session/token").read()
    body = {"data": {"ACCOUNT_NAME": "LOCAL", "AUTHENTICATOR": "OAUTH", "TOKEN": token,
                     "CLIENT_APP_ID": "PythonConnector", "CLIENT_APP_VERSION": "4.8.1"}}
    request = urllib.request.Request(base + "/session/v1/login-request", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=20))
"""


def containers(engine, account):
    """Return what the engine holds for an account."""
    label = f"label={LABEL}={account.local.state_dir}"
    return engine.docker("ps", "-aq", "--no-trunc", "--filter", label).stdout.split()


def until(condition, seconds=30):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def job_id(account, name):
    """Return the id that names a job service's directory."""
    sql = "select * from table(snowflake.spcs.get_job_history())"
    return next(row["ID"] for row in account.rows(sql) if row["NAME"] == name)


def multi(account, containers, volumes=()):
    """Return a specification of several containers as SQL text."""
    spec = {"spec": {"containers": containers, "volumes": list(volumes)}}
    return json.dumps(spec).replace("\\", "\\\\").replace("'", "\\'")


def test_stage_environment_and_session_token_reach_the_container(
    either_docker_account, container_engine
):
    """The container reads and writes the stage, and logs in to the account as its owner role."""
    code = LOGIN + (
        "answer = login()\n"
        "path = '/app/monad_stage/from_container.txt'\n"
        "open(path, 'w').write(os.environ['SNOWFLAKE_SERVICE_NAME'])\n"
        "s = os.stat('/app/monad_stage')\n"
        "print(answer['success'], answer['data']['sessionInfo']['roleName'], s.st_uid, s.st_gid)\n"
    )
    name = either_docker_account.execute(code)
    either_docker_account.wait(name)
    assert either_docker_account.logs(name) == "True MONAD_ROLE 1000 1000"
    stage = either_docker_account.local.state_dir / "stages/MONAD_DB/DATA_SCHEMA/MONAD_STAGE"
    assert (stage / "from_container.txt").read_text() == name
    row = either_docker_account.rows(f"show service containers in service {name}")[0]
    assert row["image_digest"] == either_docker_account.digest
    assert containers(container_engine, either_docker_account) == []


def test_limits_of_the_specification_hold(docker_account):
    """CPU and memory limits are the kernel's; /dev/shm and memory volumes have their sizes."""
    code = (
        "import os\n"
        "def read(*names):\n"
        "    for n in names:\n"
        "        if os.path.exists(n): return open(n).read().split()\n"
        "size = lambda p: (lambda s: s.f_blocks * s.f_frsize)(os.statvfs(p))\n"
        "memory = read('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')\n"
        "quota = read('/sys/fs/cgroup/cpu.max', '/sys/fs/cgroup/cpu/cpu.cfs_quota_us')\n"
        "print(memory[0], quota[0], size('/dev/shm'), size('/memory'))\n"
        "open('/scratch/x', 'w').write('x')\n"
    )
    main = {
        "name": "main", "image": "/monad_db/data_schema/image_repository/monad:latest",
        "command": ["python", "-c", code],
        "resources": {"requests": {"cpu": 0.5, "memory": "128Mi"},
                      "limits": {"cpu": 0.5, "memory": "256Mi"}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"},
                         {"name": "mem", "mountPath": "/memory"},
                         {"name": "tmp", "mountPath": "/scratch"}],
    }  # fmt: skip
    volumes = [
        {"name": "shm", "source": "memory", "size": "96Mi"},
        {"name": "mem", "source": "memory", "size": "32Mi"},
        {"name": "tmp", "source": "local"},
    ]
    docker_account.rows(
        "execute job service in compute pool cpu_pool async = true name = "
        f"limits_{next(docker_account.names)} from specification '{multi(docker_account, [main], volumes)}'"
    )
    name = docker_account.rows("show job services like 'LIMITS%'")[0]["name"]
    docker_account.wait(name)
    assert docker_account.logs(name) == f"{256 * 2**20} 50000 {96 * 2**20} {32 * 2**20}"


def test_traffic_and_block_volumes_are_measured(either_docker_account):
    """An instance with a network of its own shows its traffic; a shared network shows none."""
    account = either_docker_account
    code = (
        f"{LOGIN}\nimport time\n"
        "open('/disk/data', 'wb').write(b'x' * 3_000_000)\n"
        "end = time.monotonic() + 2\n"
        "while time.monotonic() < end: login(); time.sleep(0.1)\n"
    )
    main = {
        "name": "main", "image": "/monad_db/data_schema/image_repository/monad:latest",
        "command": ["python", "-c", code],
        "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
    }  # fmt: skip
    spec = {
        "spec": {
            "containers": [main],
            "volumes": [{"name": "disk", "source": "block", "size": "1Gi"}],
            "platformMonitor": {"metricConfig": {"groups": ["network", "storage"]}},
        }
    }
    name = f"MEASURED_{next(account.names)}"
    account.connect().cursor().execute(
        f"execute job service in compute pool cpu_pool name = {name} async = true"
        " from specification %s",
        (json.dumps(spec),),
    )
    account.wait(name)
    most = {}
    for row in account.rows(f"select * from table({name}!spcs_get_metrics())"):
        assert row["CONTAINER_NAME"] is None
        found = most.get(row["METRIC_NAME"], 0.0)
        most[row["METRIC_NAME"]] = max(found, float(row["VALUE"]))
    assert most.pop("volume.capacity") == 2**30
    assert most.pop("volume.usage") >= 3_000_000
    if account.local.status()["runner"]["setting"] == "docker-host":
        assert most == {}
        return
    assert set(most) == {
        f"network.egress.{way}.{what}"
        for way in ("received", "transmitted")
        for what in ("bytes", "packets")
    }
    assert most["network.egress.transmitted.bytes"] > 2000
    assert most["network.egress.received.packets"] > 10


def test_out_of_memory_is_reported(docker_account):
    """The kernel ends a container that goes over its limit; the message is the platform's."""
    name = docker_account.execute(
        "x = b'x' * (200 << 20); print(len(x))",
        pool_spec={"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}},
    )
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        docker_account.wait(name)
    row = docker_account.rows(f"show service containers in service {name}")[0]
    assert row["message"] == "Container was OOMKilled due to resource usage"
    assert row["last_exit_code"] == 137


def test_exit_code_and_both_streams_with_times_are_reported(docker_account):
    """The exit code comes back; lines keep their stream and the engine's nanoseconds."""
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    name = docker_account.execute(code)
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        docker_account.wait(name)
    assert (
        docker_account.rows(f"show service containers in service {name}")[0]["last_exit_code"] == 3
    )
    rows = docker_account.rows(
        f"select log, record_attributes, timestamp from table({name}!spcs_get_logs())"
    )
    streams = {row["LOG"]: json.loads(row["RECORD_ATTRIBUTES"])["log.iostream"] for row in rows}
    assert streams == {"out": "stdout", "err": "stderr"}
    assert any(row["TIMESTAMP"].microsecond % 1000 for row in rows)


def test_command_that_does_not_exist_never_starts(docker_account):
    """The engine's words about a missing program are in the container's message."""
    name = docker_account.execute("", pool_spec={"command": ["no-such-program"]})
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        docker_account.wait(name)
    row = docker_account.rows(f"show service containers in service {name}")[0]
    assert row["message"].startswith("Encountered fatal error while starting container: ")
    assert "no-such-program" in row["message"]


def test_image_that_lost_its_grant_is_not_pulled(docker_account, container_engine):
    """The node pulls as the owner role: without READ the container stays out, and says so."""
    docker_account.docker_push(container_engine, "monad-test-base:1", name="secret", tag="1")
    grants = "{} {} on image repository monad_db.data_schema.image_repository {} role monad_role"
    main = {"image": "/monad_db/data_schema/image_repository/secret:1"}
    # The pool is full, so the job service is created now and its image pulled later.
    code = "import signal, time; signal.signal(15, lambda *_: exit(0)); print(1, flush=True); time.sleep(60)"
    full = {"resources": {"requests": {"cpu": 6}}}
    blocker = docker_account.execute(code, pool="monad_compute_pool_gpu", pool_spec=full)
    docker_account.wait(blocker, "RUNNING")
    until(lambda: docker_account.logs(blocker) == "1")
    name = docker_account.execute(
        "print(1)", pool="monad_compute_pool_gpu", pool_spec={**main, **full}
    )
    try:
        for privilege in ("read", "write"):
            docker_account.rows(grants.format("revoke", privilege, "from"), "ADMIN")
        docker_account.value(f"call {blocker}!spcs_cancel_job()")
        with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
            docker_account.wait(name)
    finally:
        for privilege in ("read", "write"):
            docker_account.rows(grants.format("grant", privilege, "to"), "ADMIN")
    row = docker_account.rows(f"show service containers in service {name}")[0]
    assert row["message"].startswith("Failed to pull image: ")
    assert "name unknown" in row["message"]  # what may not be seen does not exist
    assert "image_repository/secret@sha256:" in row["message"]


def test_containers_of_an_instance_share_its_network(either_docker_account, container_engine):
    """Two containers of one instance talk over localhost and are followed separately."""
    image = "/monad_db/data_schema/image_repository/monad:latest"
    server = (
        "import socket; s = socket.create_server(('127.0.0.1', 17654)); print('up', flush=True)\n"
        "c, _ = s.accept(); print(c.recv(10).decode())"
    )
    client = (
        "import socket, time\n"
        "for _ in range(200):\n"
        "    try: c = socket.create_connection(('127.0.0.1', 17654)); break\n"
        "    except OSError: time.sleep(0.05)\n"
        "c.sendall(b'hello'); print('sent')"
    )
    spec = multi(either_docker_account, [
        {"name": "server", "image": image, "command": ["python", "-c", server]},
        {"name": "client", "image": image, "command": ["python", "-c", client]},
    ])  # fmt: skip
    name = f"PAIR_{next(either_docker_account.names)}"
    either_docker_account.rows(
        f"execute job service in compute pool cpu_pool async = true name = {name}"
        f" from specification '{spec}'"
    )
    either_docker_account.wait(name)
    log = either_docker_account.value(f"call system$get_service_logs('{name}', '0', 'server')")
    assert log == "up\nhello"
    until(lambda: containers(container_engine, either_docker_account) == [])


def test_nothing_outside_is_reachable_without_an_integration(docker_account):
    """The internal network leads to the account and to other instances, not out of the host."""
    code = (
        "import socket\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError: print('closed')\n"
    )
    name = docker_account.execute(code)
    docker_account.wait(name)
    assert docker_account.logs(name) == "closed"


def test_cancel_lets_the_container_end_itself(docker_account):
    """SIGTERM reaches the command, which cleans up within the grace time."""
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('cleaned up', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(120)\n"
    )
    name = docker_account.execute(code)
    docker_account.wait(name, "RUNNING")
    until(lambda: docker_account.logs(name) == "ready")
    docker_account.value(f"call {name}!spcs_cancel_job()")
    until(lambda: docker_account.status(name) == "CANCELLED")
    assert docker_account.logs(name) == "ready\ncleaned up"


def test_job_services_survive_a_killed_account(docker_account, container_engine):
    """Containers outlive SIGKILL of the account: found again, their logs complete and once."""
    code = LOGIN + (
        "import time\n"
        "for i in range(40): print('line', i, flush=True); time.sleep(0.05)\n"
        "while not os.path.exists('/app/monad_stage/go_on_docker'): time.sleep(0.05)\n"
        "print(login()['success'])\n"
    )
    stage = docker_account.local.state_dir / "stages/MONAD_DB/DATA_SCHEMA/MONAD_STAGE"
    (stage / "go_on_docker").unlink(missing_ok=True)
    goes_on = docker_account.execute(code)
    quick = docker_account.execute("import time; time.sleep(2); print('while you were away')")
    lost = docker_account.execute("import time; time.sleep(300)")
    for name in (goes_on, quick, lost):
        docker_account.wait(name, "RUNNING")
    until(lambda: "line 3" in docker_account.logs(goes_on))
    ids = {
        container: json.loads(container_engine.docker("inspect", container).stdout)[0]["Args"][-1]
        for container in containers(container_engine, docker_account)
    }
    os.kill(docker_account.local.status()["pid"], signal.SIGKILL)
    victim = next(container for container, text in ids.items() if "sleep(300)" in text)
    container_engine.docker("rm", "-f", victim)
    time.sleep(2.5)
    with docker_host(container_engine):
        docker_account.restarted()
    assert docker_account.status(goes_on) == "RUNNING"
    (stage / "go_on_docker").touch()
    docker_account.wait(goes_on)
    expected = [f"line {index}" for index in range(40)] + ["True"]
    assert docker_account.logs(goes_on).splitlines() == expected
    rows = docker_account.rows(
        f"select log from table({goes_on}!spcs_get_logs()) order by timestamp"
    )
    assert [row["LOG"] for row in rows] == expected
    docker_account.wait(quick)
    assert docker_account.logs(quick) == "while you were away"
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        docker_account.wait(lost)
    row = docker_account.rows(f"show service containers in service {lost}")[0]
    assert "node was lost" in row["message"]
    until(lambda: containers(container_engine, docker_account) == [])


def test_status_says_which_runner_is_in_use(either_docker_account):
    """`status` names the engine and how instances are reached."""
    facts = either_docker_account.local.status()["runner"]
    assert facts["setting"].startswith("docker-")
    assert "Docker Engine" in facts["in_use"]["docker"]
    words = {"docker-bridge": "own address in network", "docker-host": "own loopback address"}
    assert words[facts["setting"]] in facts["in_use"]["docker"]


def test_busy_log_is_complete(docker_account):
    """Twenty thousand lines arrive, each once and in order."""
    code = "for i in range(20000): print(i)"
    name = docker_account.execute(code)
    docker_account.wait(name)
    folder = docker_account.local.state_dir / "jobs" / job_id(docker_account, name) / "0" / "main"
    lines = (folder / "log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [str(i) for i in range(20000)]
