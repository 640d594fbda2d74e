"""The task classes: what kind of prediction a scenario makes.

A task knows its name, its parameters, the monitored metric and how long a target vector is. The
network's part is in `monad.model.build`, metrics are in `monad.evaluation.metrics`.
"""

from typing import Any, ClassVar

from monad.errors import CheckpointError, ConfigError, nearest, problem

_POINTS = ("centre", "median", "mean")


class Task:
    """Base of all tasks."""

    kind: ClassVar[str]
    monitor: ClassVar[str] = "val_loss"
    mode: ClassVar[str] = "min"

    def params(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {}

    @property
    def num_outputs(self) -> int:
        """Length of the target vector."""
        return 1

    def to_plain(self) -> dict[str, Any]:
        """Return name and parameters, as `task.yaml` holds them."""
        return {"task": type(self).__name__, "params": self.params()}

    def __repr__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.params().items())
        return f"{type(self).__name__}({inner})"


class BinaryClassificationTask(Task):
    """Predict the probability that something happens."""

    kind = "binary"
    monitor, mode = "val_auroc_0", "max"


class _ClassTask(Task):
    def __init__(self, class_names: list[str]) -> None:
        if not class_names or len(class_names) < 2:
            raise ConfigError(
                problem(f"{type(self).__name__} needs class_names", do="Name at least two classes")
            )
        if len(set(class_names)) != len(class_names):
            raise ConfigError(problem(f"{type(self).__name__}: class_names repeats a name"))
        self.class_names = [str(name) for name in class_names]

    def params(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"class_names": self.class_names}

    @property
    def num_outputs(self) -> int:
        """Length of the target vector."""
        return len(self.class_names)


class MulticlassClassificationTask(_ClassTask):
    """Predict which one of several classes; targets are an index or a score vector."""

    kind = "multiclass"
    monitor, mode = "val_multiple_targets_recall", "max"


class MultilabelClassificationTask(_ClassTask):
    """Predict each of several labels independently."""

    kind = "multilabel"
    monitor, mode = "val_auroc_0", "max"


class RegressionTask(Task):
    """Predict one or several amounts.

    Args:
        num_targets: Length of the target vector.
        point: What a prediction is. "median" is best in absolute error and "mean" in squared error.
            "centre", the default, lies between the median and the mean on a log scale:
            close to the best in absolute error, and far better in relative error where most
            amounts are zero and the median with them.
    """

    kind = "regression"

    def __init__(self, num_targets: int = 1, point: str = "centre") -> None:
        if point not in _POINTS:
            raise ConfigError(
                problem(f"RegressionTask: point is `{point}`", do=nearest(point, _POINTS))
            )
        self.num_targets = int(num_targets)
        self.point = point

    def params(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"num_targets": self.num_targets, "point": self.point}

    @property
    def num_outputs(self) -> int:
        """Length of the target vector."""
        return self.num_targets


class RecommendationTask(Task):
    """Rank the items of a large catalogue."""

    kind = "recommendation"
    monitor, mode = "val_HR@10_0", "max"


class OneHotRecommendationTask(RecommendationTask):
    """Rank the items of a small catalogue."""


_TASKS: dict[str, type[Task]] = {
    cls.__name__: cls
    for cls in (
        BinaryClassificationTask,
        MulticlassClassificationTask,
        MultilabelClassificationTask,
        RegressionTask,
        RecommendationTask,
        OneHotRecommendationTask,
    )
}


def task_from_plain(plain: dict[str, Any]) -> Task:
    """Rebuild a task from what `task.yaml` holds."""
    name = str(plain.get("task"))
    if name not in _TASKS:
        raise CheckpointError(
            problem(f"task.yaml names the task `{name}`", do=nearest(name, _TASKS))
        )
    return _TASKS[name](**(plain.get("params") or {}))
