"""Roles, grants and ownership: refused where Snowflake refuses."""

import pytest


@pytest.fixture
def table(admin, database):
    """Return the name of a table that the pipeline's role cannot see yet."""
    admin.cursor().execute("CREATE TABLE T AS SELECT 1 AS A")
    return f"{database}.PUBLIC.T"


def grant(connection, *privileges):
    """Grant to the pipeline's role."""
    for privilege in privileges:
        connection.cursor().execute(f"GRANT {privilege} TO ROLE MONAD_ROLE")


def test_select_needs_usage_and_select(admin, pipeline, database, table, refused, rows):
    """Reading a table needs USAGE on database and schema, and SELECT on the table."""
    sql = f"SELECT * FROM {table}"
    assert refused(pipeline, sql)[0] == 2003
    grant(admin, f"USAGE ON DATABASE {database}", f"USAGE ON SCHEMA {database}.PUBLIC")
    assert refused(pipeline, sql)[:2] == (2003, "42S02")
    grant(admin, f"SELECT ON TABLE {table}")
    assert rows(pipeline, sql) == [(1,)]
    assert refused(pipeline, f"DELETE FROM {table}")[:2] == (3001, "42501")
    assert refused(pipeline, f"DROP TABLE {table}")[:2] == (3001, "42501")
    admin.cursor().execute(f"REVOKE SELECT ON TABLE {table} FROM ROLE MONAD_ROLE")
    assert refused(pipeline, sql)[0] == 2003


def test_future_grants_apply_to_new_tables(admin, pipeline, database, table, refused, rows):
    """A future grant covers tables created later, not those that exist."""
    grant(
        admin, f"USAGE ON DATABASE {database}", f"USAGE ON SCHEMA {database}.PUBLIC",
        f"SELECT ON FUTURE TABLES IN SCHEMA {database}.PUBLIC",
    )  # fmt: skip
    assert refused(pipeline, f"SELECT * FROM {table}")[0] == 2003
    admin.cursor().execute("CREATE TABLE U AS SELECT 2 AS A")
    assert rows(pipeline, f"SELECT * FROM {database}.PUBLIC.U") == [(2,)]


def test_views_read_with_their_owners_rights(admin, pipeline, database, table, rows):
    """SELECT on a view is enough, even where the table below it is not visible."""
    admin.cursor().execute(f"CREATE VIEW V AS SELECT A + 1 AS B FROM {table}")
    grant(
        admin, f"USAGE ON DATABASE {database}", f"USAGE ON SCHEMA {database}.PUBLIC",
        f"SELECT ON VIEW {database}.PUBLIC.V",
    )  # fmt: skip
    assert rows(pipeline, f"SELECT * FROM {database}.PUBLIC.V") == [(2,)]


def test_usage_on_an_internal_stage_is_no_privilege(admin, refused):
    """USAGE exists on external stages only, so the documented page's GRANT is refused."""
    sql = "GRANT USAGE, READ, WRITE ON STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE TO ROLE MONAD_ROLE"
    assert refused(admin, sql)[0] == 3008


def test_write_on_a_stage_needs_read_first(admin, database, refused):
    """WRITE on a stage is granted after READ and READ is revoked after WRITE."""
    admin.cursor().execute("CREATE STAGE S")
    assert "READ" in refused(admin, "GRANT WRITE ON STAGE S TO ROLE MONAD_ROLE")[2]
    grant(admin, "READ ON STAGE S", "WRITE ON STAGE S")
    assert "WRITE" in refused(admin, "REVOKE READ ON STAGE S FROM ROLE MONAD_ROLE")[2]


def test_use_role_takes_granted_roles_only(admin, pipeline, refused, rows):
    """USE ROLE accepts roles granted to the user, inherited ones included, and no others."""
    assert refused(pipeline, "USE ROLE SYSADMIN")[:2] == (3013, "42501")
    rows(admin, "USE ROLE SYSADMIN")
    assert rows(admin, "SELECT CURRENT_ROLE()") == [("SYSADMIN",)]
    assert refused(admin, "CREATE ROLE R")[0] == 3001
    rows(admin, "USE ROLE ACCOUNTADMIN")


def test_ownership_comes_with_creation(admin, pipeline, rows, refused):
    """What a role creates it owns; the roles above it may use it too."""
    rows(pipeline, "CREATE TABLE MINE (A INT)")
    (created,) = rows(pipeline, "SHOW TABLES LIKE 'MINE'")
    assert "MONAD_ROLE" in created
    assert rows(admin, "SELECT COUNT(*) FROM MONAD_DB.DATA_SCHEMA.MINE") == [(0,)]
    rows(pipeline, "DROP TABLE MINE")


def test_show_grants_lists_what_was_granted(admin, rows):
    """SHOW GRANTS TO ROLE lists privilege, kind and name."""
    granted = {r[1:4] for r in rows(admin, "SHOW GRANTS TO ROLE MONAD_ROLE")}
    assert ("READ", "STAGE", "MONAD_DB.DATA_SCHEMA.MONAD_STAGE") in granted
    assert ("CREATE SERVICE", "SCHEMA", "MONAD_DB.DATA_SCHEMA") in granted


def test_event_table_opens_with_the_application_role(admin, pipeline, refused, rows):
    """The event table's view is readable once EVENTS_VIEWER is granted."""
    sql = "SELECT COUNT(*) FROM SNOWFLAKE.TELEMETRY.EVENTS_VIEW"
    assert refused(pipeline, sql)[0] == 2003
    rows(admin, "GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO ROLE MONAD_ROLE")
    assert rows(pipeline, sql) == [(0,)]
    rows(admin, "REVOKE APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER FROM ROLE MONAD_ROLE")


def test_log_level_is_set_on_a_schema(admin, rows):
    """LOG_LEVEL set on a schema shows among its parameters."""
    rows(admin, "ALTER SCHEMA MONAD_DB.DATA_SCHEMA SET LOG_LEVEL = INFO")
    rows(admin, "ALTER SCHEMA MONAD_DB.DATA_SCHEMA SET LOG_EVENT_LEVEL = INFO")
    (shown,) = rows(admin, "SHOW PARAMETERS LIKE 'LOG_LEVEL' IN SCHEMA MONAD_DB.DATA_SCHEMA")
    assert shown[:2] + shown[3:4] == ("LOG_LEVEL", "INFO", "SCHEMA")


def test_information_schema_counts_and_times(admin, database, table, rows):
    """INFORMATION_SCHEMA.TABLES has exact row counts, and LAST_ALTERED moves with DML."""
    sql = f"SELECT TABLE_NAME, ROW_COUNT, LAST_ALTERED FROM {database}.INFORMATION_SCHEMA.TABLES"
    ((name, count, before),) = rows(admin, sql)
    assert (name, count) == ("T", 1)
    rows(admin, f"INSERT INTO {table} VALUES (5), (6)")
    ((_, count, after),) = rows(admin, sql)
    assert count == 3
    assert after > before
