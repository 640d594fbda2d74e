"""`suggested_config.yaml`: the configuration with what the data inspection would add to it.

Identifier and bijection columns go under `disallowed_columns`, time-series candidates under
`column_type_overrides`.
"""

import copy
from typing import Any

from monad.config.schema import EVENT, FoundationModelConfig
from monad.data.ingest import Plans
from monad.data.store import NUMBER

_SERIES_DISTINCT = 100


def suggested_config(config: FoundationModelConfig, plans: Plans) -> dict[str, Any]:
    """Return the suggested configuration as plain values."""
    made = copy.deepcopy(config.raw)
    for source, raw in zip(config.data_sources, made["data_sources"], strict=True):
        found = plans.get(source.name, [])
        left_out = [plan.name for plan in found if not plan.modelled]
        if left_out and not source.allowed_columns:
            listed = list(raw.get("disallowed_columns") or [])
            raw["disallowed_columns"] = listed + [n for n in left_out if n not in listed]
        series = {
            plan.name: "time_series"
            for plan in found
            if source.type == EVENT
            and plan.modelled
            and plan.kind == NUMBER
            and plan.distinct > _SERIES_DISTINCT
        }
        if series:
            raw["column_type_overrides"] = {**series, **(raw.get("column_type_overrides") or {})}
    return made
