"""Stage, registry, set-up and doctor against a local account, over the real connector."""

import time

import pytest

from monad_dagster.errors import (
    ComputePoolUnavailableError,
    ConnectionFailedError,
    ImageError,
    StageError,
)
from monad_dagster.spcs import sql, sql_lineage
from monad_dagster.spcs.account_setup import AccountLayout, apply_setup
from monad_dagster.spcs.compute_pool import describe_compute_pool, family_of
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.doctor import diagnose
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.lineage import LineageInput, LineageRecord, record_lineage
from monad_dagster.spcs.oci_image import ImageConfig, build_layout
from monad_dagster.spcs.sql import Statement
from monad_dagster.spcs.stage import StageClient
from tests.contract.pipes.conftest import LAYOUT, open_session

ROOT = StagePath(LAYOUT.qualified(LAYOUT.stage), "contract")


@pytest.fixture
def stage(session):
    """File operations with the pipeline's role."""
    return StageClient(session)


def test_files_come_back_as_they_were_sent(stage, tmp_path):
    """An upload keeps name and bytes, replaces what is there, and is listed with its size."""
    target = ROOT / "files" / "a config.yaml"
    stage.put_text("first", target)
    stage.put_text("second time", target)
    assert stage.read_text(target) == "second time"
    assert [(f.path, f.size) for f in stage.list(ROOT / "files")] == [(target, 11)]
    assert stage.exists(target)
    assert not stage.exists(ROOT / "files" / "a config")


def test_removing_a_directory_leaves_its_neighbour(stage):
    """`run1` does not take `run10` along."""
    stage.put_text("1", ROOT / "run1" / "x")
    stage.put_text("10", ROOT / "run10" / "x")
    assert stage.remove_directory(ROOT / "run1") == 1
    assert stage.exists(ROOT / "run10" / "x")
    stage.put_text("y", ROOT / "run10" / "x.y")
    with pytest.raises(StageError, match="begin with that name"):
        stage.remove_file(ROOT / "run10" / "x")


def test_several_files_are_fetched_with_one_statement(stage, tmp_path):
    """Names that are not there are left out; names are matched exactly."""
    for name in ("1.json", "2.json", "11.json"):
        stage.put_text(name, ROOT / "many" / name)
    found = stage.get_files(ROOT / "many", ["1.json", "2.json", "3.json"], tmp_path)
    assert [path.read_text() for path in found] == ["1.json", "2.json"]
    assert not (tmp_path / "11.json").exists()


def test_a_missing_stage_file_is_an_error_that_says_where(stage, tmp_path):
    """The message names the path and the statement that shows the directory."""
    with pytest.raises(StageError, match=r"contract/nowhere/x was.*LIST @.*/contract/nowhere/"):
        stage.get_file(ROOT / "nowhere" / "x", tmp_path)
    assert stage.list(ROOT / "nowhere") == []


def test_an_image_is_pushed_with_the_digest_of_its_layout(session, tmp_path):
    """The registry's digest is ours, the same files give the same digest, tags move."""
    repository = ImageRepository(session, LAYOUT.qualified(LAYOUT.image_repository))
    (tmp_path / "a.py").write_text("print('a')")
    config = ImageConfig(env={"PYTHONPATH": "/opt"}, labels={"kind": "test"})
    files = {"/opt/a.py": tmp_path / "a.py"}
    first = build_layout(tmp_path / "one", files, config)
    assert build_layout(tmp_path / "two", files, config) == first
    assert repository.push_layout(tmp_path / "one", image="contract", tag="t") == first
    assert repository.digest_of("contract", "t") == first
    assert repository.push_layout(tmp_path / "two", image="contract", tag="t") == first
    (tmp_path / "a.py").write_text("print('b')")
    second = build_layout(tmp_path / "three", files, config)
    assert second != first
    repository.push_layout(tmp_path / "three", image="contract", tag="t")
    assert repository.digest_of("contract", "t") == second
    assert repository.digest_of("contract", "other") is None


def test_credentials_are_never_printed(session):
    """The token is not part of the representation."""
    repository = ImageRepository(session, LAYOUT.qualified(LAYOUT.image_repository))
    credentials = repository.credentials()
    assert credentials.token not in repr(credentials)


def test_a_missing_repository_says_how_to_create_it(session):
    """The error names the repository."""
    repository = ImageRepository(session, LAYOUT.qualified("NO_SUCH_REPOSITORY"))
    with pytest.raises(ImageError, match="NO_SUCH_REPOSITORY"):
        repository.url()


def test_the_set_up_can_be_repeated(account):
    """Every statement is idempotent."""
    with open_session(account.connection("ADMIN")) as session:
        assert apply_setup(session, LAYOUT) > 30


def test_the_doctor_finds_nothing_wrong_after_the_set_up(session):
    """All checks but the empty source schema pass."""
    findings = diagnose(session, LAYOUT)
    assert [f.check for f in findings if not f.ok] == ["source data HM_KAGGLE.PUBLIC"]


def test_the_doctor_names_the_missing_grant(account):
    """For a role without grants each finding holds the statements that repair it."""
    layout = AccountLayout(role="POOR_ROLE")
    with open_session(account.connection("ADMIN")) as admin:
        admin.execute(Statement("USE ROLE ACCOUNTADMIN"))
        admin.execute(Statement("CREATE ROLE IF NOT EXISTS POOR_ROLE"))
        admin.execute(Statement("GRANT ROLE POOR_ROLE TO USER MONAD_PIPELINE"))
    with open_session({**account.connection(), "role": "POOR_ROLE"}) as session:
        findings = {f.check: f for f in diagnose(session, layout)}
    assert not findings["compute pool"].ok
    repairs = [s.text for s in findings["create job services"].repair]
    assert "GRANT CREATE SERVICE ON SCHEMA MONAD_DB.DATA_SCHEMA TO ROLE POOR_ROLE" in repairs


def test_a_pool_has_a_family_with_a_shape(session):
    """The pool's family is described by the account."""
    pool = describe_compute_pool(session, LAYOUT.compute_pool)
    family = family_of(session, pool)
    assert (family.name, family.memory_gib, family.gpu_count) == ("GPU_NV_S", 28, 1)
    with pytest.raises(ComputePoolUnavailableError, match="NO_POOL"):
        describe_compute_pool(session, "NO_POOL")


def test_a_wrong_password_is_refused_at_once(account):
    """The error says that the login was refused and does not print the password."""
    arguments = {**account.connection(), "password": "wrong-secret"}
    started = time.monotonic()
    with pytest.raises(ConnectionFailedError, match="refused the login") as error:
        open_session(arguments).execute(sql.current_session())
    assert "wrong-secret" not in str(error.value)
    assert time.monotonic() - started < 20


def test_an_account_that_is_not_there_is_named_as_such(account):
    """A closed port ends with the advice to start the account."""
    import snowflake.connector

    arguments = {**account.connection(), "port": 9, "login_timeout": 2}
    session = Session(lambda: snowflake.connector.connect(**arguments), attempts=1)
    with pytest.raises(ConnectionFailedError, match="cannot be reached"):
        session.execute(sql.current_session())


def test_lineage_rows_can_be_read_back(session):
    """One row an edge, quotes and absent values included."""
    table = LAYOUT.qualified(LAYOUT.lineage_table)
    record = LineageRecord(
        asset="it's",
        version="v-contract",
        inputs=(LineageInput("asset", "a", "1"), LineageInput("table", "HM.T")),
        details={"path": "a\\b"},
    )
    record_lineage(session, table, record)
    rows = session.execute(sql_lineage.select_lineage(table, output_version="v-contract")).rows
    assert [(r["input_name"], r["input_version"]) for r in rows] == [("HM.T", None), ("a", "1")]
    assert rows[0]["output_asset"] == "it's"
    assert rows[0]["details"] == '{"path": "a\\\\b"}'


def test_names_are_found_whatever_their_case(session):
    """A job service that does not exist is None, not an error."""
    from monad_dagster.spcs.job_service import JobServices

    assert JobServices(session).describe(QualifiedName("MONAD_DB", "DATA_SCHEMA", "NONE")) is None
    assert JobServices(session).containers(QualifiedName("MONAD_DB", "DATA_SCHEMA", "N")) == []
