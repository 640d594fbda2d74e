"""Look-ups of the client that stand on one statement each, against a local account."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import snowflake.connector

from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName
from tests.contract.pipes.conftest import toy_asset


def ran(client, instance):
    """Run the toy job and return its name and query id."""
    result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    return (
        QualifiedName.parse(metadata["spcs/job_name"].value),
        metadata["spcs/query_id"].value,
    )


def test_a_job_service_is_found_in_the_history_by_query_id_and_by_name(client, instance, services):
    """Both ways lead to the same row, also after the job service was dropped."""
    name, query_id = ran(client, instance)
    services.drop(name)
    by_id = services.find_in_history(query_id=query_id)
    by_name = services.find_in_history(name=name)
    assert by_id["name"] == name.name
    assert by_name["query_id"] == query_id
    assert by_id["deleted_time"] is not None
    assert services.find_in_history(query_id="no-such-query") is None


def test_a_dropped_job_service_leaves_its_log_in_the_event_table(client, instance, services):
    """SPCS_GET_LOGS goes with the job service; the event table has the same lines."""
    name, _ = ran(client, instance)
    before = services.fetch_persisted_logs(name)
    services.drop(name)
    start = datetime.now(UTC) - timedelta(hours=1)
    after = services.fetch_kept_logs(name, start=start)
    key = ("instance_id", "container_name", "log")
    assert [tuple(str(row[k]) for k in key) for row in after] == [
        tuple(str(row[k]) for k in key) for row in before
    ]
    assert len(after) > 3


def test_the_region_is_answered_without_a_warehouse(session):
    """The statement that maintenance windows are looked up with works for the pipeline's role."""
    assert session.execute(sql.current_region()).scalar


def test_the_connector_gives_up_on_a_request_that_gets_no_answer(account):
    """Its own default would repeat for ever, and neither an interrupt nor an outage would show."""
    opened = [snowflake.connector.connect(**account.connection())]
    assert opened[0].network_timeout is None
    with Session(opened.pop, statement_seconds=42) as session:
        assert session.call(lambda connection: connection.network_timeout) == 42
