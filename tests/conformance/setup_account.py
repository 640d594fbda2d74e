"""The objects that the conformance suites work on, made by the administrator."""

import json
import time

import snowflake.connector

from tests.support.oci_images import push_image, registry_login

SETUP = """
CREATE ROLE MONAD_ROLE;
GRANT ROLE MONAD_ROLE TO ROLE SYSADMIN;
GRANT ROLE MONAD_ROLE TO USER MONAD_PIPELINE;
CREATE DATABASE MONAD_DB;
CREATE SCHEMA MONAD_DB.DATA_SCHEMA;
CREATE STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE');
CREATE IMAGE REPOSITORY MONAD_DB.DATA_SCHEMA.IMAGE_REPOSITORY;
CREATE WAREHOUSE MONAD_WAREHOUSE WAREHOUSE_SIZE = XSMALL INITIALLY_SUSPENDED = TRUE;
CREATE COMPUTE POOL CPU_POOL MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = CPU_X64_S;
GRANT USAGE ON DATABASE MONAD_DB TO ROLE MONAD_ROLE;
GRANT USAGE, CREATE SERVICE, CREATE TABLE, CREATE STAGE, CREATE FILE FORMAT
  ON SCHEMA MONAD_DB.DATA_SCHEMA TO ROLE MONAD_ROLE;
GRANT READ ON STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE TO ROLE MONAD_ROLE;
GRANT WRITE ON STAGE MONAD_DB.DATA_SCHEMA.MONAD_STAGE TO ROLE MONAD_ROLE;
GRANT READ ON IMAGE REPOSITORY MONAD_DB.DATA_SCHEMA.IMAGE_REPOSITORY TO ROLE MONAD_ROLE;
GRANT WRITE ON IMAGE REPOSITORY MONAD_DB.DATA_SCHEMA.IMAGE_REPOSITORY TO ROLE MONAD_ROLE;
GRANT USAGE, MONITOR, OPERATE ON COMPUTE POOL CPU_POOL TO ROLE MONAD_ROLE;
GRANT USAGE ON WAREHOUSE MONAD_WAREHOUSE TO ROLE MONAD_ROLE;
ALTER SCHEMA MONAD_DB.DATA_SCHEMA SET LOG_LEVEL = INFO;
ALTER SCHEMA MONAD_DB.DATA_SCHEMA SET LOG_EVENT_LEVEL = INFO;
"""


def set_up(local):
    """Make the objects; return the users' connection arguments, by user, and the fault control."""
    admin = local.connection("ADMIN")
    with snowflake.connector.connect(**admin) as connection:
        for text in SETUP.split(";"):
            if text.strip():
                connection.cursor().execute(text)
    push_tool_image(local)
    pipeline = local.connection("MONAD_PIPELINE")
    control = {
        "host": admin["host"], "port": admin["port"],
        "token": (local.state_dir / "control.token").read_text().strip(),
    }  # fmt: skip
    return {
        "admin": admin, "pipeline": pipeline, "job_token": job_token(local), "control": control,
    }  # fmt: skip


IMAGE = "/monad_db/data_schema/image_repository/tool:1"
_SHOW_TOKEN = (
    "import time; print(open('/snowflake/session/token').read(), flush=True); time.sleep(900)"
)


def push_tool_image(local):
    """Push the image that the suites' job services run; the host's Python runs in it."""
    facts = local.connection("ADMIN")
    with snowflake.connector.connect(**facts) as connection:
        base = f"http://{facts['host']}:{facts['port']}"
        push_image(
            base, IMAGE.lstrip("/").partition(":")[0], "1", {"opt/monad/README": b"x"},
            registry_login(connection),
        )  # fmt: skip
        push_image(
            base, "monad_db/data_schema/image_repository/ml_runtime", "1",
            {"opt/monad/README": b"x"}, registry_login(connection),
        )  # fmt: skip


def job_token(local):
    """Return the token that a job service of MONAD_ROLE finds in its container.

    It is valid for as long as the job service runs, that is, until `tear_down`.
    """
    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", _SHOW_TOKEN]}
    spec = json.dumps({"spec": {"containers": [container]}})
    with snowflake.connector.connect(**local.connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "EXECUTE JOB SERVICE IN COMPUTE POOL CPU_POOL NAME = SHOW_TOKEN ASYNC = TRUE "
            f"FROM SPECIFICATION $${spec}$$"
        )
        cursor.execute("CALL SHOW_TOKEN!SPCS_WAIT_FOR('RUNNING', 60)")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            cursor.execute("CALL SYSTEM$GET_SERVICE_LOGS('SHOW_TOKEN', 0, 'main')")
            if text := cursor.fetchone()[0].strip():
                return text
            time.sleep(0.1)
    raise TimeoutError("the job service SHOW_TOKEN printed no token")


def tear_down(local):
    """End what still runs, so that nothing outlives the account."""
    with snowflake.connector.connect(**local.connection("ADMIN")) as connection:
        connection.cursor().execute("ALTER COMPUTE POOL CPU_POOL STOP ALL")
