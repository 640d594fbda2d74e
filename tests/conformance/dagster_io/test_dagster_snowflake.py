"""The resource and the pandas IO manager of dagster-snowflake, as a Dagster user has them."""

import datetime as dt

import dagster as dg
import pandas as pd
import pytest
from dagster_snowflake import SnowflakeResource, fetch_last_updated_timestamps
from dagster_snowflake_pandas import SnowflakePandasIOManager

FRAME = pd.DataFrame(
    {
        "id": [1, 2, 3],
        "name": ["Ada", None, "Zoë"],
        "share": [0.5, None, 2.25],
        "active": [True, False, True],
        "seen": pd.to_datetime(
            ["2026-05-01 10:00:00.5", "2026-05-02", "2026-05-03"], format="mixed"
        ),
        "day": [dt.date(2026, 5, 1), None, dt.date(2026, 5, 3)],
    }
)


@pytest.fixture
def arguments(facts):
    """Return the administrator's connection as the resource and the IO manager take it."""
    admin = dict(facts["admin"])
    known = {key: admin.pop(key) for key in ("account", "user", "password", "role", "warehouse")}
    where = {key: admin[key] for key in ("host", "port", "protocol")}
    return {**known, "database": "MONAD_DB", "additional_snowflake_connection_args": where}


@pytest.fixture
def resource(arguments):
    """Return a Snowflake resource."""
    return SnowflakeResource(**arguments)


@pytest.fixture
def io_manager(arguments, unique):
    """Return an IO manager with a schema of its own, which it creates itself."""
    return SnowflakePandasIOManager(**arguments, schema=unique("IO"))


def read(resource, sql):
    """Run a statement and return its rows."""
    with resource.get_connection() as connection:
        return connection.cursor().execute(sql).fetchall()


def test_resource_runs_statements(resource):
    """A connection of the resource runs SQL with the configured role and warehouse."""
    sql = "SELECT CURRENT_ROLE(), CURRENT_WAREHOUSE(), CURRENT_DATABASE()"
    assert read(resource, sql) == [("ACCOUNTADMIN", "MONAD_WAREHOUSE", "MONAD_DB")]


def test_resource_in_an_asset(resource):
    """An asset uses the resource; what it wrote is there afterwards."""

    @dg.asset
    def numbers(snowflake: SnowflakeResource) -> None:
        with snowflake.get_connection() as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE OR REPLACE TABLE MONAD_DB.PUBLIC.NUMBERS (N INT)")
            cursor.executemany("INSERT INTO MONAD_DB.PUBLIC.NUMBERS VALUES (%s)", [(1,), (2,)])

    assert dg.materialize([numbers], resources={"snowflake": resource}).success
    assert read(resource, "SELECT SUM(N) FROM MONAD_DB.PUBLIC.NUMBERS") == [(3,)]


def test_io_manager_round_trip(io_manager, resource):
    """A frame becomes a table in a schema the IO manager makes, and the next asset loads it."""
    loaded = []

    @dg.asset
    def people() -> pd.DataFrame:
        return FRAME

    @dg.asset
    def names(people: pd.DataFrame) -> pd.DataFrame:
        loaded.append(people)
        return people[["name"]]

    result = dg.materialize([people, names], resources={"io_manager": io_manager})
    assert result.success
    frame = loaded[0].sort_values("id").reset_index(drop=True)
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["name"].tolist() == ["Ada", None, "Zoë"]
    assert frame["share"].fillna(-1).tolist() == [0.5, -1, 2.25]
    assert frame["active"].tolist() == [True, False, True]
    assert frame["seen"].tolist() == FRAME["seen"].tolist()
    assert frame["day"].tolist() == FRAME["day"].tolist()
    types = read(resource, f"DESCRIBE TABLE MONAD_DB.{io_manager.schema_}.PEOPLE")
    assert {row[0]: row[1] for row in types} == {
        "ID": "NUMBER(38,0)",
        "NAME": "VARCHAR(16777216)",
        "SHARE": "FLOAT",
        "ACTIVE": "BOOLEAN",
        "SEEN": "TIMESTAMP_NTZ(9)",
        "DAY": "DATE",
    }


def test_io_manager_replaces(io_manager, resource):
    """Materializing again replaces the rows of an unpartitioned asset."""
    frames = [FRAME, FRAME.iloc[:1]]

    @dg.asset
    def people() -> pd.DataFrame:
        return frames.pop(0)

    for _ in range(2):
        assert dg.materialize([people], resources={"io_manager": io_manager}).success
    count = read(resource, f"SELECT COUNT(*) FROM MONAD_DB.{io_manager.schema_}.PEOPLE")
    assert count == [(1,)]


def test_io_manager_partitions(io_manager, resource):
    """A partition replaces its own rows, and a downstream asset loads its own partition."""
    days = dg.DailyPartitionsDefinition(start_date="2026-05-01", end_date="2026-05-04")
    seen = {}

    @dg.asset(partitions_def=days, metadata={"partition_expr": "TO_TIMESTAMP(DAY)"})
    def events(context: dg.AssetExecutionContext) -> pd.DataFrame:
        day = dt.date.fromisoformat(context.partition_key)
        return pd.DataFrame({"day": [day, day], "n": [day.day, 10 * day.day]})

    @dg.asset(partitions_def=days, metadata={"partition_expr": "TO_TIMESTAMP(DAY)"})
    def totals(context: dg.AssetExecutionContext, events: pd.DataFrame) -> pd.DataFrame:
        seen[context.partition_key] = sorted(events["n"])
        return pd.DataFrame({"day": events["day"][:1], "total": [events["n"].sum()]})

    for key in ("2026-05-01", "2026-05-02", "2026-05-02"):
        result = dg.materialize(
            [events, totals], partition_key=key, resources={"io_manager": io_manager}
        )
        assert result.success
    assert seen == {"2026-05-01": [1, 10], "2026-05-02": [2, 20]}
    sql = f"SELECT N FROM MONAD_DB.{io_manager.schema_}.EVENTS ORDER BY N"
    assert read(resource, sql) == [(1,), (2,), (10,), (20,)]


def test_io_manager_columns(io_manager):
    """An input with chosen columns loads only those."""
    loaded = []

    @dg.asset
    def people() -> pd.DataFrame:
        return FRAME

    @dg.asset(ins={"people": dg.AssetIn(metadata={"columns": ["id", "name"]})})
    def names(people: pd.DataFrame) -> None:
        loaded.append(list(people.columns))

    # The output of `names` is nothing, so it needs no IO manager's storage.
    assert dg.materialize([people, names], resources={"io_manager": io_manager}).success
    assert loaded == [["id", "name"]]


def test_io_manager_timestamps_as_strings(arguments, unique):
    """Timestamps stored as strings come back as timestamps."""
    manager = SnowflakePandasIOManager(
        **arguments, schema=unique("IO"), store_timestamps_as_strings=True
    )
    loaded = []

    @dg.asset
    def visits() -> pd.DataFrame:
        return FRAME[["id", "seen"]]

    @dg.asset
    def later(visits: pd.DataFrame) -> None:
        loaded.append(visits["seen"].tolist())

    assert dg.materialize([visits, later], resources={"io_manager": manager}).success
    assert [stamp.isoformat() for stamp in loaded[0]] == [s.isoformat() for s in FRAME["seen"]]


def test_last_updated_timestamps(resource, unique):
    """fetch_last_updated_timestamps tells when a table was last written."""
    schema, before = unique("S"), dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    read(resource, f"CREATE SCHEMA MONAD_DB.{schema}")
    read(resource, f"CREATE TABLE MONAD_DB.{schema}.T (A INT)")
    read(resource, f"INSERT INTO MONAD_DB.{schema}.T VALUES (1)")
    with resource.get_connection() as connection:
        found = fetch_last_updated_timestamps(
            snowflake_connection=connection, schema=schema, tables=["T"], database="MONAD_DB"
        )
    assert before < found["T"] <= dt.datetime.now(dt.UTC)


def test_a_table_that_is_not_there(io_manager):
    """Loading an asset that was never materialized fails with Snowflake's error."""

    @dg.asset
    def reader(people: pd.DataFrame) -> None: ...

    people = dg.AssetSpec("people")
    with pytest.raises(Exception, match="does not exist or not authorized"):
        dg.materialize([people, reader], selection=[reader], resources={"io_manager": io_manager})
