"""The sensors of the code location."""

import json

import dagster as dg
from dagster_snowflake import SnowflakeResource

from monad_dagster.assets.sensors import build_orphan_sensor, build_sensors
from monad_dagster.pipes.client import PipesSPCSClient
from tests.support.scripted_connection import scripted_session


def test_nothing_is_cancelled_or_removed_unless_it_is_switched_on():
    """Both sensors are stopped by default and say what they would do."""
    sensors = {sensor.name: sensor for sensor in build_sensors()}
    assert set(sensors) == {"orphaned_job_services", "old_job_services"}
    for sensor in sensors.values():
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
        assert sensor.required_resource_keys == {"spcs"}
        assert sensor.description


def scripted_client(answer):
    """Build a client whose account answers from a function; Dagster copies the resource."""

    class ScriptedClient(PipesSPCSClient):
        def session(self, **_):
            return scripted_session(answer)[0]

    return ScriptedClient(snowflake=SnowflakeResource(account="a", user="u", password="p"))


def test_an_orphan_that_a_retry_has_taken_over_meanwhile_is_left_alone():
    """While the first of two orphans is cancelled, a retry of the second begins."""
    with dg.instance_for_test() as instance:

        @dg.op
        def failing():
            raise ValueError("gone")

        @dg.job
        def job():
            failing()

        def failed_run():
            return job.execute_in_process(instance=instance, raise_on_error=False).run_id

        owners = {"FIRST": failed_run(), "SECOND": failed_run()}
        cancelled = []

        def answer(text):
            if text.startswith("SHOW JOB SERVICES"):
                place = {"database_name": "MONAD_DB", "schema_name": "DATA_SCHEMA"}
                return [
                    place
                    | {"name": name, "status": "RUNNING"}
                    | {"comment": json.dumps({"monad_dagster": {"run_id": run_id}})}
                    for name, run_id in owners.items()
                ]
            cancelled.append(next(name for name in owners if name in text))
            parent = owners["SECOND"]
            instance.create_run_for_job(job, parent_run_id=parent, root_run_id=parent)
            return [{"status": "ok"}]

        sensor = build_orphan_sensor(grace_seconds=0.0)
        with dg.build_sensor_context(
            instance=instance, resources={"spcs": scripted_client(answer)}, sensor_name=sensor.name
        ) as context:
            result = sensor.evaluate_tick(context)
    assert cancelled == ["FIRST"]
    assert "followed again: MONAD_DB.DATA_SCHEMA.SECOND" in result.skip_message
