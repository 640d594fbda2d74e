"""Errors carry Snowflake's number, SQL state and words."""

import pytest

MISSING = [
    ("SELECT * FROM {schema}.NOWHERE", 2003, "42S02",
     "SQL compilation error:\nObject '{schema}.NOWHERE' does not exist or not authorized."),
    ("DESCRIBE SERVICE {schema}.NOWHERE", 2003, "02000",
     "SQL compilation error:\nService '{schema}.NOWHERE' does not exist or not authorized."),
    ("LIST @{schema}.NOWHERE", 2003, "02000",
     "SQL compilation error:\nStage '{schema}.NOWHERE' does not exist or not authorized."),
    ("SHOW IMAGES IN IMAGE REPOSITORY {schema}.NOWHERE", 2003, "02000",
     "SQL compilation error:\nImage repository '{schema}.NOWHERE' does not exist or not"
     " authorized."),
    ("DESCRIBE COMPUTE POOL MONAD_CT_NOWHERE", 2003, "02000",
     "SQL compilation error:\nCompute pool 'MONAD_CT_NOWHERE' does not exist or not authorized."),
    ("USE DATABASE MONAD_CT_NOWHERE", 2043, "02000",
     "SQL compilation error:\nObject does not exist, or operation cannot be performed."),
    ("USE WAREHOUSE MONAD_CT_NOWHERE", 2043, "02000",
     "SQL compilation error:\nObject does not exist, or operation cannot be performed."),
]  # fmt: skip


@pytest.mark.fidelity("error-missing")
@pytest.mark.parametrize(("sql", "errno", "sqlstate", "text"), MISSING, ids=[m[0] for m in MISSING])
def test_missing_object(target, world, sql, errno, sqlstate, text):
    """An object that is missing or invisible is 2003, or 2043 in USE."""
    error = target.error(sql.format_map(world))
    assert (error.errno, error.sqlstate) == (errno, sqlstate)
    assert error.raw_msg == text.format_map(world)


@pytest.mark.fidelity("error-exists")
@pytest.mark.parametrize("kind", ["STAGE", "IMAGE REPOSITORY", "TABLE"])
def test_name_is_held(target, world, kind):
    """A name that is held is 2002 (42710)."""
    name = {"STAGE": "ST", "IMAGE REPOSITORY": "REPO", "TABLE": "T"}[kind]
    columns = " (A INT)" if kind == "TABLE" else ""
    error = target.error(f"CREATE {kind} {world['schema']}.{name}{columns}")
    assert (error.errno, error.sqlstate) == (2002, "42710")
    assert error.raw_msg == f"SQL compilation error:\nObject '{name}' already exists." or (
        error.raw_msg
        == f"SQL compilation error:\nObject '{world['schema']}.{name}' already exists."
    )


def test_syntax_error(target):
    """Text that is no SQL is 1003 (42000) and says where."""
    error = target.error("SELEKT 1")
    assert (error.errno, error.sqlstate) == (1003, "42000")
    assert "syntax error line 1 at position 0 unexpected 'SELEKT'" in error.raw_msg


@pytest.mark.fidelity("error-method")
def test_unknown_table_method(target, world):
    """A table function that a service does not have is 2143."""
    error = target.error(f"SELECT * FROM TABLE({world['schema']}.J!SPCS_NO_SUCH())")
    assert (error.errno, error.sqlstate) == (2143, "42601")


@pytest.mark.fidelity("error-no-schema")
def test_no_current_database(target):
    """A bare name without a current database is 90105, without a current schema 90106."""
    connection = target.connect()
    error = target.error("CREATE STAGE NOWHERE", connection)
    assert (error.errno, error.sqlstate) == (90105, "22000")


@pytest.mark.fidelity("error-no-warehouse")
def test_no_warehouse(target, world):
    """Reading a table without a warehouse is 606 (57P03)."""
    connection = target.connect(warehouse=None)
    if target.value("SELECT CURRENT_WAREHOUSE()", connection) is not None:
        pytest.skip("the user has a default warehouse")
    error = target.error(f"SELECT COUNT(*) FROM {world['table']}, {world['view']}", connection)
    assert (error.errno, error.sqlstate) == (606, "57P03")
    assert error.raw_msg.startswith("No active warehouse selected in the current session.")


@pytest.mark.fidelity("error-internal-stage-usage")
def test_usage_on_an_internal_stage(target, world):
    """USAGE is no privilege of an internal stage."""
    error = target.error(f"GRANT USAGE ON STAGE {world['stage']} TO ROLE {world['role']}")
    assert error.errno == 3008


@pytest.mark.fidelity("error-stage-order")
def test_write_on_a_stage_needs_read(target, world):
    """WRITE on a stage is refused before READ was granted, and READ stays while WRITE does."""
    database = world["database"]
    target.script(f"CREATE OR REPLACE STAGE {database}.S.ORDERED")
    grant = f"GRANT {{}} ON STAGE {database}.S.ORDERED TO ROLE {world['role']}"
    assert "READ" in target.error(grant.format("WRITE")).raw_msg
    target.script(f"{grant.format('READ')}; {grant.format('WRITE')}")
    error = target.error(f"REVOKE READ ON STAGE {database}.S.ORDERED FROM ROLE {world['role']}")
    assert "WRITE" in error.raw_msg


@pytest.mark.fidelity("error-no-future-pools")
@pytest.mark.parametrize("plural", ["IMAGE REPOSITORIES", "COMPUTE POOLS"])
def test_no_future_grants_on(target, world, plural):
    """Image repositories and compute pools accept no future grants."""
    target.error(f"GRANT READ ON FUTURE {plural} IN SCHEMA {world['schema']} TO ROLE"
                 f" {world['role']}")  # fmt: skip
    future = target.rows(f"SHOW FUTURE GRANTS IN SCHEMA {world['schema']}")
    assert {row["grant_on"] for row in future} & {"IMAGE REPOSITORY", "COMPUTE POOL"} == set()


SPECIFICATIONS = {
    "unknown option": ("{'spec': {'containers': [], 'nonsense': 1}}",
                       "unknown option 'nonsense' for 'spec'."),
    "stage mount v1": (
        "{'spec': {'containers': [{'name': 'main', 'image': '%s', 'volumeMounts':"
        " [{'name': 'v', 'mountPath': '/v'}]}], 'volumes': [{'name': 'v', 'source': '@%s'}]}}",
        "stage mount v1 not supported, please use v2 instead"),
}  # fmt: skip


@pytest.mark.fidelity("error-spec")
@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_specification_is_refused(target, world, pool, image, case):
    """A specification that is wrong is 395018 (22023) and says why."""
    text, words = SPECIFICATIONS[case]
    text = text.replace("'", '"')
    if "%s" in text:
        text = text % (image.path, world["stage"])
    error = target.error(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {world['schema']}.WRONG"
        f" FROM SPECIFICATION $${text}$$"
    )
    assert (error.errno, error.sqlstate) == (395018, "22023")
    assert words in error.raw_msg


@pytest.mark.fidelity("error-no-repository")
def test_invisible_image_repository(target, world, pool, run_job):
    """An image whose repository the role cannot read names the repository."""
    text = run_job.specification("true").replace("/repo/", "/elsewhere/")
    error = target.error(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {world['schema']}.WRONG"
        f" FROM SPECIFICATION $${text}$$"
    )
    assert (error.errno, error.sqlstate) == (2003, "02000")
    assert error.raw_msg == (
        f"SQL compilation error:\nImage repository '{world['schema']}.ELSEWHERE'"
        " does not exist or not authorized."
    )


@pytest.mark.fidelity("error-image-missing")
def test_missing_image(target, world, pool, run_job):
    """A tag that was never pushed is 397012."""
    text = run_job.specification("true").replace("shell:1", "shell:never")
    error = target.error(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {world['schema']}.WRONG"
        f" FROM SPECIFICATION $${text}$$"
    )
    assert error.errno == 397012


@pytest.mark.fidelity("error-architecture")
def test_wrong_architecture(target, world, pool, image, run_job):
    """An image for another processor is refused with the advice to rebuild it."""
    from tests.support import images

    url = target.rows(f"SHOW IMAGE REPOSITORIES IN SCHEMA {world['schema']}")[0]["repository_url"]
    images.push(target, url, "arm", "1", {"bin/sh": b"no program"}, architecture="arm64")
    text = run_job.specification("true").replace("shell:1", "arm:1")
    error = target.error(
        f"EXECUTE JOB SERVICE IN COMPUTE POOL {pool} NAME = {world['schema']}.WRONG"
        f" FROM SPECIFICATION $${text}$$"
    )
    assert (
        "SPCS only supports image for amd64 architecture. Please rebuild your image with"
        " '--platform linux/amd64' option." in error.raw_msg
    )
