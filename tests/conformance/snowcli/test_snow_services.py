"""`snow spcs service`: a job service from submission to drop."""

import json
import time

import pytest

IMAGE = "/monad_db/data_schema/image_repository/tool:1"
CODE = "import time; print('hello $$ from it', flush=True); time.sleep({seconds})"


@pytest.fixture
def spec(tmp_path):
    """Return a function that writes a specification file."""

    def write(seconds):
        path = tmp_path / "spec.yaml"
        container = {
            "name": "main", "image": IMAGE,
            "command": ["python", "-c", CODE.format(seconds=seconds)],
        }  # fmt: skip
        endpoint = {"name": "web", "port": 8000}
        role = {"name": "reader", "endpoints": ["web"]}
        path.write_text(
            json.dumps(
                {
                    "spec": {"containers": [container], "endpoints": [endpoint]},
                    "serviceRoles": [role],
                }
            )
        )
        return str(path)

    return write


SERVICE = ("spcs", "service")


def submit(snow, name, path, *options, code=0):
    """Execute a job service."""
    where = ("--compute-pool", "CPU_POOL", "--spec-path", path)
    return snow(*SERVICE, "execute-job", name, *where, *options, code=code)


def until(found, seconds=30):
    """Poll until *found* returns something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def test_synchronous_job_service(snow, unique, spec):
    """A short job service is executed, then listed as DONE and described, and its name is held."""
    name = unique("J").lower()
    done = submit(snow, name, spec(0), "--comment", "it's one")
    assert f"Job {name.upper()} completed successfully with status: DONE." in done.text
    assert "already exists" in submit(snow, name, spec(0), code=1).text
    (row,) = snow(*SERVICE, "list", "--like", name).rows
    assert (row["name"], row["status"], row["comment"]) == (name.upper(), "DONE", "it's one")
    described = snow(*SERVICE, "describe", name).rows[0]
    assert (described["status"], described["is_job"]) == ("DONE", "true")
    containers = snow(*SERVICE, "list-containers", name).rows
    assert [(c["container_name"], c["status"]) for c in containers] == [("main", "DONE")]
    assert "successfully dropped" in snow(*SERVICE, "drop", name).text


def test_running_job_service(snow, unique, spec):
    """A running job service shows its instances, endpoints, roles, logs and platform events."""
    name = unique("J").lower()
    done = submit(snow, name, spec(120), "--async", "--replicas", "1")
    assert "Started Snowpark Container Services Job" in done.text
    try:
        logs = ("logs", name, "--container-name", "main", "--instance-id", "0")
        until(lambda: "hello" in snow(*SERVICE, *logs, json_output=False).out)
        assert "hello $$ from it" in snow(*SERVICE, *logs, json_output=False).out
        stamped = snow(*SERVICE, *logs, "--include-timestamps", json_output=False).out
        assert stamped.lstrip().startswith("20")
        assert "T" in stamped.split()[0]
        (instance,) = snow(*SERVICE, "list-instances", name).rows
        assert (instance["instance_id"], instance["status"]) == ("0", "READY")
        (endpoint,) = snow(*SERVICE, "list-endpoints", name).rows
        assert (endpoint["name"], int(endpoint["port"])) == ("web", 8000)
        roles = {row["name"].upper() for row in snow(*SERVICE, "list-roles", name).rows}
        assert "READER" in roles
        status = snow(*SERVICE, "status", name).rows
        assert json.loads(json.dumps(status))
        where = (name, "--container-name", "main", "--instance-id", "0")
        refused = snow(*SERVICE, "events", *where, code=1)
        assert "SNOWFLAKE.TELEMETRY.EVENTS' does not exist or not authorized" in refused.text
        # Nothing found is a message, found events are a list.
        events = until(
            lambda: (
                isinstance(rows := snow(*SERVICE, "events", *where, user="admin").rows, list)
                and rows
            )
        )
        assert any("RUNNING" in json.dumps(event).upper() for event in events), events
        snow(*SERVICE, "metrics", *where, user="admin", json_output=False)
    finally:
        snow(*SERVICE, "drop", name)


def test_job_service_that_fails(snow, unique, tmp_path):
    """A job service whose container fails ends the command with an error."""
    name = unique("J").lower()
    path = tmp_path / "bad.yaml"
    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", "raise SystemExit(3)"]}
    path.write_text(json.dumps({"spec": {"containers": [container]}}))
    done = submit(snow, name, str(path), code=1)
    assert "FAILED" in done.text
    snow(*SERVICE, "drop", name)


def test_bad_specification(snow, unique, tmp_path):
    """An unknown key of the specification is refused with Snowflake's text."""
    path = tmp_path / "bad.yaml"
    path.write_text("spec:\n  containers: []\n  nonsense: 1\n")
    done = submit(snow, unique("J").lower(), str(path), code=1)
    assert "unknown option 'nonsense' for 'spec'" in done.text


def test_service_that_is_not_there(snow):
    """An unknown job service is refused."""
    done = snow(*SERVICE, "describe", "NO_SUCH_SERVICE", code=1)
    assert "does not exist or not authorized" in done.text
