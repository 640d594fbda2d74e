"""Faults of compute pools and job services that really run."""

import time

import pytest
import snowflake.connector

SLEEP = "import time; print('working', flush=True); time.sleep(60)"


def until(seen, seconds=30):
    """Wait until a function returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := seen()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def container(account, name):
    """Return the container's row."""
    return account.rows(f"show service containers in service {name}")[0]


def history(account, name):
    """Return the job service's row of GET_JOB_HISTORY."""
    found = account.rows("select * from table(snowflake.spcs.get_job_history())")
    return next(row for row in found if row["NAME"] == name)


def fail_fast(account, faults, kind, **fields):
    """Let a fault befall a job service that works, and return its name once it is over."""
    name = f"FAULT_{kind.upper().replace('-', '_')}_{next(account.names)}"
    account.execute(SLEEP, name=name)
    until(lambda: account.status(name) == "RUNNING" and account.logs(name))
    faults.add(kind, service=name, **fields)
    until(lambda: account.status(name) not in ("PENDING", "RUNNING"))
    return name


def test_out_of_memory(account, faults):
    """An OOMKilled container has exit code 137 and the documented message."""
    name = fail_fast(account, faults, "out-of-memory")
    row = container(account, name)
    assert (account.status(name), row["status"], row["last_exit_code"]) == ("FAILED", "FAILED", 137)
    assert row["message"] == "Container was OOMKilled due to resource usage"
    assert "working" in account.logs(name)


def test_node_loss(account, faults):
    """A lost node fails the job service; its log is in the event table only."""
    name = fail_fast(account, faults, "node-loss")
    assert account.status(name) == "FAILED"
    assert container(account, name)["last_exit_code"] == 137
    with pytest.raises(
        snowflake.connector.errors.ProgrammingError, match="Unable to get container"
    ):
        account.logs(name)
    logged = account.rows(f"select log from table({name}!spcs_get_logs())")
    assert [row["LOG"] for row in logged] == ["working"]


def test_node_maintenance_gives_time_to_end(account, faults):
    """Maintenance sends SIGTERM first; the job service is FAILED even when it then ends well."""
    name = f"MAINTAINED_{next(account.names)}"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        "print('working', flush=True); time.sleep(60)"
    )
    account.execute(code, name=name)
    until(lambda: account.status(name) == "RUNNING" and account.logs(name))
    faults.add("node-maintenance", service=name)
    until(lambda: account.status(name) == "FAILED")
    assert history(account, name)["STATUS"] == "FAILED"
    with pytest.raises(
        snowflake.connector.errors.ProgrammingError, match="Unable to get container"
    ):
        account.logs(name)
    logged = account.rows(f"select log from table({name}!spcs_get_logs()) order by timestamp")
    assert [row["LOG"] for row in logged] == ["working", "saved"]


def test_internal_error(account, faults):
    """The job service ends as INTERNAL_ERROR; waiting for DONE is refused."""
    name = fail_fast(account, faults, "internal-error")
    assert account.status(name) == "INTERNAL_ERROR"
    assert history(account, name)["MESSAGE"] == "Job has encountered an error."
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="INTERNAL_ERROR"):
        account.wait(name)


def test_image_pull_failure(account, faults):
    """Containers wait with the documented message; once the image can be pulled they run."""
    name = f"PULLING_{next(account.names)}"
    fault = faults.add("image-pull-failure", service=name)
    account.execute("print('hello')", name=name)
    until(lambda: container(account, name)["message"] == "Failed to pull image")
    row = container(account, name)
    assert (row["service_status"], row["status"]) == ("PENDING", "PENDING")
    faults.clear(fault)
    account.wait(name)
    details = account.rows(
        f"select severity, event_details:message::string as message"
        f" from table({name}!spcs_get_events()) where event_name = 'CONTAINER.STATUS_CHANGE'"
    )
    assert ("ERROR", "Failed to pull image") in [(d["SEVERITY"], d["MESSAGE"]) for d in details]


def test_capacity_error(account, faults):
    """A pool without capacity stays STARTING with 392507; job services wait for it."""
    admin = "ADMIN"
    account.rows(
        "create compute pool scarce min_nodes = 1 max_nodes = 1 instance_family = GPU_NV_S"
        " initially_suspended = true", admin,
    )  # fmt: skip
    account.rows("grant usage, monitor on compute pool scarce to role monad_role", admin)
    faults.add("capacity-error", pool="scarce")
    name = account.execute("print(1)", pool="scarce")
    until(lambda: account.rows("describe compute pool scarce")[0]["error_code"])
    time.sleep(1.5)  # longer than a pool takes to start
    pool = account.rows("describe compute pool scarce")[0]
    assert (pool["state"], pool["error_code"]) == ("STARTING", "392507")
    assert pool["status_message"] == (
        "Compute pool is starting for last 0 minutes. We have observed CAPACITY_ERROR."
    )
    row = container(account, name)
    assert (row["service_status"], row["message"]) == (
        "PENDING", "Compute pool node(s) are being provisioned",
    )  # fmt: skip
    faults.clear()
    account.wait(name)


def test_backup_family_helps_against_capacity_error(account, faults):
    """A pool with a back-up family that has capacity starts, while one without stays as it is."""
    faults.add("capacity-error", family="GPU_NV_S")
    one_node = "min_nodes = 1 max_nodes = 1 instance_family = GPU_NV_S"
    backup = "backup_instance_families = ('GPU_NV_M')"
    account.rows(f"create compute pool alone {one_node}", "ADMIN")
    account.rows(f"create compute pool backed {one_node} {backup}", "ADMIN")
    until(lambda: account.rows("describe compute pool backed", "ADMIN")[0]["state"] == "IDLE")
    (backed,) = account.rows("describe compute pool backed", "ADMIN")
    (alone,) = account.rows("describe compute pool alone", "ADMIN")
    assert (backed["error_code"], backed["idle_nodes"]) == ("", 1)
    assert (alone["state"], alone["error_code"]) == ("STARTING", "392507")


def test_delayed_events(account, faults):
    """Logs and events come to the event table late; GET_SERVICE_LOGS has them at once."""
    name = f"DELAYED_{next(account.names)}"
    fault = faults.add("delayed-events", service=name, delay_seconds=600)
    account.execute("print('hello')", name=name)
    account.wait(name)
    assert account.logs(name) == "hello"
    assert account.rows(f"select * from table({name}!spcs_get_logs())") == []
    assert account.rows(f"select * from table({name}!spcs_get_events())") == []
    faults.clear(fault)
    assert [r["LOG"] for r in account.rows(f"select log from table({name}!spcs_get_logs())")] == [
        "hello"
    ]
    query = (
        "select value from snowflake.telemetry.events where record_type = 'LOG'"
        f" and resource_attributes:\"snow.service.name\"::string = '{name}'"
    )
    assert until(lambda: account.rows(query, "ADMIN"))[0]["VALUE"] == '"hello"'


def test_truncated_logs(account, faults):
    """GET_SERVICE_LOGS returns the newest lines within the bytes asked for."""
    name = account.execute("for i in range(2000): print(f'line {i:05}')")
    account.wait(name)
    faults.add("truncated-logs", service=name, max_bytes=50)
    assert account.logs(name).splitlines() == [f"line {i:05}" for i in range(1996, 2000)]


def test_count_limits_the_job_services_that_are_hit(account, faults):
    """With count 1 the second attempt of the same work goes through."""
    faults.add("node-loss", service="COUNTED_*", count=1)
    first = account.execute(SLEEP, name=f"COUNTED_A{next(account.names)}")
    until(lambda: account.status(first) == "FAILED")
    second = account.execute("print(2)", name=f"COUNTED_B{next(account.names)}")
    account.wait(second)
    assert faults.current()[0]["hits"] == 1


WRITER = """
import time
for number in range(600):
    try:
        with open(f"/app/monad_stage/{name}-{number}", "w") as file:
            file.write("x" * 10)
        print(number, "written", flush=True)
    except OSError as error:
        print(number, error, flush=True)
    time.sleep(0.1)
"""


def test_full_disk_under_a_job_service(account, faults):
    """Writes to the stage volume fail with the system's error while the disk is full."""
    prefix = f"full{next(account.names)}"
    name = account.execute(WRITER.replace("{name}", prefix))
    if "strict" not in (account.local.state_dir / "server.log").read_text():
        pytest.skip("stage volumes are plain directories here")
    until(lambda: account.status(name) == "RUNNING" and "written" in account.logs(name))
    with faults.active("full-disk", service=name):
        until(lambda: "No space left on device" in account.logs(name))
    full = account.logs(name)
    until(lambda: "written" in account.logs(name)[len(full) :])
    log = account.logs(name).splitlines()
    account.rows(f"drop service {name}")
    failed = {line.split()[0] for line in log if "No space left" in line}
    written = {line.split()[0] for line in log if "written" in line}
    staged = account.rows(f"list @monad_stage/{prefix}-")
    numbers = {row["name"].rpartition("-")[2] for row in staged if row["size"] == 10}
    assert failed
    assert not failed & numbers
    assert written - {log[-1].split()[0]} <= numbers
