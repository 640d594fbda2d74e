"""Every SHOW, DESCRIBE and table function prints the documented columns."""

from pathlib import Path

import pytest
import snowflake.connector
import yaml

ROWS = yaml.safe_load(
    (Path(__file__).parents[2] / "data" / "result_columns.yaml").read_text(encoding="utf-8")
)


@pytest.fixture(scope="session")
def finished(run_job):
    """The name of a job service that has ended."""
    name = run_job.execute("echo hello")
    run_job.finish(name)
    return name


@pytest.mark.fidelity("columns")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["statement"].replace(" ", "-"))
def test_columns(target, world, row, request):
    """Names, case and order of the columns are those of the statement's page."""
    names = dict(world)
    if "{pool}" in row["statement"]:
        names["pool"] = request.getfixturevalue("pool")
    if row.get("needs") == "job":
        names["job"] = request.getfixturevalue("finished")
    try:
        seen = target.columns(row["statement"].format_map(names))
    except snowflake.connector.errors.ProgrammingError as error:
        if row.get("needs") == "events" and error.errno == 2003:
            pytest.skip("the role may not read the event table")
        raise
    if row.get("exact", True):
        assert seen == row["columns"]
    else:
        assert [column for column in seen if column in row["columns"]] == row["columns"]
