"""The engine saves predictions to a table: from outside, and from inside a job service."""

import itertools
import zipfile
from pathlib import Path

import pytest

from monad.config import DataLocation, TestingParams
from monad.errors import DataError, EngineError
from monad.io import tables
from monad.io.tables import PredictionsTable, rows_of_file, table_columns

ENGINE = Path(__file__).parents[4] / "container" / "engine" / "monad"
STAMP = 1_590_969_600  # 2020-06-01
NUMBERS = itertools.count()
COLUMNS = table_columns(["score"])
INSIDE = """
import sys
from monad.config.schema import DataLocation
from monad.io.tables import PredictionsTable, table_columns
columns = table_columns(["score"])
with PredictionsTable(DataLocation("snowflake", {}, sys.argv[1])) as table:
    table.prepare(columns)
    print(table.replace(columns, iter([["a", 0.25], ["b", None]]), 1590969600))
"""


@pytest.fixture
def table(account):
    """The name of a table that is not there yet, in a schema the pipeline may create tables in."""
    admin = account.connect("ADMIN").cursor()
    admin.execute("create schema if not exists monad_db.scored")
    admin.execute("grant usage, create table on schema monad_db.scored to role monad_role")
    return f"MONAD_DB.SCORED.P{next(NUMBERS)}"


@pytest.fixture
def place(account, table):
    """The table as a location with the login of the pipeline's user."""
    facts = account.local.connection("MONAD_PIPELINE")
    names = ("host", "port", "protocol", "account", "user", "password", "warehouse")
    given = {name: facts[name] for name in names if name in facts}
    return DataLocation("snowflake", {**given, "role": "MONAD_ROLE"}, table)


def save(place, rows, stamp=STAMP):
    """Save rows to the table."""
    with PredictionsTable(place) as opened:
        opened.prepare(COLUMNS)
        return opened.replace(COLUMNS, iter(rows), stamp)


def kept(account, table):
    """Rows of the table, in order."""
    found = account.rows(f"select * from {table} order by prediction_date, main_entity_id")
    return [tuple(row.values()) for row in found]


def test_a_job_service_saves_with_its_session_token(account, table, tmp_path):
    """No login is given: the token, host and role of the container are used."""
    with zipfile.ZipFile(tmp_path / "engine.zip", "w") as packed:
        for path in ENGINE.rglob("*.py"):
            packed.write(path, path.relative_to(ENGINE.parent))
    account.rows(f"put file://{tmp_path}/engine.zip @monad_stage auto_compress=false")
    name = account.execute(
        INSIDE, table, env={"PYTHONPATH": "/app/monad_stage/engine.zip"},
        more="query_warehouse = monad_warehouse",
    )  # fmt: skip
    account.wait(name)
    assert account.logs(name) == "2"
    rows = kept(account, table)
    assert [row[:2] for row in rows] == [("a", 0.25), ("b", None)]
    assert {str(row[2])[:10] for row in rows} == {"2020-06-01"}


def test_the_same_date_is_replaced_and_others_stay(account, place, table):
    """Saving again ends with the same rows; another prediction date is added beside them."""
    save(place, [["a", 0.1], ["b", 0.2]])
    save(place, [["a", 0.3], ["c", 0.4]])
    save(place, [["a", 0.3], ["c", 0.4]])
    assert [row[:2] for row in kept(account, table)] == [("a", 0.3), ("c", 0.4)]
    save(place, [["z", 1.0]], STAMP + 86_400)
    assert [row[0] for row in kept(account, table)] == ["a", "c", "z"]


def test_many_rows_travel_in_several_statements(account, place, table, monkeypatch):
    """More rows than a statement may hold, with quotes and letters of all kinds, arrive."""
    monkeypatch.setattr(tables, "_MOST_ROWS", 100)
    rows = [[f"it's {i} \u00fc", i / 10] for i in range(450)]
    assert save(place, rows) == 450
    assert account.value(f"select count(distinct main_entity_id) from {table}") == 450
    assert account.value(f"select sum(score) from {table}") == pytest.approx(
        sum(row[1] for row in rows)
    )


def test_a_run_that_dies_while_loading_leaves_the_table(account, place, table, monkeypatch):
    """Rows that stop coming halfway change nothing."""
    monkeypatch.setattr(tables, "_MOST_ROWS", 10)
    save(place, [["a", 0.1]])

    def broken():
        for i in range(25):
            yield [str(i), 0.5]
        raise OSError("the file ended")

    with pytest.raises(OSError, match="ended"):
        save(place, broken())
    assert [row[:2] for row in kept(account, table)] == [("a", 0.1)]


def test_readers_see_old_or_new_rows_and_a_failed_swap_is_rolled_back(account, place, table):
    """Between delete and insert another session still reads the old rows; a failure keeps them."""
    save(place, [["a", 0.1]])
    seen = []

    class Failing(PredictionsTable):
        def _run(self, sql, values=None):
            if sql.startswith(f"INSERT INTO {table}"):
                seen.extend(row[:2] for row in kept(account, table))
                return super()._run("INSERT INTO MONAD_DB.SCORED.NOWHERE VALUES (1)")
            return super()._run(sql, values)

    with Failing(place) as opened, pytest.raises(DataError, match="cannot be saved"):
        opened.replace(COLUMNS, iter([["b", 0.9]]), STAMP)
    assert seen == [("a", 0.1)]
    assert [row[:2] for row in kept(account, table)] == [("a", 0.1)]
    save(place, [["b", 0.9]])
    assert [row[:2] for row in kept(account, table)] == [("b", 0.9)]


def test_a_table_of_another_task_is_refused(account, place):
    """Other columns are named, before anything is predicted."""
    save(place, [["a", 0.1]])
    with PredictionsTable(place) as opened, pytest.raises(DataError) as caught:
        opened.prepare(table_columns(["item_1", "score_1"]))
    assert "missing there: ITEM_1, SCORE_1; not predicted: SCORE" in str(caught.value)


def test_missing_grants_and_wrong_logins_are_explained(account, place):
    """The message names the table and the grants, or the account."""
    other = DataLocation("snowflake", place.connection_params, "MONAD_DB.DATA_SCHEMA.P")
    with PredictionsTable(other) as opened, pytest.raises(DataError, match="CREATE TABLE"):
        opened.prepare(COLUMNS)
    wrong = DataLocation(
        "snowflake", {**place.connection_params, "password": "x"}, place.table_name
    )
    with pytest.raises(EngineError, match="cannot be reached"), PredictionsTable(wrong):
        pass


def test_cells_of_a_file_become_values(tmp_path):
    """Items stay text, scores become numbers, empty cells become NULL."""
    file = tmp_path / "p.tsv"
    file.write_text("main_entity_id\titem_1\titem_2\tscore_1\tscore_2\n7\t0042\t\t1.5\t\n")
    columns = table_columns(["item_1", "item_2", "score_1", "score_2"])
    assert columns["ITEM_1"] == "VARCHAR"
    assert list(rows_of_file(file, columns)) == [["7", "0042", None, 1.5, None]]


def test_a_location_may_be_plain_values():
    """A mapping becomes a `DataLocation`."""
    params = TestingParams(
        output_type="decoded",
        remote_save_location={"database_type": "snowflake", "table_name": "T"},
    )
    assert params.remote_save_location == DataLocation("snowflake", {}, "T")
