"""Job services that really run, driven through Snowflake's own connector."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import snowflake.connector
import yaml

SPECS = Path(__file__).parents[3] / "data" / "specs"


def test_synchronous_job_service_runs_to_its_end(account):
    """The statement lasts as long as the job service and names its status."""
    name = "SYNC_JOB"
    spec = account.spec("import hello; print(hello.VALUE)").replace("'", "\\'")
    text = account.value(
        f"execute job service in compute pool cpu_pool name = {name} from specification '{spec}'"
    )
    assert text == f"Job {name} completed successfully with status: DONE."
    assert account.logs(name) == "from the image"


def test_asynchronous_job_service_is_accepted_at_once(account):
    """ASYNC answers with the job service's name; it is then waited for."""
    spec = account.spec("print(1)").replace("'", "\\'")
    text = account.value(
        f"execute job service in compute pool cpu_pool from specification '{spec}'"
        " name = async_job async = true"
    )
    assert text == "Started Snowpark Container Services Job 'ASYNC_JOB'."
    account.wait("async_job")
    assert account.status("async_job") == "DONE"


def test_generated_name_is_found_by_query_id(account):
    """Without NAME the job service is found in the history by the statement's query id."""
    cursor = account.connect().cursor()
    cursor.execute(
        "execute job service in compute pool cpu_pool async = true from specification %s",
        (account.spec("print(1)"),),
    )
    query_id = cursor.sfqid
    row = account.rows(
        "select name, status, parameters from table(snowflake.spcs.get_job_history())"
        f" where query_id = '{query_id}'"
    )[0]
    assert row["NAME"] == "JOB_" + query_id.upper().replace("-", "_")
    assert json.loads(row["PARAMETERS"])["ASYNC"] is True
    account.wait(row["NAME"])


def test_stage_mount_is_read_and_written(account, tmp_path):
    """A file that was PUT is read in the container; what it writes can be fetched with GET."""
    source = tmp_path / "in.txt"
    source.write_text("input")
    account.rows(f"put file://{source} @monad_stage/mount auto_compress=false overwrite=true")
    name = account.execute(
        "import sys, os; d = sys.argv[1]; os.makedirs(d + '/out', exist_ok=True);"
        " open(d + '/out/result.txt', 'w').write(open(d + '/in.txt').read().upper())",
        "/app/monad_stage/mount",
    )
    account.wait(name)
    account.rows(f"get @monad_stage/mount/out file://{tmp_path}/")
    assert (tmp_path / "result.txt").read_text() == "INPUT"


def test_container_connects_back_with_its_session_token(account):
    """Inside, the documented connection works with the owner role."""
    code = (
        "import os, snowflake.connector as c\n"
        "con = c.connect(host=os.environ['SNOWFLAKE_HOST'], port=int(os.environ['SNOWFLAKE_PORT']),"
        " protocol=os.environ['SNOWFLAKE_PROTOCOL'], account=os.environ['SNOWFLAKE_ACCOUNT'],"
        " token=open('/snowflake/session/token').read(), authenticator='oauth',"
        " database=os.environ['SNOWFLAKE_DATABASE'], schema=os.environ['SNOWFLAKE_SCHEMA'])\n"
        "print(con.cursor().execute('select current_role(), current_user()').fetchone())\n"
    )
    name = account.execute(code)
    account.wait(name)
    assert account.logs(name) == f"('MONAD_ROLE', '{name}')"


def test_token_of_an_ended_job_service_is_refused(account, tmp_path):
    """A session token dies with its job service."""
    name = account.execute(
        "import sys; open('/app/monad_stage/leak', 'w').write(open('/snowflake/session/token').read())"
    )
    account.wait(name)
    account.rows(f"get @monad_stage/leak file://{tmp_path}/")
    token = (tmp_path / "leak").read_text()
    deadline = time.monotonic() + 10
    while True:
        try:
            facts = account.local.connection()
            snowflake.connector.connect(
                host=facts["host"], port=facts["port"], protocol="http", account=facts["account"],
                authenticator="oauth", token=token,
            )  # fmt: skip
        except snowflake.connector.errors.DatabaseError:
            return
        assert time.monotonic() < deadline, "the token still works"


def test_failed_job_service_reports_exit_code_and_message(account):
    """Exit code 3 is a user application error, seen in containers, history and the statement."""
    name = account.execute("import sys; print('last words'); sys.exit(3)")
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        account.wait(name)
    row = account.rows(f"show service containers in service {name}")[0]
    assert list(row) == [
        "database_name", "schema_name", "service_name", "service_status", "instance_id",
        "instance_status", "container_name", "status", "message", "image_name", "image_digest",
        "restart_count", "start_time", "last_exit_code", "last_restart_time",
    ]  # fmt: skip
    assert (row["status"], row["last_exit_code"]) == ("FAILED", 3)
    assert row["message"] == "User application error, check container logs"
    assert row["image_digest"] == account.digest
    assert account.logs(name) == "last words"
    account.rows(f"drop service {name}")
    history = account.rows(
        "select status, instance_statuses, deleted_time from"
        f" table(snowflake.spcs.get_job_history(result_limit => 50)) where name = '{name}'"
    )[0]
    container = json.loads(history["INSTANCE_STATUSES"])["instances"][0]["containers"][0]
    assert (history["STATUS"], container["lastExitCode"]) == ("FAILED", 3)
    assert history["DELETED_TIME"] is not None


def test_failed_synchronous_job_service_is_a_failed_statement(account):
    """A synchronous statement raises when the job service fails."""
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match=r"FAILED.*exit code 4"):
        account.execute("import sys; sys.exit(4)", is_async=False)


def test_cancelled_job_service_ends_as_cancelled(account):
    """SIGTERM ends the container; the object stays with status CANCELLED."""
    name = account.execute("import time; print('up', flush=True); time.sleep(300)")
    account.wait(name, "RUNNING")
    account.value(f"call {name}!spcs_cancel_job()")
    account.wait(name, "CANCELLED", 40)
    assert account.status(name) == "CANCELLED"


def test_cancelling_the_statement_cancels_a_synchronous_job_service(account):
    """A synchronous job service ends with its statement."""
    cursor = account.connect().cursor()
    spec = account.spec("import time; time.sleep(300)")
    cursor.execute_async(
        f"execute job service in compute pool cpu_pool name = sync_cancel from specification $${spec}$$"
    )
    _wait_until_shown(account, "sync_cancel")
    account.wait("sync_cancel", "RUNNING")
    account.rows(f"select system$cancel_query('{cursor.sfqid}')")
    account.wait("sync_cancel", "CANCELLED", 40)
    assert account.status("sync_cancel") == "CANCELLED"


def _wait_until_shown(account, name, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if account.rows(f"show job services like '{name}'"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not appear")


def test_name_of_a_finished_job_service_stays_held(account):
    """A second job service of the same name is refused with 2002 until the first is dropped."""
    name = account.execute("print(1)")
    account.wait(name)
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
        account.execute("print(2)", name=name)
    assert (raised.value.errno, raised.value.sqlstate) == (2002, "42710")
    assert account.value(f"drop service {name}") == f"{name} successfully dropped."
    account.execute("print(2)", name=name)
    account.wait(name)


@pytest.mark.parametrize("name", ["pretrain", "train", "predict"])
def test_documented_specification_runs_unchanged(account, tmp_path, name):
    """A published specification runs from the stage on the published pool, with its warning."""
    script = tmp_path / f"{name}.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "print(sys.argv[1:], os.environ['SNOWFLAKE_DATABASE'], os.getuid(),"
        " os.statvfs('/dev/shm').f_blocks > 0)\n"
    )
    account.rows(f"put file://{script} @monad_stage/scripts auto_compress=false overwrite=true")
    account.rows(
        f"put file://{SPECS / name}.yaml @monad_stage/specs auto_compress=false overwrite=true"
    )
    job = f"DOCUMENTED_{name.upper()}"
    account.rows(
        f"execute job service in compute pool monad_compute_pool_gpu name = {job} async = true"
        f" from @monad_stage/specs specification_file = '{name}.yaml'"
    )
    account.wait(job)
    log = account.logs(job).splitlines()
    args = yaml.safe_load((SPECS / f"{name}.yaml").read_text())["spec"]["containers"][0]["args"]
    assert log[-1].startswith(f"{args[1:]} HM_KAGGLE")
    if not any(Path("/dev").glob("nvidia*")):
        assert "no GPU" in log[0]
    events = account.rows(f"select * from table({job}!spcs_get_events())")
    assert any("larger than" in row["EVENT_DETAILS"] for row in events)
    spec = yaml.safe_load(account.rows(f"describe service {job}")[0]["spec"])
    assert spec["spec"]["containers"][0]["sha256"] == f"@{account.digest}"


def test_templates_are_filled_in(account):
    """USING fills placeholders; a missing value is an error."""
    spec = account.spec("import sys; print(sys.argv[1], sys.argv[2])", "A", "B")
    spec = spec.replace('"A"', '"{{ First }}"').replace('"B"', "\"{{ second | default('two') }}\"")
    account.rows(
        "execute job service in compute pool cpu_pool name = templated async = true"
        f" from specification_template $${spec}$$ using (First => 'one')"
    )
    account.wait("templated")
    assert account.logs("templated") == "one two"
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
        account.rows(
            "execute job service in compute pool cpu_pool name = templated2"
            f" from specification_template $${spec}$$ using (first => 'one')"
        )
    assert raised.value.errno == 395018


def test_replicas_are_instances_of_their_own(account):
    """REPLICAS starts numbered instances that know how many they are."""
    code = "import os; print(os.environ['SNOWFLAKE_JOB_INDEX'], os.environ['SNOWFLAKE_JOBS_COUNT'])"
    name = account.execute(code, more="replicas = 3")
    account.wait(name)
    assert [account.logs(name, index) for index in range(3)] == ["0 3", "1 3", "2 3"]
    rows = account.rows(f"show service instances in service {name}")
    assert [(row["instance_id"], row["status"]) for row in rows] == [
        ("0", "SUCCEEDED"), ("1", "SUCCEEDED"), ("2", "SUCCEEDED")
    ]  # fmt: skip


def test_logs_reach_the_event_table(account):
    """Lines of both streams are in SPCS_GET_LOGS and SNOWFLAKE.TELEMETRY.EVENTS."""
    name = account.execute(
        "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)"
    )
    account.wait(name)
    rows = account.rows(
        f"select log, record_attributes from table({name}!spcs_get_logs()) order by log"
    )
    assert [(row["LOG"], json.loads(row["RECORD_ATTRIBUTES"])["log.iostream"]) for row in rows] == [
        ("err", "stderr"), ("out", "stdout")
    ]  # fmt: skip
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = account.rows(
            "select value from snowflake.telemetry.events where record_type = 'LOG'"
            f" and resource_attributes['snow.service.name']::string = '{name}'", "ADMIN",
        )  # fmt: skip
        if len(found) == 2:
            return
        time.sleep(0.1)
    raise AssertionError(found)


def test_events_follow_the_life_cycle(account):
    """Platform events carry the documented statuses and messages."""
    name = account.execute("print(1)")
    account.wait(name)
    rows = account.rows(f"select * from table({name}!spcs_get_events()) order by timestamp")
    details = [
        json.loads(row["EVENT_DETAILS"]) for row in rows
        if row["EVENT_NAME"] == "SERVICE.STATUS_CHANGE"
    ]  # fmt: skip
    assert [(d["status"], d["message"]) for d in details] == [
        ("PENDING", "Job is pending"), ("RUNNING", "Job is running"), ("DONE", "Job is completed")
    ]  # fmt: skip


def test_log_reader_of_the_command_line_client(account):
    """Seven arguments: lines, previous, since (inclusive) and timestamps that sort."""
    name = account.execute("print('a'); print('b'); print('c')")
    account.wait(name)
    text = account.value(f"call system$get_service_logs('{name}', '0', 'main', 2, false, '', true)")
    lines = [line.split(" ", 1) for line in text.splitlines()]
    assert [line[1] for line in lines] == ["b", "c"]
    assert lines[0][0] <= lines[1][0]
    since = account.value(
        f"call system$get_service_logs('{name}', '0', 'main', 500, false, '{lines[1][0]}', false)"
    )
    assert since == "c"
    with pytest.raises(
        snowflake.connector.ProgrammingError, match="previous logs of container main"
    ):
        account.value(f"call system$get_service_logs('{name}', '0', 'main', 10, true)")


def test_logs_are_capped(account):
    """GET_SERVICE_LOGS returns the newest 100 KB."""
    name = account.execute("for i in range(20000): print('%010d' % i)")
    account.wait(name)
    text = account.logs(name)
    assert len(text) <= 100 * 1024
    assert text.splitlines()[-1] == f"{19999:010d}"


def test_show_job_services_and_describe_have_snowflakes_columns(account):
    """Column names, case and order are as documented."""
    name = account.execute("print(1)", more="comment = 'hello'")
    account.wait(name)
    documented = [
        "name",
        "status",
        "database_name",
        "schema_name",
        "owner",
        "compute_pool",
        "dns_name",
        "current_instances",
        "target_instances",
        "min_ready_instances",
        "min_instances",
        "max_instances",
        "auto_resume",
        "external_access_integrations",
        "created_on",
        "updated_on",
        "resumed_on",
        "suspended_on",
        "auto_suspend_secs",
        "comment",
        "owner_role_type",
        "query_warehouse",
        "is_job",
        "is_async_job",
        "spec_digest",
        "is_upgrading",
        "managing_object_domain",
        "managing_object_name",
    ]
    row = account.rows(f"show services like '{name}'")[0]
    assert list(row) == documented
    assert (row["comment"], row["is_job"], row["is_async_job"]) == ("hello", "true", "true")
    job_row = account.rows(f"show job services like '{name}'")[0]
    assert list(job_row) == [column for column in documented if column != "is_job"]
    described = account.rows(f"describe service {name}")[0]
    assert list(described) == [*documented[:6], "spec", *documented[6:]]
    assert account.rows(f"show services exclude jobs like '{name}'") == []


def test_service_status_function_prints_json(account):
    """The deprecated status function answers with one object for each container."""
    name = account.execute("print(1)")
    account.wait(name)
    status = json.loads(account.value(f"call system$get_service_status('{name}')"))
    assert status[0]["status"] == "DONE"
    assert status[0]["containerName"] == "main"
    assert account.value(f"select system$wait_for_services(5, '{name}')") == "OK"


def test_full_pool_keeps_the_next_job_service_pending(account):
    """One GPU, one job service; the next waits and then runs."""
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}, "requests": {"nvidia.com/gpu": 1}}}
    pool = "monad_compute_pool_gpu"
    first = account.execute("import time; time.sleep(300)", pool=pool, pool_spec=gpu)
    account.wait(first, "RUNNING")
    second = account.execute("print('ran')", pool=pool, pool_spec=gpu)
    time.sleep(0.5)
    row = account.rows(f"show service containers in service {second}")[0]
    assert (row["service_status"], row["message"]) == (
        "PENDING", "Unschedulable due to insufficient resources"
    )  # fmt: skip
    described = account.rows(f"describe compute pool {pool}")[0]
    assert described["state"] == "ACTIVE"
    assert described["num_jobs"] == 2
    account.value(f"call {first}!spcs_cancel_job()")
    account.wait(second)


def test_job_service_survives_a_killed_account(account):
    """A container outlives SIGKILL of the server and is found again after the restart."""
    code = (
        "import time, os\nprint('started', flush=True)\n"
        "for i in range(300):\n"
        "    if os.path.exists('/app/monad_stage/go_on'): break\n    time.sleep(0.1)\n"
        "import snowflake.connector as c\n"
        "con = c.connect(host=os.environ['SNOWFLAKE_HOST'], port=int(os.environ['SNOWFLAKE_PORT']),"
        " protocol=os.environ['SNOWFLAKE_PROTOCOL'], account=os.environ['SNOWFLAKE_ACCOUNT'],"
        " token=open('/snowflake/session/token').read(), authenticator='oauth')\n"
        "print('finished', con.cursor().execute('select current_warehouse()').fetchone()[0])\n"
    )
    name = account.execute(code, more="query_warehouse = monad_warehouse")
    lost = account.execute("import time; time.sleep(300)")
    account.wait(name, "RUNNING")
    account.wait(lost, "RUNNING")
    job_dirs = list((account.local.state_dir / "jobs").iterdir())
    os.kill(account.local.status()["pid"], signal.SIGKILL)
    supervisor = _supervisor_of(job_dirs, "time.sleep(300)")
    os.kill(supervisor, signal.SIGKILL)
    account.restarted()
    assert account.status(name) == "RUNNING"
    stage = account.local.state_dir / "stages/MONAD_DB/DATA_SCHEMA/MONAD_STAGE"
    (stage / "go_on").touch()
    account.wait(name)
    assert account.logs(name) == "started\nfinished MONAD_WAREHOUSE"
    rows = account.rows(f"select log from table({name}!spcs_get_logs()) order by timestamp")
    assert [row["LOG"] for row in rows] == ["started", "finished MONAD_WAREHOUSE"]
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match="FAILED"):
        account.wait(lost)
    row = account.rows(f"show service containers in service {lost}")[0]
    assert "node was lost" in row["message"]


def _supervisor_of(job_dirs, code):
    for folder in job_dirs:
        run_dir = folder / "0" / "main"
        plan = json.loads((run_dir / "plan.json").read_text())
        text = json.dumps(plan)
        if code in text and "started" not in text and not (run_dir / "exit.json").exists():
            return json.loads((run_dir / "supervisor.json").read_text())["pid"]
    raise AssertionError("no such container")
