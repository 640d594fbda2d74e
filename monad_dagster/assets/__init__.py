"""The asset graph, thin: five assets, their slices and sources, checks, schedules and sensors."""

from typing import TYPE_CHECKING, Any

from monad_dagster.assets.checks import build_checks
from monad_dagster.assets.costs import build_cost_asset
from monad_dagster.assets.image import build_image_asset
from monad_dagster.assets.job_services import build_job_service_assets, load_model_config
from monad_dagster.assets.scenarios import discover_scenarios, scenario_partitions
from monad_dagster.assets.schedules import build_schedules
from monad_dagster.assets.sensors import build_sensors
from monad_dagster.assets.sources import build_source_tables
from monad_dagster.assets.stage_contents import build_stage_contents

if TYPE_CHECKING:
    from monad_dagster.settings import Settings


def build_graph(settings: "Settings") -> dict[str, Any]:
    """Return the assets, checks, schedules and sensors as arguments of `dagster.Definitions`."""
    scenarios = scenario_partitions(discover_scenarios(settings.scenarios))
    return {
        "assets": [
            build_image_asset(settings),
            *build_stage_contents(settings, scenarios),
            *build_source_tables(load_model_config(settings)),
            *build_job_service_assets(settings, scenarios),
            build_cost_asset(),
        ],
        "asset_checks": build_checks(),
        "schedules": build_schedules(scenarios),
        "sensors": build_sensors(),
    }
