"""Another role's objects, paths that lead out, and text that tries to be SQL."""

import base64
import json
import os
from urllib.parse import quote

import pytest
from snowflake.connector.errors import ProgrammingError


@pytest.fixture
def bearer(connect):
    """Return Basic credentials of the pipeline's user for the registry."""
    token = json.dumps({"token": connect("MONAD_PIPELINE").rest.token})
    login = base64.b64encode(f"0sessiontoken:{token}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


@pytest.mark.parametrize(
    "sql",
    [
        "LIST @MONAD_DB.OTHERS.SECRETS",
        "GET @MONAD_DB.OTHERS.SECRETS/x file:///tmp/",
        "PUT file:///etc/hostname @MONAD_DB.OTHERS.SECRETS",
        "REMOVE @MONAD_DB.OTHERS.SECRETS/x",
        "DESCRIBE STAGE MONAD_DB.OTHERS.SECRETS",
        "DROP STAGE MONAD_DB.OTHERS.SECRETS",
        "COPY FILES INTO @MONAD_DB.DATA_SCHEMA.MONAD_STAGE FROM @MONAD_DB.OTHERS.SECRETS",
        "SHOW IMAGES IN IMAGE REPOSITORY MONAD_DB.OTHERS.IMAGES",
        "DROP IMAGE REPOSITORY MONAD_DB.OTHERS.IMAGES",
        "DROP TABLE MONAD_DB.OTHERS.T",
    ],
)
def test_objects_of_another_role(pipeline, others, refused, sql):
    """An object that the role may not see does not exist."""
    errno, _, message = refused(pipeline, sql)
    assert errno in {2003, 2043}
    assert "does not exist" in message


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM MONAD_DB.OTHERS.T", "INSERT INTO MONAD_DB.OTHERS.T VALUES (1)",
     "CREATE TABLE MONAD_DB.DATA_SCHEMA.C AS SELECT * FROM MONAD_DB.OTHERS.T",
     "CREATE VIEW MONAD_DB.DATA_SCHEMA.V AS SELECT * FROM MONAD_DB.OTHERS.T",
     "WITH X AS (SELECT * FROM MONAD_DB.OTHERS.T) SELECT * FROM X",
     "SELECT (SELECT MAX(A) FROM MONAD_DB.OTHERS.T)",
     "DELETE FROM MONAD_DB.OTHERS.T", "TRUNCATE TABLE MONAD_DB.OTHERS.T",
     "UPDATE MONAD_DB.OTHERS.T SET A = 2", "ALTER TABLE MONAD_DB.OTHERS.T ADD COLUMN B INT"],
)  # fmt: skip
def test_tables_of_another_role(pipeline, others, refused, sql):
    """No form of statement reads or writes a table that the role may not see."""
    assert refused(pipeline, sql)[0] in {2003, 2043}


@pytest.mark.parametrize(
    "call",
    ["DESCRIBE SERVICE {}", "DROP SERVICE {}", "CALL {}!SPCS_CANCEL_JOB()",
     "CALL {}!SPCS_WAIT_FOR('DONE', 1)", "SELECT SYSTEM$GET_SERVICE_LOGS('{}', 0, 'main')",
     "SELECT * FROM TABLE({}!SPCS_GET_LOGS())", "SHOW SERVICE CONTAINERS IN SERVICE {}",
     "CALL SYSTEM$GET_SERVICE_STATUS('{}')"],
)  # fmt: skip
def test_job_services_of_another_role(pipeline, lasting, others_job_service, refused, call):
    """A job service that the role may not see does not exist for it, and goes on."""
    errno, _, message = refused(pipeline, call.format(others_job_service))
    assert errno in {2003, 2043}
    assert "does not exist" in message
    assert pipeline.cursor().execute("SHOW JOB SERVICES IN ACCOUNT").fetchall() == []
    shown = lasting.cursor().execute(f"DESCRIBE SERVICE {others_job_service}").fetchone()
    assert set(shown) & {"PENDING", "RUNNING"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v2/monad_db/others/images/x/tags/list"),
     ("GET", "/v2/monad_db/others/images/x/manifests/latest"),
     ("PUT", "/v2/monad_db/others/images/x/manifests/latest"),
     ("POST", "/v2/monad_db/others/images/x/blobs/uploads/"),
     ("GET", "/v2/monad_db/others/images/x/blobs/sha256:" + "0" * 64),
     ("DELETE", "/v2/monad_db/others/images/x/manifests/latest")],
)  # fmt: skip
def test_image_repository_of_another_role(send, others, bearer, method, path):
    """A repository that the role may not see is unknown to the registry."""
    answer = send(method, path, b"{}" if method in {"PUT", "POST"} else None, headers=bearer)
    assert answer.status == 404
    assert answer.json["errors"][0]["code"] == "NAME_UNKNOWN"


PATHS = ("../x", "a/../../x", "..", "a/b/../../../../etc/passwd", "./../x")


@pytest.mark.parametrize("path", PATHS)
def test_paths_in_statements(pipeline, refused, path):
    """A stage path that leads out of the stage is refused."""
    stage = "MONAD_DB.DATA_SCHEMA.MONAD_STAGE"
    errno, _, message = refused(pipeline, f"PUT file:///etc/hostname '@{stage}/{path}'")
    assert errno == 1003
    assert "stage path" in message
    assert pipeline.cursor().execute(f"LIST '@{stage}/{path}'").fetchall() == []


def test_links_in_a_stage(account, admin, rows, tmp_path):
    """A symbolic link in a stage's directory is no file of the stage."""
    admin.cursor().execute("CREATE STAGE IF NOT EXISTS MONAD_DB.DATA_SCHEMA.LINKS")
    base = account.state_dir / "stages" / "MONAD_DB" / "DATA_SCHEMA" / "LINKS"
    for name, target in (("passwd", "/etc/passwd"), ("etc", "/etc")):
        if not (base / name).is_symlink():
            (base / name).symlink_to(target)
    assert rows(admin, "LIST @MONAD_DB.DATA_SCHEMA.LINKS") == []
    with pytest.raises(ProgrammingError) as caught:
        admin.cursor().execute("PUT file:///etc/hostname @MONAD_DB.DATA_SCHEMA.LINKS/etc")
    assert caught.value.errno == 1003
    assert not os.path.lexists("/etc/hostname.gz")
    admin.cursor().execute("DROP STAGE MONAD_DB.DATA_SCHEMA.LINKS")


@pytest.fixture
def opened(send, password):
    """Return the token and folder that a client of version 5 gets for a PUT of its stage."""
    login = send(
        "POST",
        "/session/v1/login-request?roleName=ACCOUNTADMIN",
        {
            "data": {
                "ACCOUNT_NAME": "LOCAL",
                "LOGIN_NAME": "ADMIN",
                "PASSWORD": password("ADMIN"),
                "CLIENT_APP_VERSION": "5.2.0",
            }
        },
    ).json["data"]
    sql = "PUT file:///x @MONAD_DB.DATA_SCHEMA.MONAD_STAGE/blobs"
    answer = send(
        "POST", "/queries/v1/query-request?requestId=", {"sqlText": sql}, token=login["token"]
    )
    info = answer.json["data"]["stageInfo"]
    return info["creds"]["GCS_ACCESS_TOKEN"], "/monad/blob/" + info["location"]


@pytest.mark.parametrize(
    "tail",
    ["../../../../x", "..%2f..%2f..%2fx", "%2e%2e/%2e%2e/x", "..%252f..%252fx", "%00", "a%00b",
     "../../OTHERS/SECRETS/x", "..%5c..%5cx", "../" * 20 + "etc/passwd", "./../../x"],
)  # fmt: skip
def test_paths_in_blob_urls(account, send, opened, others, tail):
    """No spelling of a path in a blob URL leaves the stage that the token opens."""
    token, base = opened
    headers = {"Authorization": f"Bearer {token}"}
    before = {path for path in account.state_dir.rglob("*") if path.is_file()}
    put = send("PUT", base + tail, b"evil", headers=headers)
    assert put.status in {200, 400, 403, 404}
    made = {path for path in account.state_dir.rglob("*") if path.is_file()} - before
    inside = account.state_dir / "stages" / "MONAD_DB" / "DATA_SCHEMA" / "MONAD_STAGE"
    strays = [p for p in made if p.read_bytes() == b"evil" and not p.is_relative_to(inside)]
    assert strays == []
    got = send("GET", base + tail, headers=headers)
    assert b"root:" not in got.body


def test_blob_tokens(send, opened, others):
    """A blob token opens its own stage, and nothing without it or with a forged one."""
    token, base = opened
    good = {"Authorization": f"Bearer {token}"}
    assert send("PUT", base + "f", b"x", headers=good).status == 200
    assert send("GET", base + "f", headers=good).body == b"x"
    other = "/monad/blob/stages/MONAD_DB/OTHERS/SECRETS/f"
    assert send("PUT", other, b"x", headers=good).status == 403
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {token}"}):
        assert send("GET", base + "f", headers=headers).status == 403
    assert send("GET", "/monad/blob/other-bucket/MONAD_DB/X/Y/f", headers=good).status == 403


@pytest.mark.parametrize(
    "path",
    ["/v2/monad_db/data_schema/images/../../others/images/x/tags/list",
     "/v2/monad_db/data_schema/images/%2e%2e/x/tags/list",
     "/v2/monad_db/data_schema/images/x/blobs/sha256:../../../../etc/passwd",
     "/v2/monad_db/data_schema/images/x/blobs/..%2f..%2fcredentials.json",
     "/v2/monad_db/data_schema/images/x/manifests/..%2f..%2f..%2fcredentials.json",
     "/v2/monad_db/data_schema/images/x/blobs/uploads/..%2f..%2f..%2fcredentials.json",
     "/v2/monad_db/data_schema/images/x/manifests/%00",
     "/v2/" + "a/" * 3000 + "tags/list",
     "/v2/%2e%2e/%2e%2e/x/tags/list", "/v2/_catalog", "/v2//"],
)  # fmt: skip
def test_paths_in_registry_urls(send, others, bearer, path):
    """No spelling of a path in a registry URL opens a file that is no blob of the repository."""
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = send(method, path, b"" if method != "GET" else None, headers=bearer)
        assert 400 <= answer.status < 500, method
        assert b'"users"' not in answer.body


@pytest.mark.parametrize(
    "path",
    ["/monad/results/x/y/0", "/monad/results/" + "0" * 64 + "/01/0", "/monad/results/%2e%2e/x/0",
     "/monad/results/x/../../credentials.json/0", "/monad/results/x/y/-1",
     "/monad/results/\xff/y/0", "/monad/results//y/0"],
)  # fmt: skip
def test_paths_in_chunk_urls(send, path):
    """A chunk URL that was not handed out opens nothing."""
    assert send("GET", quote(path, safe="/%")).status == 404


NAMES = (
    "a; DROP DATABASE MONAD_DB", "a'; DROP DATABASE MONAD_DB; --", 'a" "b', "a--b", "a/*b*/", "$$a$$",
    "a\\'b", "..", "../x", "a\nb", "%", "a%_b", "łódź", "NULL", "select",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_with_anything_in_them(admin, rows, name):
    """A quoted name is a name, whatever SQL it spells, and reaches no other object."""
    quoted = '"' + name.replace('"', '""') + '"'
    cursor = admin.cursor()
    for kind in ("ROLE", "STAGE"):
        where = quoted if kind == "ROLE" else f"MONAD_DB.DATA_SCHEMA.{quoted}"
        cursor.execute(f"CREATE {kind} {where}")
        names = [row[1] for row in rows(admin, f"SHOW {kind}S")]
        assert name in names
        assert names.count(name) == 1
        cursor.execute(f"DROP {kind} {where}")
    if "'" in name:
        return
    table = f"MONAD_DB.DATA_SCHEMA.{quoted}"
    cursor.execute(f"CREATE TABLE {table} (A INT)")
    cursor.execute(f"INSERT INTO {table} VALUES (1)")
    assert rows(admin, f"SELECT * FROM {table}") == [(1,)]
    cursor.execute(f"DROP TABLE {table}")
    assert rows(admin, "SHOW DATABASES LIKE 'MONAD_DB'")


@pytest.mark.parametrize(
    "sql",
    ["CREATE TABLE {name} (A INT)", "CREATE TABLE T1 (A INT, {name} VARCHAR(5))",
     "CREATE SCHEMA {name}", "CREATE DATABASE {name}", "CREATE VIEW {name} AS SELECT 1 AS A",
     "SELECT * FROM {name}", "DROP TABLE {name}", "ALTER TABLE {name} ADD COLUMN B INT",
     "SELECT 1 AS A FROM VALUES (1) AS {name}"],
)  # fmt: skip
def test_names_that_the_engine_cannot_hold(admin, refused, sql):
    """A name with an apostrophe is refused where it would become text of the engine's SQL."""
    name = '"A\'; DROP SCHEMA MONAD_DB.PUBLIC CASCADE; --"'
    assert refused(admin, sql.format(name=name))[:2] == (2, "0A000")


def test_comments_on_tables(admin, rows):
    """A comment with apostrophes is a comment, on a table and on a column."""
    text = "it''s; DROP SCHEMA MONAD_DB.PUBLIC CASCADE; --"
    table = "MONAD_DB.DATA_SCHEMA.REMARKED"
    cursor = admin.cursor()
    cursor.execute(f"CREATE TABLE {table} (A INT COMMENT '{text}') COMMENT = '{text}'")
    cursor.execute(f"COMMENT ON TABLE {table} IS '{text}'")
    assert rows(admin, "SHOW SCHEMAS LIKE 'PUBLIC' IN DATABASE MONAD_DB")
    cursor.execute(f"DROP TABLE {table}")


VALUES = (
    "'", "''", "' OR 1=1 --", "\\", "\\'", "$$", "$$; DROP DATABASE MONAD_DB; $$", "/*", "*/", "--",
    ";", "{{ x }}", "%s", "?", ":1", "\t", "\u2028", "😀", "${HOME}", "`id`",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_values_with_anything_in_them(connect, value):
    """A bound value and a quoted literal come back as they were, in queries and in comments."""
    plain = connect("ADMIN").cursor()
    plain.execute("SELECT %s", (value,))
    assert plain.fetchone() == (value,)
    plain.execute("CREATE OR REPLACE ROLE COMMENTED COMMENT = %s", (value,))
    row = plain.execute("SHOW ROLES LIKE 'COMMENTED'").fetchone()
    assert value in row
    bound = connect("ADMIN", paramstyle="qmark").cursor()
    assert bound.execute("SELECT ?", (value,)).fetchone() == (value,)


def test_a_specification_cannot_end_its_own_literal(pipeline, others, refused):
    """`$$` inside an inline specification ends the literal, so that the rest is a syntax error."""
    spec = "spec: {containers: []}\n$$ NAME = X; DROP STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE; --"
    sql = f"EXECUTE JOB SERVICE IN COMPUTE POOL SECURITY_POOL FROM SPECIFICATION $${spec}$$"
    assert refused(pipeline, sql)[0] in {8, 1003}
    assert pipeline.cursor().execute("DESCRIBE STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE").fetchall()


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM READ_CSV('/etc/passwd')",
     'SELECT * FROM "read_text"(\'/etc/passwd\')', "SELECT * FROM '/etc/passwd'",
     "SELECT * FROM system.main.read_text('/etc/passwd')",
     "SELECT * FROM LATERAL read_text('/etc/passwd')",
     "SELECT * FROM TABLE(read_text('/etc/passwd'))",
     "SELECT (SELECT content FROM read_blob('/etc/passwd'))",
     "CREATE VIEW MONAD_DB.DATA_SCHEMA.W AS SELECT * FROM read_text('/etc/passwd')",
     "CREATE TABLE MONAD_DB.DATA_SCHEMA.W AS SELECT * FROM read_text('/etc/passwd')",
     "SET X = (SELECT content FROM read_text('/etc/passwd'))",
     "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
     "SELECT * FROM query('SELECT * FROM MONAD_DB.OTHERS.T')",
     "SELECT * FROM query_table('MONAD_DB.OTHERS.T')",
     "SELECT * FROM duckdb_settings()", "SELECT * FROM glob('/etc/*')",
     "SELECT current_setting('temp_directory')", "SELECT getenv('HOME')",
     "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM parquet_metadata('/x')",
     "ATTACH '/tmp/x.db'", "PRAGMA database_list", "INSTALL httpfs", "LOAD httpfs",
     "COPY (SELECT 1) TO '/tmp/monad-evil.csv'", "EXPORT DATABASE '/tmp/monad-evil'",
     "CREATE MACRO M() AS 1", "CALL pragma_version()", "CHECKPOINT", "FROM read_text('/etc/passwd')",
     "SELECT * FROM information_schema.tables, read_text('/etc/passwd')",
     "INSERT INTO MONAD_DB.DATA_SCHEMA.W SELECT * FROM read_text('/etc/passwd')"],
)  # fmt: skip
def test_the_engine_behind_the_account(pipeline, others, refused, sql):
    """What the SQL engine could do with files and settings is not there for SQL."""
    errno, _, message = refused(pipeline, sql)
    assert errno in {2, 1003, 2003, 2140}
    assert "root:" not in message
    assert not os.path.lexists("/tmp/monad-evil.csv")
