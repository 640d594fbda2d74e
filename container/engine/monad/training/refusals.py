"""Turn what the trainer refuses into this engine's own errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback

from monad.config.params import TrainingParams
from monad.errors import ConfigError, problem


@contextmanager
def clear_refusals(params: TrainingParams) -> Iterator[None]:
    """Check callbacks, and name the setting where the trainer refuses one of *params*.

    Raises:
        ConfigError: A setting is refused.
    """
    for callback in params.callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(
                problem(
                    "TrainingParams.callbacks holds what is no callback",
                    f"got {callback!r}",
                    "Give objects of lightning.pytorch.Callback",
                )
            )
    try:
        yield
    except MisconfigurationException as error:
        said = str(error).split(" HINT:")[0].splitlines()[0]
        monitor = params.metric_to_monitor
        if monitor is not None and repr(monitor) in said:
            raise ConfigError(
                problem(
                    f"metric_to_monitor `{monitor}` is not computed",
                    f"computed are {said[said.find('[') + 1 : said.rfind(']')]}",
                    "Monitor one of them, or add the metric to TrainingParams.metrics",
                )
            ) from error
        raise ConfigError(
            problem(
                "The trainer refuses a setting",
                said[:300],
                "Change that field of the training parameters",
            )
        ) from error
