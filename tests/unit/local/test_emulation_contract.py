"""Every statement, function and method of the emulation contract has a handler."""

import importlib

import pytest

from monad_dagster.local import extensions
from monad_dagster.local.coverage import render
from monad_dagster.local.sql import handlers
from monad_dagster.local.sql.statements import Statement

STATEMENTS = """
CREATE COMPUTE POOL p
ALTER COMPUTE POOL p SUSPEND
DROP COMPUTE POOL p
DESCRIBE COMPUTE POOL p
DESC COMPUTE POOL p
SHOW COMPUTE POOLS
SHOW COMPUTE POOL INSTANCE FAMILIES
SHOW NODES IN COMPUTE POOL p
CREATE IMAGE REPOSITORY r
CREATE OR REPLACE IMAGE REPOSITORY r
DROP IMAGE REPOSITORY r
SHOW IMAGE REPOSITORIES
SHOW IMAGES IN IMAGE REPOSITORY r
CREATE STAGE s
CREATE OR REPLACE TEMPORARY STAGE s
DROP STAGE s
SHOW STAGES
PUT file:///tmp/x @s
GET @s file:///tmp/
LIST @s
LS @s
REMOVE @s
RM @s
COPY FILES INTO @t FROM @s
EXECUTE JOB SERVICE IN COMPUTE POOL p
SHOW SERVICES
SHOW JOB SERVICES
DESCRIBE SERVICE j
SHOW SERVICE CONTAINERS IN SERVICE j
SHOW SERVICE INSTANCES IN SERVICE j
DROP SERVICE j FORCE
GRANT USAGE ON DATABASE d TO ROLE r
REVOKE USAGE ON DATABASE d FROM ROLE r
GRANT ROLE r TO ROLE t
SHOW GRANTS TO ROLE r
SHOW FUTURE GRANTS IN SCHEMA s
ALTER SCHEMA s SET LOG_LEVEL = INFO
ALTER DATABASE d SET LOG_EVENT_LEVEL = INFO
USE ROLE r
USE WAREHOUSE w
USE DATABASE d
USE SCHEMA s
""".strip().splitlines()
FUNCTIONS = {
    "SYSTEM$GET_SERVICE_LOGS", "SYSTEM$GET_SERVICE_STATUS", "SYSTEM$WAIT_FOR_SERVICES",
    "SYSTEM$GET_SERVICE_DNS_DOMAIN", "SYSTEM$REGISTRY_LIST_IMAGES",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Import every room, so that its handlers are registered."""
    for name in extensions.MODULES:
        importlib.import_module(name)


@pytest.mark.parametrize("text", STATEMENTS)
def test_statement_has_a_handler(text):
    """The statement is dispatched to a handler of the account."""
    assert handlers.find_statement(Statement.parse(text)) is not None


def test_functions_and_methods_have_handlers():
    """System functions, table functions and methods of services are there."""
    assert set(handlers.FUNCTIONS) >= FUNCTIONS
    assert set(handlers.TABLE_FUNCTIONS) >= {"SNOWFLAKE.SPCS.GET_JOB_HISTORY", "DIRECTORY"}
    assert set(handlers.METHODS) >= {"SPCS_WAIT_FOR", "SPCS_CANCEL_JOB"}
    assert set(handlers.TABLE_METHODS) >= {"SPCS_GET_LOGS", "SPCS_GET_EVENTS", "SPCS_GET_METRICS"}


def test_coverage_page_is_generated():
    """COVERAGE.md is what the registry gives."""
    from pathlib import Path

    page = Path(extensions.__file__).with_name("COVERAGE.md")
    assert page.read_text(encoding="utf-8") == render()
