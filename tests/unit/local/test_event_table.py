"""What reaches the event table, from where, when, and with which attributes; clocks tests move."""

import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys

import pytest
from job_fakes import FakeClock
from test_job_controller import SPEC, World
from test_job_controller import world as set_up_account  # noqa: F401 - a fixture

from monad_dagster.local.errors import StatementError
from monad_dagster.local.jobs import job_functions, job_logs
from monad_dagster.local.jobs.event_store import EventRow, EventStore
from monad_dagster.local.runners import supervise
from monad_dagster.local.runners.base import ContainerUsage, NetworkUsage
from monad_dagster.local.sql.statements import Arguments, ObjectName


@pytest.fixture
def world(set_up_account):  # noqa: F811
    """An account with a pool, an image and a stage."""
    return set_up_account


@pytest.fixture
def groups(monkeypatch):
    """Let the specification ask for metric groups."""

    def ask(*names):
        monitor = {"metricConfig": {"groups": list(names)}}
        monkeypatch.setitem(SPEC["spec"], "platformMonitor", monitor)

    return ask


def uses(world, cpu_seconds, memory_bytes, at):
    """Let the newest container report a usage."""
    usage = ContainerUsage(at, cpu_seconds, memory_bytes)
    world.runner.containers[-1].usage = lambda: usage


def call(world, method, name="job"):
    """Return what a table function of a job service returns."""
    arguments = Arguments([], {})
    return method(world.session, None, ObjectName(("DB", "S", name.upper())), arguments).dicts()


def metrics(world, name="job"):
    """Return metric values by name, in order of time."""
    found = {}
    for row in call(world, job_functions.get_metrics, name):
        found.setdefault(row["METRIC_NAME"], []).append(float(row["VALUE"]))
    return found


def event_rows(world):
    """Return the SQL event table's rows as the command-line client reads them."""
    world.jobs.step()
    return world.account.engine.run(
        world.session,
        "select record_type, scope, resource_attributes, record, record_attributes, value,"
        " timestamp, observed_timestamp from snowflake.telemetry.events order by timestamp",
    )


def test_metrics_are_collected_when_the_specification_asks(world, groups):
    """Processor use is the mean since the last measurement; limits are the specification's."""
    groups("system", "system_limits")
    world.run()
    container = world.runner.containers[-1]
    started = world.jobs.jobs[next(iter(world.jobs.jobs))].instances[0].containers[0].started_at
    uses(world, 3.0, 1000, started + 2)
    world.step(seconds=10)
    uses(world, 8.0, 2000, started + 12)
    world.step(seconds=5)
    assert metrics(world)["container.cpu.usage"] == [1.5]
    world.step(seconds=5)
    container.end(0)
    world.step(seconds=1)
    found = metrics(world)
    assert found["container.cpu.usage"] == [1.5, 0.5]
    assert found["container.memory.usage"] == [1000, 2000]
    assert set(found["container.memory.limit"]) == {4 * 2**30}
    assert set(found["container.cpu.limit"]) == {6}  # the node's: the specification has none
    assert set(found["container.gpu.memory.capacity"]) == {24 * 2**30}
    assert set(found["container.gpu.requested"]) == {1}
    assert "container.state.running" not in found


def test_state_metrics_follow_a_container(world, groups):
    """The group `status` has the state that holds and why a container waits, at each change."""
    groups("status")
    world.run()
    world.runner.containers[-1].end(137, oom=True)
    world.step(seconds=1)
    rows = call(world, job_functions.get_metrics)
    states = [
        (row["METRIC_NAME"].removeprefix("container.state."), row["VALUE"])
        for row in rows
        if row["METRIC_NAME"].startswith("container.state.") and "reason" not in row["METRIC_NAME"]
    ]
    assert states == [
        ("pending", "1"), ("running", "1"), ("started", "1"), ("finished", "1"), ("started", "1")
    ]  # fmt: skip
    reasons = [row["RECORD_ATTRIBUTES"]["reason"] for row in rows if row["RECORD_ATTRIBUTES"]]
    assert reasons in (["Creating"], ["Initializing"])


def test_network_metrics_describe_the_instance(world, groups):
    """Bytes and packets of both directions, in rows without a container's name."""
    groups("network")
    world.run()
    container = world.runner.containers[-1]
    usage = ContainerUsage(1.0, 1.0, 1, network=NetworkUsage(1000, 10, 200, 4))
    container.usage = lambda: usage
    world.step(seconds=10)
    rows = call(world, job_functions.get_metrics)
    assert {row["METRIC_NAME"]: row["VALUE"] for row in rows} == {
        "network.egress.received.bytes": "1000",
        "network.egress.received.packets": "10",
        "network.egress.transmitted.bytes": "200",
        "network.egress.transmitted.packets": "4",
    }
    assert {(row["INSTANCE_ID"], row["CONTAINER_NAME"]) for row in rows} == {(0, None)}


def test_a_shared_network_is_not_measured(world, groups):
    """Where an instance shares the host's network there are no rows rather than the host's."""
    groups("network", "system")
    world.run()
    uses(world, 1.0, 1000, 1.0)
    world.step(seconds=10)
    assert set(metrics(world)) == {"container.cpu.usage", "container.memory.usage"}


@pytest.fixture
def block_volume(monkeypatch):
    """Give the specification a block volume beside its stage volume."""
    spec = SPEC["spec"]
    block = {"name": "disk", "source": "block", "size": "2Gi"}
    monkeypatch.setitem(spec, "volumes", [*spec["volumes"], block])
    mounts = [*spec["containers"][0]["volumeMounts"], {"name": "disk", "mountPath": "/disk"}]
    monkeypatch.setitem(spec["containers"][0], "volumeMounts", mounts)


def test_storage_metrics_are_those_of_block_volumes(world, groups, block_volume):
    """Capacity is the specification's, usage what the files take; other volumes have no rows."""
    groups("storage")
    world.run()
    mount = next(m for m in world.runner.requests[-1].mounts if m.target == "/disk")
    (mount.source / "data").write_bytes(b"x" * 100_000)
    world.step(seconds=10)
    rows = call(world, job_functions.get_metrics)
    last = {row["METRIC_NAME"]: row for row in rows}
    assert set(last) == {"volume.capacity", "volume.usage"}
    assert last["volume.capacity"]["VALUE"] == str(2 * 2**30)
    assert 100_000 <= int(last["volume.usage"]["VALUE"]) < 200_000
    attributes = last["volume.usage"]["RECORD_ATTRIBUTES"]
    assert len(attributes.pop("snow_volume_id")) == 36
    assert attributes == {
        "snow_volume_name": "disk", "snow_volume_replica": "0", "volume_type": "block"
    }  # fmt: skip


def test_a_job_service_with_a_block_volume_is_dropped_with_force_only(world, block_volume):
    """DROP SERVICE without FORCE is refused and the job service stays."""
    world.run()
    with pytest.raises(StatementError, match="FORCE") as caught:
        world.sql("drop service db.s.job")
    assert caught.value.errno == 2043
    assert world.sql("show job services in schema db.s")[0]["status"] == "RUNNING"
    world.sql("drop service db.s.job force")
    assert world.sql("show job services in schema db.s") == []


def test_no_metrics_without_being_asked(world):
    """Without platformMonitor nothing is measured."""
    world.run()
    world.step(seconds=60)
    assert metrics(world) == {}


def test_metric_level_none_keeps_metrics_out(world, groups):
    """METRIC_LEVEL takes ALL and NONE; NONE on the schema wins over the specification."""
    groups("status", "system")
    with pytest.raises(StatementError, match="METRIC_LEVEL"):
        world.sql("alter schema db.s set metric_level = SOME")
    world.sql("alter schema db.s set metric_level = NONE")
    world.run()
    world.step(seconds=60)
    assert metrics(world) == {}


def test_levels_of_a_job_service_are_its_schemas(world):
    """SHOW PARAMETERS ... IN SERVICE shows what is inherited, and from where."""
    world.run()
    row = world.sql("show parameters like 'LOG_EVENT_LEVEL' in service db.s.job")[0]
    assert (row["value"], row["level"], row["default"]) == ("INFO", "SCHEMA", "OFF")


def test_an_unknown_metric_group_is_refused(world, groups):
    """A group that Snowflake does not document fails the statement."""
    groups("everything")
    with pytest.raises(StatementError, match="invalid group 'everything'"):
        world.execute()


def test_rows_carry_the_documented_attributes(world, groups):
    """Logs, events and metrics name account, database, schema, pool, service and container."""
    groups("status")
    world.run()
    world.runner.containers[-1].say("hello")
    world.step(seconds=1)
    rows = event_rows(world)
    assert {row[0] for row in rows} == {"LOG", "EVENT", "METRIC"}
    for record_type, scope, resource, record, attributes, value, at, observed in rows:
        keys = json.loads(resource)
        expected = {
            "snow.account.name", "snow.database.id", "snow.database.name", "snow.schema.id",
            "snow.schema.name", "snow.compute_pool.id", "snow.compute_pool.name",
            "snow.compute_pool.node.instance_family", "snow.service.id", "snow.service.name",
            "snow.service.type", "snow.query.id",
        }  # fmt: skip
        assert expected <= set(keys)
        assert keys["snow.service.type"] == "Job"
        if "no GPU" in value:  # the local account's own notice
            continue
        if record_type == "LOG":
            assert (json.loads(value), observed) == ("hello", None)
            assert json.loads(attributes) == {"log.iostream": "stdout"}
            assert keys["snow.service.container.name"] == "main"
            assert keys["snow.service.instance"] == keys["snow.service.container.instance"] == "0"
            assert keys["snow.compute_pool.node.id"]
            assert len(keys["snow.service.container.run.id"]) == 32
        else:
            assert json.loads(scope) == {"name": "snow.spcs.platform"}
        if record_type == "METRIC":
            assert json.loads(record)["metric"]["name"].startswith("container.")
            assert json.loads(record)["metric_type"] == "gauge"
        if record_type == "EVENT":
            assert json.loads(record)["name"].endswith((".STATUS_CHANGE", ".WARNING"))
            assert set(json.loads(value)) == {"status", "message"}
            assert abs((at - world.clock.now.replace(tzinfo=None)).total_seconds()) < 3600


@pytest.mark.parametrize(
    ("level", "seen"), [("OFF", set()), ("INFO", {"INFO", "ERROR"}), ("ERROR", {"ERROR"})]
)
def test_log_event_level_gates_platform_events(world, level, seen):
    """OFF keeps every event out, ERROR keeps failures only; logs do not depend on it."""
    world.sql(f"alter schema db.s set log_event_level = {level}")
    world.run()
    world.runner.containers[-1].say("still logged")
    world.runner.containers[-1].end(1)
    world.step(seconds=1)
    rows = call(world, job_functions.get_events)
    assert {row["SEVERITY"] for row in rows} == seen
    assert [row["LOG"] for row in call(world, job_functions.get_logs)]


def test_delay_holds_rows_back_for_every_reader(world, tmp_path):
    """Nothing is seen before the delay has passed, in the functions and in the SQL table."""
    world.account.extensions["events"].delay_seconds = 120
    world.run()
    world.step(seconds=100)
    assert call(world, job_functions.get_events) == []
    assert event_rows(world) == []
    world.step(seconds=30)
    assert call(world, job_functions.get_events)
    assert event_rows(world)


def logged(world, name="job"):
    """Return how many bytes of the container's own log the event table has."""
    rows = call(world, job_functions.get_logs, name)
    return sum(len(row["LOG"]) for row in rows if "no GPU" not in row["LOG"])


def test_a_node_sends_one_megabyte_of_log_a_second(world):
    """The rest waits on the node and follows, after the container's end too, in order."""
    container = world.run()
    world.step(seconds=1)
    for number in range(250):
        container.say(f"{number:05}" + "x" * 9995)
    world.step()
    assert logged(world) == 1_000_000
    container.end(0)
    world.step(seconds=1)
    assert world.container()["service_status"] == "DONE"
    assert logged(world) == 2_000_000
    world.step(seconds=100)
    assert logged(world) == 2_500_000
    rows = call(world, job_functions.get_logs)
    assert [row["LOG"][:5] for row in rows if "no GPU" not in row["LOG"]] == [
        f"{number:05}" for number in range(250)
    ]


def test_log_that_has_not_left_a_node_goes_with_it(world, caplog):
    """What the limit held back is lost with the node, and the account says so."""
    container = world.run()
    world.step(seconds=1)
    for _ in range(150):
        container.say("x" * 10_000)
    container.end(0)
    world.step()
    world.sql("alter compute pool pool suspend")
    world.clock.move(seconds=2)
    world.jobs.step()
    assert world.sql("describe compute pool pool")[0]["state"] == "SUSPENDED"
    before = logged(world)
    world.step(seconds=100)
    assert before == logged(world) < 1_500_000
    assert "did not reach the event table" in caplog.text


def test_a_restarted_account_goes_on_sending(world):
    """What waited when the account was killed is sent by the next one, each line once."""
    container = world.run()
    world.step(seconds=1)
    for _ in range(150):
        container.say("x" * 10_000)
    container.end(0)
    world.step()
    assert logged(world) == 1_000_000
    world.restart()
    world.jobs.open()
    world.jobs.close()
    world.step(seconds=10)
    assert logged(world) == 1_500_000


def test_lines_that_are_not_exported_do_not_count(world):
    """A level that lets nothing through leaves the limit to others, and nothing waits."""
    world.sql("alter schema db.s set log_level = OFF")
    container = world.run()
    for _ in range(150):
        container.say("x" * 10_000)
    world.step()
    assert logged(world) == 0
    world.sql("alter schema db.s set log_level = INFO")
    for _ in range(100):
        container.say("y" * 10_000)
    world.step()
    assert logged(world) == 1_000_000


def test_delay_is_configured_by_a_file(tmp_path):
    """DIR/event_table.json sets the delay of an account."""
    (tmp_path / "event_table.json").write_text('{"delay_seconds": 90}')
    world = World(tmp_path)
    assert world.account.extensions["events"].delay_seconds == 90
    world.account.close()


def test_a_store_of_an_earlier_version_is_opened(tmp_path):
    """Rows without a time of storage are visible."""
    path = tmp_path / "events.sqlite"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL,"
            " job TEXT NOT NULL, instance INTEGER, container TEXT, record_type TEXT NOT NULL,"
            " resource TEXT NOT NULL, scope TEXT, record TEXT, attributes TEXT, value TEXT)"
        )
        old.execute(
            "INSERT INTO events (at_ns, job, record_type, resource, value)"
            " VALUES (5000, 'j', 'LOG', '{}', '\"old\"')"
        )
    store = EventStore(path, FakeClock(), delay_seconds=60)
    store.add([EventRow(6000, "j", "LOG", {}, "new")])
    start, end = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
    assert [row.value for row in store.rows("j", "LOG", start, end)] == ["old"]
    store.close()


LINE = "2026-11-01T00:00:01.000000000Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"body": "b"}, ("INFO", "b", None, 1793491201 * 10**9)),
        ({"body": {"x": 1}, "severity_text": "debug"}, ("DEBUG", {"x": 1}, None, None)),
        ({"body": "b", "severity_text": "LOUD"}, ("INFO", "b", None, None)),
        ({"body": "b", "severity_text": "OFF"}, ("INFO", "b", None, None)),
        ({"body": "b", "scope": {"name": "train"}}, ("INFO", "b", {"name": "train"}, None)),
        ({"body": "b", "scope": "train"}, ("INFO", "b", {"name": "train"}, None)),
        ({"body": "b", "timestamp": "2026-01-02T03:04:05.5Z"},
         ("INFO", "b", None, 1767323045500 * 10**6)),
        ({"body": "b", "timestamp": 1767323045}, ("INFO", "b", None, 1767323045 * 10**9)),
        ({"body": "b", "timestamp": 1767323045123}, ("INFO", "b", None, 1767323045123 * 10**6)),
        ({"body": "b", "timestamp": "1767323045123456789"},
         ("INFO", "b", None, 1767323045123456789)),
        ({"body": "b", "timestamp": [1]}, ("INFO", "b", None, 1793491201 * 10**9)),
        ({"body": "b", "attributes": "none"}, ("INFO", "b", None, None)),
        ({"no": "body"}, ("INFO", '{"no": "body"}', None, None)),
    ],
)  # fmt: skip
def test_structured_log_lines(text, expected):
    """body, severity_text, scope and timestamp are used; a part of the wrong type is left out."""
    found = job_logs.structured(job_logs.LogLine(LINE, "stdout", json.dumps(text)))
    severity, value, scope, at_ns = expected
    assert (found.severity, found.value, found.scope) == (severity, value, scope)
    assert found.attributes["log.iostream"] == "stdout"
    if at_ns is not None:
        assert found.at_ns == at_ns


def test_usage_counts_living_and_ended_processes(tmp_path):
    """Processor time of ended children stays; memory is that of the living."""
    code = (
        "import subprocess, sys, time\n"
        "burn = 'import time; t = time.process_time()\\n'"
        "'while time.process_time() - t < 0.3: pass'\n"
        "subprocess.run([sys.executable, '-c', burn])\n"
        "keep = b'x' * 50_000_000\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    outer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with outer:
        assert outer.stdout.readline() == b"ready\n"
        cpu, memory = supervise.usage_below(os.getpid())
        assert cpu >= 0.25
        assert memory > 50_000_000
        outer.stdin.close()
        assert outer.wait() == 0
    assert supervise.usage_below(os.getpid())[0] >= 0.25
