"""Snowflake ML Jobs from submission to deletion, as a control plane."""

import time

import pytest
from snowflake.ml import jobs
from snowflake.snowpark import Session

STAGE = "ML_PAYLOADS"


@pytest.fixture(scope="module")
def session(facts):
    """Return a snowpark session of the pipeline's user."""
    with Session.builder.configs(facts["pipeline"]).create() as session:
        yield session


@pytest.fixture
def submit(session, tmp_path):
    """Return a function that submits a script."""

    def run(text, **options):
        path = tmp_path / "main.py"
        path.write_text(text)
        return jobs.submit_file(str(path), "CPU_POOL", stage_name=STAGE, session=session, **options)

    return run


def test_from_submission_to_deletion(session, submit):
    """A submitted script runs; status, logs, list and result tell of it; then it is deleted."""
    code = "import sys\nprint('payload', sys.argv[1:])\n__return__ = 2 + 3\n"
    job = submit(code, args=["--x", "it's"], env_vars={"A": "b"})
    assert job.id.startswith("MONAD_DB.DATA_SCHEMA.MAIN_")
    assert job.wait(timeout=60) == "DONE"
    assert job.status == "DONE"
    assert "payload ['--x', \"it's\"]" in job.get_logs()
    assert job.result() == 5
    listed = jobs.list_jobs(session=session)
    assert job.name in list(listed["name"])
    again = jobs.get_job(job.id, session=session)
    assert again.status == "DONE"
    jobs.delete_job(job, session=session)
    assert session.sql(f"LIST @{STAGE}").collect() == []


def test_failure(session, submit):
    """A script that raises ends as FAILED, with its traceback in the logs."""
    job = submit("raise ValueError('no such luck')")
    assert job.wait(timeout=60) == "FAILED"
    assert "no such luck" in job.get_logs()
    jobs.delete_job(job, session=session)


def test_cancel(session, submit):
    """A running job service is canceled."""
    job = submit("import time; print('up', flush=True); time.sleep(300)")
    deadline = time.monotonic() + 60
    while job.status == "PENDING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    job.cancel()
    assert job.wait(timeout=60) == "CANCELLED"
    jobs.delete_job(job, session=session)


def test_directory(session, tmp_path):
    """A directory's entry point imports a module beside it."""
    (tmp_path / "main.py").write_text("import helper\n__return__ = helper.VALUE\n")
    (tmp_path / "helper.py").write_text("VALUE = 'from the helper'\n")
    job = jobs.submit_directory(
        str(tmp_path), "CPU_POOL", entrypoint="main.py", stage_name=STAGE, session=session
    )
    assert job.result() == "from the helper"
    jobs.delete_job(job, session=session)


def test_pool_that_is_not_there(session, tmp_path):
    """An unknown compute pool is refused with Snowflake's error."""
    (tmp_path / "main.py").write_text("")
    with pytest.raises(Exception, match="does not exist or not authorized"):
        jobs.submit_file(
            str(tmp_path / "main.py"), "NO_SUCH_POOL", stage_name=STAGE, session=session
        )
