"""Configuration types: the documented import location `monad.ui.config`."""

from monad.config.params import (
    CustomMetric,
    EarlyStopping,
    EntityIds,
    MetricMonitoringMode,
    MetricParams,
    OutputType,
    TestingParams,
    TrainingParams,
)
from monad.config.schema import DataLocation
from monad.config.time_range import DataMode, TimeRange

__all__ = [
    "CustomMetric",
    "DataLocation",
    "DataMode",
    "EarlyStopping",
    "EntityIds",
    "MetricMonitoringMode",
    "MetricParams",
    "OutputType",
    "TestingParams",
    "TimeRange",
    "TrainingParams",
]
