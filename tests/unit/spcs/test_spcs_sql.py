"""Statements: order, escaping, kinds."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monad_dagster.spcs import sql, sql_lineage
from monad_dagster.spcs.account_setup import AccountLayout, setup_statements, setup_text
from monad_dagster.spcs.identifiers import QualifiedName, StagePath

NAME = QualifiedName("MONAD_DB", "DATA_SCHEMA", "TRAIN_1")
STAGE = StagePath(QualifiedName("MONAD_DB", "DATA_SCHEMA", "MONAD_STAGE"))


def test_execute_job_service_puts_the_pool_first_and_the_specification_last():
    """Properties stand between the pool and the specification."""
    text = sql.execute_job_service(
        name=NAME,
        compute_pool="POOL",
        spec={"spec": {"containers": []}},
        replicas=2,
        query_warehouse="WH",
        comment="it's",
        external_access_integrations=["EAI"],
    ).text
    assert text.splitlines() == [
        "EXECUTE JOB SERVICE IN COMPUTE POOL POOL",
        "NAME = MONAD_DB.DATA_SCHEMA.TRAIN_1",
        "ASYNC = TRUE",
        "REPLICAS = 2",
        "QUERY_WAREHOUSE = WH",
        "COMMENT = 'it''s'",
        "EXTERNAL_ACCESS_INTEGRATIONS = (EAI)",
        'FROM SPECIFICATION $${"spec": {"containers": []}}$$',
    ]


@given(st.text())
def test_no_value_ends_the_dollar_quotes(value):
    """Whatever a value holds, the inline text has no inner dollar quotes and reads back equal."""
    text = sql.inline_specification({"spec": value})
    inner = text[2:-2]
    assert "$$" not in inner
    assert not inner.endswith("$")
    assert json.loads(inner) == {"spec": value}


@given(st.text())
def test_string_literals_end_where_they_should(value):
    """Undoing the escapes of a literal gives the value back."""
    text = sql.literal(value)
    assert text.startswith("'")
    assert text.endswith("'")
    assert text[1:-1].replace("''", "'").replace("\\\\", "\\") == value


@pytest.mark.parametrize("num_assets", [1, 200])
def test_a_query_tag_is_never_longer_than_snowflake_takes(num_assets):
    """A step of many assets is cut short, and its run is still named."""
    assets = ",".join(f"some/long/asset_{n}" for n in range(num_assets))
    text = sql.set_query_tag({"run_id": "r-1", "assets": assets}).text
    tag = json.loads(text.partition(" = ")[2].strip("'"))
    assert len(json.dumps(tag)) <= 2000
    assert tag["run_id"] == "r-1"
    assert assets.startswith(tag["assets"])
    assert (tag["assets"] == assets) is (num_assets == 1)


def test_put_never_compresses_and_always_replaces():
    """The two defaults that lose uploads are switched off."""
    text = sql.put("/tmp/a b.yaml", STAGE / "configs").text
    assert text.startswith("PUT 'file:///tmp/a b.yaml' @MONAD_DB.DATA_SCHEMA.MONAD_STAGE/configs/ ")
    assert "AUTO_COMPRESS = FALSE" in text
    assert "OVERWRITE = TRUE" in text


def test_logs_with_timestamps_use_seven_arguments():
    """The streaming form adds lines, previous, since and timestamps."""
    plain = sql.get_service_logs(NAME, instance_id=0, container="main", num_lines=5).text
    stamped = sql.get_service_logs(
        NAME, instance_id=0, container="main", num_lines=5, since=""
    ).text
    assert plain == (
        "SELECT SYSTEM$GET_SERVICE_LOGS('MONAD_DB.DATA_SCHEMA.TRAIN_1', '0', 'main', 5) AS logs"
    )
    assert stamped.endswith("'main', 5, FALSE, '', TRUE) AS logs")


def test_statement_kinds_hold_no_names():
    """A kind is shown in errors and must not leak a literal."""
    assert sql.drop_service(NAME).kind == "DROP SERVICE"
    assert sql.execute_job_service(name=NAME, compute_pool="P", spec={}).kind == (
        "EXECUTE JOB SERVICE"
    )
    assert sql.set_query_tag({"secret": "x"}).kind == "ALTER SESSION"


def test_lineage_is_one_insert_for_all_edges():
    """Every edge is a row of the same statement; absent values are NULL."""
    table = NAME.sibling("LINEAGE")
    text = sql_lineage.insert_lineage(
        table, [{"output_asset": "a", "recorded_at": datetime(2026, 1, 2, tzinfo=UTC)}, {}]
    ).text
    assert text.count("(") == 3
    assert "'2026-01-02 00:00:00+00:00', 'a', NULL" in text


def test_set_up_repairs_what_the_published_script_leaves_out():
    """The grants that the first job service needs are there, in a working order."""
    texts = [statement.text for statement in setup_statements(AccountLayout())]
    schema, role = "MONAD_DB.DATA_SCHEMA", "TO ROLE MONAD_ROLE"
    assert f"GRANT CREATE SERVICE ON SCHEMA {schema} {role}" in texts
    assert f"GRANT READ ON IMAGE REPOSITORY {schema}.IMAGE_REPOSITORY {role}" in texts
    assert f"GRANT SELECT ON FUTURE TABLES IN SCHEMA HM_KAGGLE.PUBLIC {role}" in texts
    assert not any("USAGE ON STAGE" in text or "USAGE, READ" in text for text in texts)
    read = texts.index(f"GRANT READ ON STAGE {schema}.MONAD_STAGE {role}")
    assert texts.index(f"GRANT WRITE ON STAGE {schema}.MONAD_STAGE {role}") > read
    assert setup_text(AccountLayout()).startswith("USE ROLE ACCOUNTADMIN;\n")
