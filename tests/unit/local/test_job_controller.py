"""The controller of job services, step by step, with a fake runner and a clock tests move."""

import hashlib
import json

import pytest
from job_fakes import FakeClock, FakeRunner, InlineExecutor

from monad_dagster.local.account import Account
from monad_dagster.local.errors import StatementError
from monad_dagster.local.jobs.job_launch import Launcher
from monad_dagster.local.jobs.job_services import JobServices
from monad_dagster.local.sql import dispatch
from monad_dagster.local.sql.statements import Statement

SETUP = (
    "create database db", "create schema db.s", "create stage db.s.st",
    "create image repository db.s.repo",
    "create compute pool pool min_nodes = 1 max_nodes = 1 instance_family = GPU_NV_S"
    " initially_suspended = true auto_suspend_secs = 300",
    "alter schema db.s set log_level = INFO", "alter schema db.s set log_event_level = INFO",
)  # fmt: skip
GPU = {"nvidia.com/gpu": 1}
SPEC = {
    "spec": {
        "containers": [
            {
                "name": "main", "image": "/db/s/repo/img:1", "command": ["run"],
                "env": {"SNOWFLAKE_DATABASE": "OTHER"},
                "resources": {"limits": {**GPU, "memory": "4Gi"}, "requests": GPU},
                "volumeMounts": [{"name": "st", "mountPath": "/st"}],
            }
        ],
        "volumes": [{"name": "st", "source": "stage", "stageConfig": {"name": "@db.s.st/sub"}}],
    }
}  # fmt: skip


class World:
    """An account in this process."""

    def __init__(self, state_dir):
        (state_dir / "runner.json").write_text('{"stage_mounts": "off"}')
        self.clock, self.runner = FakeClock(), FakeRunner()
        self.account = Account(state_dir, clock=self.clock)
        self.session = self.account.create_session("ADMIN", "ACCOUNTADMIN")
        self.restart()

    def restart(self):
        """Give the account a new controller, as a restarted process would."""
        images = self.account.extensions["jobs"].launcher.images
        launcher = Launcher(self.account, images, self.runner)
        self.jobs = JobServices(self.account, launcher, InlineExecutor())
        self.account.extensions["jobs"] = self.jobs

    def sql(self, text):
        """Run a statement and return dictionaries."""
        query_id = hashlib.md5(text.encode()).hexdigest()
        result, _ = dispatch.execute(self.session, Statement.parse(text, query_id=query_id))
        return result.dicts() if hasattr(result, "dicts") else result

    def execute(self, name="job", more=""):
        """Execute a job service."""
        self.sql(
            f"execute job service in compute pool pool name = db.s.{name} async = true {more}"
            f" from specification $${json.dumps(SPEC)}$$"
        )

    def container(self, name="job"):
        """Return the row of SHOW SERVICE CONTAINERS."""
        return self.sql(f"show service containers in service db.s.{name}")[0]

    def step(self, **time):
        """Let time pass, then run the controller until nothing changes."""
        self.clock.move(**time)
        for _ in range(4):
            self.jobs.step()

    def run(self, name="job", more=""):
        """Execute a job service and bring it to RUNNING."""
        self.execute(name, more)
        self.step()
        self.step(seconds=2)
        return self.runner.containers[-1]


@pytest.fixture
def world(tmp_path):
    """An account with a pool, an image and a stage."""
    world = World(tmp_path)
    for statement in SETUP:
        world.sql(statement)
    store = world.account.extensions["images"]
    key = str(world.account.catalog.get("IMAGE REPOSITORY", "REPO", "DB", "S").id)
    config = b'{"architecture": "amd64", "os": "linux", "config": {}}'
    upload = store.start_upload()
    store.append(upload, config)
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    store.finish_upload(upload, digest, key)
    body = json.dumps({"schemaVersion": 2, "config": {"digest": digest}, "layers": []}).encode()
    store.put_manifest(key, "img", "1", body, media_type="")
    yield world
    world.account.close()


def test_suspended_pool_is_resumed_for_a_job_service(world):
    """PENDING while nodes are provisioned, RUNNING on the node, DONE; then the pool suspends."""
    world.execute()
    world.step()
    row = world.container()
    assert (row["service_status"], row["status"]) == ("PENDING", "PENDING")
    assert row["message"] == "Compute pool node(s) are being provisioned"
    assert world.sql("describe compute pool pool")[0]["state"] == "STARTING"
    world.step(seconds=2)
    assert world.container()["service_status"] == "RUNNING"
    assert world.sql("describe compute pool pool")[0]["state"] == "ACTIVE"
    world.runner.containers[0].end(0)
    world.step()
    assert world.container()["service_status"] == "DONE"
    assert world.sql("describe compute pool pool")[0]["state"] == "IDLE"
    world.step(seconds=301)
    world.step(seconds=2)
    assert world.sql("describe compute pool pool")[0]["state"] == "SUSPENDED"


def pool_facts(world):
    """Return a pool's state, nodes and message as DESCRIBE COMPUTE POOL shows them."""
    row = world.sql("describe compute pool pool")[0]
    nodes = (row["active_nodes"], row["idle_nodes"], row["target_nodes"])
    return row["state"], nodes, row["error_code"], row["status_message"]


def test_pool_grows_for_a_job_service_that_finds_no_room(world):
    """RESIZING with the new target, the job service waits for its node, then the node goes again."""
    world.sql("alter compute pool pool set max_nodes = 2")
    world.run("one")
    world.execute("two")
    world.jobs.step()
    world.jobs.step()
    assert pool_facts(world)[:3] == ("RESIZING", (1, 0, 2), "")
    row = world.container("two")
    assert (row["status"], row["message"]) == (
        "PENDING", "Compute pool node(s) are being provisioned"
    )  # fmt: skip
    world.step(seconds=2)
    assert pool_facts(world)[:3] == ("ACTIVE", (2, 0, 2), "")
    assert len(world.sql("show nodes in compute pool pool")) == 2
    assert world.container("two")["status"] == "READY"
    row = world.sql("show compute pools")[0]
    assert (row["num_services"], row["num_jobs"]) == (2, 2)
    world.runner.containers[-1].end(0)
    world.step(seconds=1)
    assert pool_facts(world)[1] == (1, 1, 2)
    world.step(seconds=60)
    assert pool_facts(world)[1] == (1, 0, 1)


def test_full_pool_says_that_it_cannot_scale(world):
    """392508 and the documented message while something waits, and only then."""
    container = world.run("one")
    assert pool_facts(world)[2:] == ("", "")
    world.execute("two")
    world.step(seconds=1)
    state, nodes, code, message = pool_facts(world)
    assert (state, nodes, code) == ("ACTIVE", (1, 0, 1), "392508")
    assert message == (
        "Compute pool has reached the maximum node limit. Consider increasing max_nodes using the "
        "ALTER COMPUTE POOL command."
    )
    assert world.container("two")["message"] == "Unschedulable due to insufficient resources"
    container.end(0)
    world.step(seconds=1)
    assert pool_facts(world)[2:] == ("", "")
    assert world.container("two")["status"] == "READY"


def test_growing_pool_without_capacity_has_its_error(world):
    """392507 while the cloud has no further node; the nodes there are go on."""
    world.sql("alter compute pool pool set max_nodes = 2")
    world.run("one")
    fault = world.account.faults.add({"kind": "capacity-error"})
    world.execute("two")
    world.jobs.step()
    world.step(seconds=90)
    state, nodes, code, message = pool_facts(world)
    assert (state, nodes, code) == ("RESIZING", (1, 0, 2), "392507")
    assert message == (
        "Compute pool is resizing for last 1 minute. We have observed CAPACITY_ERROR."
    )
    assert world.container("one")["status"] == "READY"
    world.account.faults.clear(fault.id)
    world.step(seconds=2)
    assert pool_facts(world)[:3] == ("ACTIVE", (2, 0, 2), "")


def test_lowered_max_nodes_fails_what_runs_on_the_node_that_goes(world):
    """A job service on a node beyond MAX_NODES fails as a lost node; the others run on."""
    world.sql("alter compute pool pool set max_nodes = 2")
    world.run("one")
    second = world.run("two")
    world.sql("alter compute pool pool set max_nodes = 1")
    assert second.terminated
    second.end(143)
    world.step(seconds=1)
    row = world.container("two")
    assert (row["service_status"], row["message"]) == (
        "FAILED", "Encountered fatal error: the node was lost"
    )  # fmt: skip
    assert world.container("one")["service_status"] == "RUNNING"
    assert pool_facts(world)[1] == (1, 0, 1)


def test_node_times_are_configured_by_a_file(tmp_path):
    """DIR/compute_pools.json says how long a node takes."""
    (tmp_path / "compute_pools.json").write_text('{"start": 100}')
    world = World(tmp_path)
    world.sql(next(text for text in SETUP if "compute pool" in text))
    world.sql("alter compute pool pool resume")
    world.step(seconds=99)
    assert pool_facts(world)[0] == "STARTING"
    world.step(seconds=1)
    assert pool_facts(world)[0] == "IDLE"
    world.account.close()


def test_logs_go_with_the_node_and_stay_in_the_event_table(world):
    """After the pool suspended, GET_SERVICE_LOGS fails and SPCS_GET_LOGS still answers."""
    container = world.run()
    container.say("hello")
    container.end(0)
    world.step()
    call = "call system$get_service_logs('db.s.job', '0', 'main')"
    assert next(iter(world.sql(call)[0].values())).endswith("hello")
    world.step(seconds=301)
    world.step(seconds=2)
    with pytest.raises(StatementError, match="Unable to get container status"):
        world.sql(call)
    job = world.jobs.existing()[0]
    now = world.clock.now
    rows = world.account.extensions["events"].rows(job.id, "LOG", now.replace(year=2020), now)
    assert [row.value for row in rows] == ["hello"]


def test_container_gets_the_documented_environment_and_mounts(world):
    """Injected names, the specification's own, the stage below its prefix, the token."""
    world.run(more="replicas = 1")
    request = world.runner.requests[0]
    assert request.injected_env["SNOWFLAKE_SERVICE_NAME"] == "JOB"
    assert request.injected_env["SNOWFLAKE_SCHEMA"] == "S"
    assert request.injected_env["SNOWFLAKE_JOBS_COUNT"] == "1"
    assert request.spec_env == {"SNOWFLAKE_DATABASE": "OTHER"}
    assert (request.memory_limit_bytes, request.gpus) == (4 * 2**30, 1)
    targets = {mount.target: mount for mount in request.mounts}
    assert targets["/st"].source.as_posix().endswith("stages/DB/S/ST/sub")
    token = (targets["/snowflake/session"].source / "token").read_text()
    assert world.account.tokens.find_job_token(token).role == "ACCOUNTADMIN"
    world.runner.containers[0].end(0)
    world.step()
    assert world.account.tokens.find_job_token(token) is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"exit_code": 2}, "User application error, check container logs"),
        ({"exit_code": 137, "oom": True}, "Container was OOMKilled due to resource usage"),
        ({"exit_code": 137, "lost": True}, "Encountered fatal error: the node was lost"),
    ],
)
def test_failure_has_its_message(world, facts, message):
    """A failed container fails the instance and the job service, with the platform's words."""
    world.run().end(**facts)
    world.step()
    row = world.container()
    assert (row["service_status"], row["instance_status"]) == ("FAILED", "FAILED")
    assert (row["message"], row["last_exit_code"]) == (message, facts["exit_code"])


def test_cancelled_job_service_waits_for_its_container(world):
    """CANCELLING until the container ended, then CANCELLED."""
    container = world.run()
    world.sql("call db.s.job!spcs_cancel_job()")
    world.step()
    assert container.terminated
    row = world.container()
    assert (row["service_status"], row["instance_status"], row["status"]) == (
        "CANCELLING", "TERMINATING", "TERMINATING",
    )  # fmt: skip
    container.end(143)
    world.step()
    assert world.container()["service_status"] == "CANCELLED"


def test_cancelled_before_it_was_placed(world):
    """A job service that never got a node is cancelled at once and never starts."""
    world.execute()
    world.sql("call db.s.job!spcs_cancel_job()")
    world.step(seconds=5)
    assert world.container()["service_status"] == "CANCELLED"
    assert world.runner.requests == []


@pytest.mark.parametrize(
    ("kind", "ends_with", "expected"),
    [
        ("out-of-memory", None, ("FAILED", "Container was OOMKilled due to resource usage", 137)),
        ("node-loss", None, ("FAILED", "Encountered fatal error: the node was lost", 137)),
        ("node-maintenance", 0, ("FAILED", "Encountered fatal error: the node was lost", 0)),
        (
            "internal-error",
            143,
            ("INTERNAL_ERROR", "Encountered fatal error while running, check container logs", 143),
        ),
    ],
)
def test_fault_comes_when_its_delay_is_over(world, kind, ends_with, expected):
    """A fault acts on a running container after its delay, by the account's clock."""
    world.account.faults.add({"kind": kind, "service": "JOB", "delay_seconds": 60})
    container = world.run()
    world.step(seconds=50)
    assert world.container()["status"] == "READY"
    world.step(seconds=15)
    if ends_with is not None:
        assert world.container()["status"] == "TERMINATING"
        container.end(ends_with)
        world.step()
    row = world.container()
    assert row["service_status"] == expected[0]
    assert row["last_exit_code"] == expected[2]
    assert row["message"] == expected[1]


def test_capacity_error_lasts_as_long_as_asked(world):
    """A pool stays STARTING without capacity, then starts once the fault's duration is over."""
    world.account.faults.add(
        {"kind": "capacity-error", "pool": "POOL", "duration_seconds": 100}
    )  # fmt: skip
    world.execute()
    world.step()
    world.step(seconds=65)
    row = world.sql("describe compute pool pool")[0]
    assert (row["state"], row["error_code"]) == ("STARTING", "392507")
    assert row["status_message"] == (
        "Compute pool is starting for last 1 minute. We have observed CAPACITY_ERROR."
    )
    world.step(seconds=40)
    world.step(seconds=2)
    row = world.sql("describe compute pool pool")[0]
    assert (row["state"], row["error_code"]) == ("ACTIVE", "")


def test_name_and_history_are_kept_for_thirty_days(world):
    """The name is held for 30 days; after that name and history are gone."""
    world.run().end(0)
    world.step()
    world.step(days=29)
    with pytest.raises(StatementError) as raised:
        world.execute()
    assert raised.value.errno == 2002
    assert len(world.jobs.jobs) == 1
    world.clock.move(days=2)
    world.jobs.sweep()
    assert world.jobs.jobs == {}
    world.execute()


def test_dropped_job_service_stays_in_the_history(world):
    """DROP ends the container and frees the name; GET_JOB_HISTORY still knows it."""
    container = world.run()
    world.sql("drop service db.s.job")
    assert container.terminated
    world.execute()
    statuses = [(job.name, job.status) for job in world.jobs.jobs.values()]
    assert sorted(statuses) == [("JOB", "DELETED"), ("JOB", "PENDING")]
    container.end(143)
    world.step()


def test_restarted_account_finds_its_containers(world):
    """A new controller goes on with what the old one started, exit code and log included."""
    container = world.run()
    world.restart()
    world.jobs.open()
    container.say("after the restart")
    container.end(0)
    world.step()
    assert world.container()["service_status"] == "DONE"
    world.jobs.close()


def test_container_that_vanished_with_its_directory_is_a_lost_node(world):
    """After a restart without a trace of the container the job service is FAILED."""
    (world.run().run_dir / "plan.json").unlink()
    world.restart()
    world.jobs.open()
    world.step()
    row = world.container()
    assert row["service_status"] == "FAILED"
    assert "node was lost" in row["message"]
    world.jobs.close()


def test_second_job_service_waits_for_the_only_gpu(world):
    """A full node leaves the next instance unscheduled until the first ends."""
    first = world.run("one")
    world.execute("two")
    world.step()
    assert world.container("two")["message"] == "Unschedulable due to insufficient resources"
    first.end(0)
    world.step()
    assert world.container("two")["service_status"] == "RUNNING"


def test_dropping_the_schema_ends_its_job_services(world):
    """A job service does not outlive its schema."""
    container = world.run()
    world.sql("drop schema db.s")
    world.step()
    assert container.terminated
    assert [job.status for job in world.jobs.jobs.values()] == ["DELETED"]


def test_maintenance_fails_what_runs_and_takes_the_logs(world):
    """Losing the pool's nodes fails the job service; its local logs are gone."""
    world.run().say("before")
    world.step()
    world.jobs.lose_nodes("POOL")
    world.step()
    assert world.container()["service_status"] == "FAILED"
    with pytest.raises(StatementError):
        world.sql("call system$get_service_logs('db.s.job', '0', 'main')")


def test_event_levels_gate_what_is_recorded(world):
    """Without LOG_LEVEL and LOG_EVENT_LEVEL nothing reaches the event table."""
    world.sql("alter schema db.s unset log_level")
    world.sql("alter schema db.s unset log_event_level")
    container = world.run()
    container.say("unseen")
    container.end(0)
    world.step()
    assert world.account.extensions["events"].unexported() == []
    job = world.jobs.existing()[0]
    now = world.clock.now
    events = world.account.extensions["events"]
    for kind in ("LOG", "EVENT"):
        assert events.rows(job.id, kind, now.replace(year=2020), now.replace(year=2030)) == []


def test_every_change_of_status_obeys_the_table(world):
    """A terminal status is never left, whatever happens afterwards."""
    container = world.run()
    container.end(0)
    world.step()
    world.sql("call db.s.job!spcs_cancel_job()")
    world.step()
    assert world.container()["service_status"] == "DONE"
