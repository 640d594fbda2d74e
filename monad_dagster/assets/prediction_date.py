"""The prediction date of a run: checked before a job service is submitted."""

from datetime import UTC, date, datetime

from monad_dagster.assets.model_config import ModelConfig
from monad_dagster.errors import ConfigError, problem


def check_prediction_date(text: str | None, config: ModelConfig) -> date | None:
    """Parse the date and refuse one before the data or in the future.

    Raises:
        ConfigError: It is not a date, or out of range.
    """
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            problem("prediction_date is not a date", f"it is '{text}'", "Write it as 2020-09-22")
        ) from error
    today = datetime.now(UTC).date()
    if not config.data_start_date < day <= today:
        raise ConfigError(
            problem(
                "prediction_date is out of range",
                f"it is {day}; the data starts on {config.data_start_date} and today is {today}",
                "Choose a day in between, or leave it out for the end of the data",
            )
        )
    return day
