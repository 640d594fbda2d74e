"""What a test or a prediction asks about: which main entities, at which time."""

import numpy as np

from monad.config.params import TestingParams
from monad.config.time_range import DAY_SECONDS, DataMode, before, end_of, shown, to_timestamp
from monad.errors import ConfigError, DataError, problem
from monad.logs import run_logger
from monad.training.parts import Scenario
from monad.training.rows import active_entities, chosen_entities


def asked_entities(scenario: Scenario, params: TestingParams, stamp: int) -> np.ndarray:
    """Return the main entities that are asked about and have an event at or before *stamp*.

    Raises:
        DataError: There are none.
    """
    everyone = np.arange(scenario.store.num_entities)
    chosen = params.entity_ids or scenario.entity_ids
    if chosen is not None:
        everyone = chosen_entities(scenario.store, chosen)
    active = active_entities(scenario.store, stamp, everyone)
    if chosen is not None and len(active) < len(everyone):
        run_logger.warning(
            "%d of the entity_ids have no event at or before the prediction date and get no"
            " prediction",
            len(everyone) - len(active),
        )
    if not len(active):
        raise DataError(
            problem(
                "No main entity has an event at or before the prediction date",
                f"prediction date {shown(stamp)}, first event {shown(scenario.store.first_time)}",
                "Choose a later prediction_date or check entity_ids",
            )
        )
    return active


def prediction_stamp(scenario: Scenario, params: TestingParams) -> int:
    """Return the time of a prediction, in UTC seconds; the last event's unless one is given.

    Raises:
        ConfigError: It lies more than a year after the last event.
    """
    if params.prediction_date is not None:
        stamp = to_timestamp(params.prediction_date, "prediction_date")
        if stamp > scenario.store.last_time + 366 * DAY_SECONDS:
            raise ConfigError(
                problem(
                    "prediction_date is more than a year after the last event",
                    f"{params.prediction_date}, last event {shown(scenario.store.last_time)}",
                    "Leave it out to predict what follows the last event, or give an earlier date",
                )
            )
        return stamp
    return scenario.store.last_time


def tested_range(scenario: Scenario, params: TestingParams) -> tuple[int, int]:
    """Return the split point of a test and the end of its labels, in UTC seconds.

    Raises:
        ConfigError: No date is given.
    """
    dates = scenario.checkpoint.config.data_params
    given = scenario.split.get(DataMode.TEST)
    start = given.start_date if given else dates.test_start_date
    end = given.end_date if given else dates.test_end_date
    label_end = end_of(end, "test_end_date") if end is not None else scenario.store.last_time
    if params.prediction_date is not None:
        return to_timestamp(params.prediction_date, "prediction_date"), label_end
    if start is None:
        raise ConfigError(
            problem(
                "test needs a date",
                "neither prediction_date nor data_params.test_start_date is set",
                "Set one of them",
            )
        )
    return before(start, "test_start_date"), label_end
