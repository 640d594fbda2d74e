"""The sensors of the code location."""

import dagster as dg

from monad_dagster.assets.sensors import build_sensors


def test_nothing_is_cancelled_or_removed_unless_it_is_switched_on():
    """Both sensors are stopped by default and say what they would do."""
    sensors = {sensor.name: sensor for sensor in build_sensors()}
    assert set(sensors) == {"orphaned_job_services", "old_job_services"}
    for sensor in sensors.values():
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
        assert sensor.required_resource_keys == {"spcs"}
        assert sensor.description
