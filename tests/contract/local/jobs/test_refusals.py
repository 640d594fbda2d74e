"""What Snowflake refuses about job services and compute pools, with its numbers and words."""

import pytest
import snowflake.connector

from monad_dagster.spcs.instance_families import load_instance_families


@pytest.fixture
def refused(account):
    """Run a statement that must fail and return the error."""

    def run(sql, user="MONAD_PIPELINE"):
        with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
            account.rows(sql, user)
        return raised.value

    return run


@pytest.fixture
def without(account):
    """Take a privilege away for one test."""
    given = []

    def revoke(privilege, target):
        account.rows(f"revoke {privilege} on {target} from role monad_role", "ADMIN")
        given.append(f"grant {privilege} on {target} to role monad_role")

    yield revoke
    for statement in reversed(given):
        account.rows(statement, "ADMIN")


def execute(spec, pool="cpu_pool", more=""):
    """Return an EXECUTE JOB SERVICE statement."""
    return f"execute job service in compute pool {pool} {more} from specification $${spec}$$"


@pytest.mark.parametrize(
    ("privilege", "target", "errno", "text"),
    [
        ("create service", "schema monad_db.data_schema", 3001, "operate on schema 'DATA_SCHEMA'"),
        ("usage", "warehouse monad_warehouse", 2003, "does not exist or not authorized"),
        ("read", "image repository monad_db.data_schema.image_repository", None, ""),
    ],
)
def test_missing_privilege_is_refused(account, refused, without, privilege, target, errno, text):
    """Each privilege of the documented list is needed."""
    if privilege == "read":
        without("write", target)
        errno, text = (
            2003,
            "Image repository 'MONAD_DB.DATA_SCHEMA.IMAGE_REPOSITORY' does not exist",
        )
    without(privilege, target)
    error = refused(execute(account.spec("print(1)"), more="query_warehouse = monad_warehouse"))
    assert error.errno == errno
    assert text in error.msg


def test_pool_needs_usage(account, refused, without):
    """A role that only monitors a pool may not run on it."""
    without("usage", "compute pool cpu_pool")
    error = refused(execute(account.spec("print(1)")))
    assert (error.errno, error.sqlstate) == (3001, "42501")


def test_stage_of_the_specification_needs_read(account, refused, without):
    """A stage that the role cannot read cannot be mounted."""
    without("write", "stage monad_db.data_schema.monad_stage")
    without("read", "stage monad_db.data_schema.monad_stage")
    error = refused(execute(account.spec("print(1)")))
    assert error.errno == 2003
    assert "Stage" in error.msg


def test_stage_with_read_only_is_mounted_read_only(account, without):
    """A stage the role can only READ refuses writes in the container."""
    without("write", "stage monad_db.data_schema.monad_stage")
    name = account.execute("open('/app/monad_stage/x', 'w')")
    with pytest.raises(snowflake.connector.errors.ProgrammingError):
        account.wait(name)
    assert "Read-only" in account.logs(name)


def test_unknown_option_of_the_specification(account, refused):
    """Unknown keys are refused with Snowflake's number and text."""
    spec = '{"spec": {"containers": [{"name": "m", "image": "/a/b/c/d"}], "foo": 1}}'
    error = refused(execute(spec))
    assert (error.errno, error.sqlstate) == (395018, "22023")
    assert "Invalid spec: unknown option 'foo' for 'spec'." in error.msg


@pytest.mark.parametrize(
    ("sql", "errno"),
    [
        ("execute job service in compute pool nowhere from specification $$x$$", 2003),
        ("execute job service in compute pool cpu_pool", 1003),
        (
            "execute job service in compute pool cpu_pool from specification $$x$$ async = maybe",
            1003,
        ),
        ("execute job service in compute pool cpu_pool from specification $$x$$ color = 1", 1003),
        (
            "execute job service in compute pool cpu_pool from specification $$x$$ replicas = 0",
            1008,
        ),
        (
            "execute job service in compute pool cpu_pool from @monad_stage spec = 'absent.yaml'",
            2003,
        ),
        ("describe service nowhere", 2003),
        ("drop service nowhere", 2003),
        ("show service containers in service nowhere", 2003),
        ("call nowhere!spcs_cancel_job()", 2003),
        ("select * from table(nowhere!spcs_get_logs())", 2003),
        ("call system$get_service_logs('nowhere', '0', 'main')", 2003),
        ("create compute pool p min_nodes = 1 max_nodes = 1 instance_family = CPU_X64_S", 3001),
        ("alter compute pool cpu_pool set max_nodes = 5", 3001),
        ("drop compute pool cpu_pool", 3001),
    ],
)
def test_statement_is_refused(refused, sql, errno):
    """Missing objects, privileges and clauses have Snowflake's numbers."""
    assert refused(sql).errno == errno


@pytest.mark.parametrize(
    ("image", "errno", "text"),
    [
        ("/monad_db/data_schema/image_repository/absent:1", 397012, "Failed to retrieve image"),
        ("/monad_db/data_schema/nowhere/monad:1", 2003, "Image repository"),
        ("monad:latest", 395018, "Provided image name uses an invalid format"),
    ],
)
def test_image_must_exist(account, refused, image, errno, text):
    """An image that is not there is refused when the job service is created."""
    spec = account.spec("print(1)").replace(
        "/monad_db/data_schema/image_repository/monad:latest", image
    )
    error = refused(execute(spec))
    assert error.errno == errno
    assert text in error.msg


def test_refused_job_service_leaves_no_name_behind(account, refused):
    """A name is held only by a job service that was created."""
    refused(execute("{}", more="name = never"))
    assert account.rows("show job services like 'NEVER'") == []


def test_other_role_sees_nothing_of_a_job_service(account):
    """A role without privileges on a job service is told that it does not exist."""
    name = account.execute("print('secret')")
    account.wait(name)
    for statement in (
        "create role if not exists stranger", "grant role stranger to user admin",
        "grant usage on database monad_db to role stranger",
        "grant usage on schema monad_db.data_schema to role stranger",
    ):  # fmt: skip
        account.rows(statement, "ADMIN")
    cursor = account.connect("ADMIN", role="STRANGER").cursor()
    for sql in (
        f"describe service {name}", f"call system$get_service_logs('{name}', '0', 'main')",
        f"drop service {name}", f"call {name}!spcs_cancel_job()",
    ):  # fmt: skip
        with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
            cursor.execute(sql)
        assert raised.value.errno == 2003
    history = cursor.execute("select * from table(snowflake.spcs.get_job_history())").fetchall()
    assert history == []
    account.rows(f"grant monitor on service {name} to role stranger", "ADMIN")
    assert cursor.execute(f"call system$get_service_logs('{name}', '0', 'main')").fetchone()
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as raised:
        cursor.execute(f"call {name}!spcs_cancel_job()")
    assert raised.value.errno == 3001


def test_wait_reports_the_current_status(account, refused):
    """A wait that runs out names the status."""
    name = account.execute("import time; time.sleep(30)")
    account.wait(name, "RUNNING")
    assert "RUNNING" in refused(f"call {name}!spcs_wait_for('DONE', 0)").msg
    account.rows(f"drop service {name}")
    assert refused(f"describe service {name}").errno == 2003


def test_compute_pool_statements_have_snowflakes_columns(account):
    """SHOW, DESCRIBE, families and nodes print the documented columns."""
    account.rows("alter compute pool cpu_pool resume")
    documented = [
        "name",
        "state",
        "min_nodes",
        "max_nodes",
        "instance_family",
        "num_services",
        "num_jobs",
        "auto_suspend_secs",
        "auto_resume",
        "active_nodes",
        "idle_nodes",
        "target_nodes",
        "created_on",
        "resumed_on",
        "updated_on",
        "owner",
        "comment",
        "is_exclusive",
        "application",
    ]
    row = account.rows("show compute pools like 'CPU_POOL'")[0]
    assert list(row) == [*documented, "placement_group", "backup_instance_families"]
    row = account.rows("describe compute pool cpu_pool")[0]
    assert list(row) == [
        *documented, "budget", "error_code", "status_message", "placement_group"
    ]  # fmt: skip
    rows = account.rows("show compute pool instance families")
    assert {row["name"] for row in rows} == set(load_instance_families("aws"))
    assert list(rows[0]) == [
        "name", "description", "vcpu", "memory_gib", "storage_gib", "gpu", "gpu_count",
        "gpu_memory_gib", "current_node_usage", "message",
    ]  # fmt: skip
    account.execute("print(1)", is_async=False)
    nodes = account.rows("show nodes in compute pool cpu_pool")
    assert list(nodes[0])[:4] == ["node_id", "instance_family", "created_on", "placement_group"]


def test_compute_pool_life_cycle(account, refused):
    """A pool is created, altered, suspended and dropped."""
    create = "create compute pool temporary_pool min_nodes = 1 max_nodes = 2 instance_family = "
    assert refused(f"{create} NO_SUCH_FAMILY", "ADMIN").errno == 1008
    account.rows(f"{create} CPU_X64_XS initially_suspended = true", "ADMIN")
    assert refused(f"{create} CPU_X64_XS", "ADMIN").errno == 2002
    account.rows("alter compute pool temporary_pool set instance_family = CPU_X64_S", "ADMIN")
    account.rows("alter compute pool temporary_pool resume", "ADMIN")
    state = account.rows("describe compute pool temporary_pool", "ADMIN")[0]["state"]
    assert state in ("STARTING", "IDLE")
    error = refused("alter compute pool temporary_pool set instance_family = CPU_X64_M", "ADMIN")
    assert error.errno == 1008
    account.rows("alter compute pool temporary_pool suspend", "ADMIN")
    status = account.value("call system$get_compute_pool_status('temporary_pool')", "ADMIN")
    assert "STOPPING" in status or "SUSPENDED" in status
    account.rows("drop compute pool temporary_pool", "ADMIN")
    assert account.rows("show compute pools like 'TEMPORARY_POOL'", "ADMIN") == []
