"""The life of a job service: texts, statuses, exit codes, waiting, cancelling, its name."""

import json
import threading
import time

import pytest
import snowflake.connector


@pytest.mark.fidelity("async-text")
def test_async_answer(target, run_job):
    """ASYNC answers at once with the name between quotes."""
    name = run_job.name()
    (row,) = target.rows(run_job.statement("true", name))
    last = name.rpartition(".")[2]
    assert row == {"status": f"Started Snowpark Container Services Job '{last}'."}
    assert run_job.finish(name) == "DONE"


@pytest.mark.fidelity("sync-text")
def test_sync_answer(target, run_job):
    """Without ASYNC the statement lasts until the end and says DONE."""
    name = run_job.name()
    (row,) = target.rows(run_job.statement("true", name, is_async=False))
    last = name.rpartition(".")[2]
    assert row == {"status": f"Job {last} completed successfully with status: DONE."}


@pytest.mark.fidelity("sync-failure")
def test_sync_failure(target, run_job):
    """A job service that fails makes the synchronous statement fail, with its name and status."""
    name = run_job.name()
    error = target.error(run_job.statement("exit 3", name, is_async=False))
    assert name.rpartition(".")[2] in error.raw_msg
    assert "FAILED" in error.raw_msg
    row = run_job.container(name)
    assert (row["status"], row["last_exit_code"]) == ("FAILED", 3)
    assert row["message"] == "User application error, check container logs"


@pytest.mark.fidelity("order-spec-first")
def test_specification_before_properties(target, run_job):
    """The properties may also follow the specification."""
    name = run_job.name()
    text = run_job.specification("true")
    target.rows(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {run_job.pool} FROM SPECIFICATION $${text}$$"
        f" NAME = {name} ASYNC = TRUE COMMENT = 'properties last'"
    )
    assert run_job.finish(name) == "DONE"


@pytest.mark.fidelity("generated-name")
def test_generated_name(target, world, run_job):
    """Without NAME the job service is found by the statement's query id."""
    target.script(f"USE SCHEMA {world['schema']}")
    cursor = target.admin.cursor()
    cursor.execute(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {run_job.pool} ASYNC = TRUE"
        f" FROM SPECIFICATION $${run_job.specification('true')}$$"
    )
    (text,) = cursor.fetchone()
    name = text.split("'")[1]
    assert name == "JOB_" + cursor.sfqid.upper().replace("-", "_")
    history = target.rows("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())")
    assert next(row["NAME"] for row in history if row["QUERY_ID"] == cursor.sfqid) == name
    run_job.finish(f"{world['schema']}.{name}")
    target.rows(f"DROP SERVICE {world['schema']}.{name}")


@pytest.mark.fidelity("name-held")
def test_name_is_held_after_the_end(target, run_job):
    """The name of a job service that has ended is held; a dropped one is free."""
    name = run_job.execute("true")
    run_job.finish(name)
    error = target.error(run_job.statement("true", name))
    assert (error.errno, error.sqlstate) == (2002, "42710")
    (row,) = target.rows(f"DROP SERVICE {name}")
    assert row == {"status": f"{name.rpartition('.')[2]} successfully dropped."}
    run_job.execute("true", name=name)
    run_job.finish(name)


@pytest.mark.fidelity("history-after-drop")
def test_history_keeps_the_exit_code_of_a_dropped_one(target, run_job):
    """GET_JOB_HISTORY has the exit code of a job service that was dropped."""
    name = run_job.execute("exit 7")
    assert run_job.finish(name) == "FAILED"
    target.rows(f"DROP SERVICE {name}")
    assert target.error(f"DESCRIBE SERVICE {name}").errno == 2003
    last = name.rpartition(".")[2]
    history = target.rows("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 50))")
    row = next(row for row in history if row["NAME"] == last and row["DELETED_TIME"])
    statuses = json.loads(row["INSTANCE_STATUSES"])
    assert (row["STATUS"], statuses["failedInstances"]) == ("FAILED", 1)
    assert statuses["instances"][0]["containers"][0]["lastExitCode"] == 7


@pytest.mark.fidelity("wait-for")
def test_wait_for(target, run_job):
    """SPCS_WAIT_FOR returns once the status is there, and fails with the current one if not."""
    name = run_job.execute("true")
    target.rows(f"CALL {name}!SPCS_WAIT_FOR('DONE', 600)")
    failed = run_job.execute("exit 1")
    error = target.error(f"CALL {failed}!SPCS_WAIT_FOR('DONE', 600)")
    assert "FAILED" in error.raw_msg


@pytest.mark.fidelity("cancel")
def test_cancel_keeps_the_object(target, run_job):
    """A cancelled job service ends as CANCELLED and stays; SIGTERM came first."""
    name = run_job.execute("trap 'exit 0' TERM; echo up; sleep 600 & wait")
    target.rows(f"CALL {name}!SPCS_WAIT_FOR('RUNNING', 600)")
    target.rows(f"CALL {name}!SPCS_CANCEL_JOB()")
    assert run_job.finish(name) == "CANCELLED"


@pytest.mark.fidelity("cancel-select")
def test_cancel_with_select(target, run_job):
    """The SELECT form of a service's method works as CALL does."""
    name = run_job.execute("sleep 600")
    target.rows(f"SELECT {name}!SPCS_CANCEL_JOB()")
    assert run_job.finish(name) in ("CANCELLED", "CANCELLING")


@pytest.mark.fidelity("cancel-statement")
def test_cancelled_statement_ends_the_job_service(target, run_job):
    """Cancelling a synchronous statement ends its job service too."""
    name = run_job.name()
    other = target.connect()
    cursor = other.cursor()
    cursor.execute_async(run_job.statement("sleep 600", name, is_async=False))
    _until(lambda: target.rows(f"SHOW JOB SERVICES LIKE '{name.rpartition('.')[2]}' IN ACCOUNT"))
    target.rows(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')")
    assert run_job.finish(name) in ("CANCELLED", "FAILED")


@pytest.mark.fidelity("alter-job")
def test_job_service_cannot_be_altered(target, run_job):
    """ALTER SERVICE changes no job service."""
    name = run_job.execute("true")
    run_job.finish(name)
    target.error(f"ALTER SERVICE {name} SET COMMENT = 'x'")


@pytest.mark.fidelity("env-of-the-container")
def test_container_environment(target, world, run_job):
    """The documented variables are there; what the specification sets wins or is refused."""
    name = run_job.execute("env", clauses="REPLICAS = 1")
    assert run_job.finish(name) == "DONE"
    log = target.value(f"CALL SYSTEM$GET_SERVICE_LOGS('{name}', '0', 'main', 200)")
    found = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
    assert found["SNOWFLAKE_DATABASE"] == world["database"]
    assert found["SNOWFLAKE_SCHEMA"] == "S"
    assert found["SNOWFLAKE_SERVICE_NAME"].upper() == name.rpartition(".")[2]
    assert (found["SNOWFLAKE_JOBS_COUNT"], found["SNOWFLAKE_JOB_INDEX"]) == ("1", "0")
    assert {"SNOWFLAKE_ACCOUNT", "SNOWFLAKE_HOST"} <= set(found)


@pytest.mark.fidelity("env-override")
def test_specification_redefines_an_injected_variable(target, run_job):
    """A variable in the specification's env replaces the injected one of that name."""
    name = run_job.execute(
        "echo $SNOWFLAKE_DATABASE", container={"env": {"SNOWFLAKE_DATABASE": "OTHER"}}
    )
    assert run_job.finish(name) == "DONE"
    log = target.value(f"CALL SYSTEM$GET_SERVICE_LOGS('{name}', '0', 'main', 10)")
    assert log.strip() == "OTHER"


@pytest.mark.fidelity("digest")
def test_digest_is_frozen_and_shown(target, image, run_job):
    """SHOW SERVICE CONTAINERS and the specification of DESCRIBE carry the pushed digest."""
    name = run_job.execute("true")
    run_job.finish(name)
    assert run_job.container(name)["image_digest"].removeprefix("@") == image.digest
    spec = target.rows(f"DESCRIBE SERVICE {name}")[0]["spec"]
    assert spec.startswith("---")
    assert f'sha256: "@{image.digest}"' in spec


@pytest.mark.fidelity("logs-unknown-instance")
def test_logs_of_an_instance_that_is_not_there(target, run_job):
    """Logs of an unknown instance are refused with the instances there are."""
    name = run_job.execute("true")
    run_job.finish(name)
    error = target.error(f"CALL SYSTEM$GET_SERVICE_LOGS('{name}', '9', 'main')")
    assert "Unable to get container status for instance id: 9" in error.raw_msg


@pytest.mark.fidelity("event-levels")
def test_schema_levels_apply_to_job_services(target, run_job):
    """LOG_LEVEL set on the schema sends a job service's log to SPCS_GET_LOGS."""
    name = run_job.execute("echo for the event table")
    run_job.finish(name)
    query = f"SELECT LOG, RECORD_ATTRIBUTES FROM TABLE({name}!SPCS_GET_LOGS())"
    rows = _until(lambda: target.rows(query), seconds=400)
    assert rows[0]["LOG"] == "for the event table"
    assert json.loads(rows[0]["RECORD_ATTRIBUTES"]) == {"log.iostream": "stdout"}


@pytest.mark.fidelity("too-large")
def test_container_that_no_node_can_hold(target, world, run_job):
    """A request above what a node has never runs: refused, or PENDING with the reason."""
    name = run_job.name()
    container = {"resources": {"requests": {"memory": "4000Gi"}, "limits": {"memory": "4000Gi"}}}
    refusal = ""
    try:
        target.rows(run_job.statement("true", name, container=container))
    except snowflake.connector.errors.ProgrammingError as error:
        refusal = error.raw_msg
    message = refusal or _until(lambda: run_job.container(name)["message"])
    assert refusal or message.startswith("Unschedulable due to insufficient")
    assert "memory" in message or "resource" in message


def _until(seen, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := seen()):
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.2)
    return value
