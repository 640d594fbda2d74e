"""`TrainingParams`, `TestingParams` and the small types they use.

Documented names and defaults; `time_budget_seconds`, `batch_size` and `seed` are this engine's
own. `given` remembers which fields the caller set, because a time budget may only adapt others.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from monad.config.schema import DataLocation
from monad.config.support import check_remote_location, check_strategy, warn_no_effect
from monad.errors import ConfigError, nearest, problem

_PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")
_TRAINING_PRECISIONS = (*_PRECISIONS, "16", "bf16", "16-true", "bf16-true", "64", "64-true")
_ACCELERATORS = ("gpu", "cpu", "auto", "cuda")
# Kind and least value of fields that are numbers; -1: above 0.
_TRAINING_NUMBERS: dict[str, tuple[type, float]] = {
    "epochs": (int, 1),
    "learning_rate": (float, -1),
    "check_val_every_n_steps": (int, 1),
    "check_val_every_n_epochs": (int, 1),
    "limit_train_batches": (int, 1),
    "limit_val_batches": (int, 1),
    "gradient_clip_val": (float, 0),
    "checkpoint_every_n_steps": (int, 1),
    "time_budget_seconds": (float, -1),
    "batch_size": (int, 1),
    "top_k": (int, 1),
    "seed": (int, 0),
}
_TESTING_NUMBERS: dict[str, tuple[type, float]] = {
    "limit_test_batches": (int, 1),
    "top_k": (int, 1),
}
_NEEDED = ("epochs", "learning_rate", "seed")  # may not be None


class OutputType(StrEnum):
    """What predictions hold: decoded values (probabilities, amounts, item ids) or raw scores."""

    DECODED = "decoded"
    RAW = "raw"


class MetricMonitoringMode(StrEnum):
    """Whether the monitored metric is better when small or when large."""

    MIN = "min"
    MAX = "max"


@dataclass
class EarlyStopping:
    """Stop when the monitored metric has not improved for `patience` validations."""

    patience: int = 3
    min_delta: float = 0.0


@dataclass
class MetricParams:
    """A metric of `monad.evaluation.catalogue`, with keyword arguments of its own.

    Attributes:
        alias: What it is called in logs and results.
        metric_name: The metric, when it is not called by its alias.
    """

    alias: str
    metric_name: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The metric's own name."""
        return self.metric_name or self.alias


@dataclass
class CustomMetric:
    """A metric given as a function of `(predictions, targets)` numpy arrays."""

    alias: str
    function: Callable[[Any, Any], float]


@dataclass
class EntityIds:
    """The main entities to use: a list of ids, or a text file with one id a line."""

    ids: Iterable[str] | None = None
    file: str | Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.ids, (str, bytes)) or not (
            self.ids is None or isinstance(self.ids, Iterable)
        ):
            raise ConfigError(
                problem("entity_ids.ids must be a list", f"got {self.ids!r}", "Write [id, id]")
            )
        if self.ids is not None:
            self.ids = [*self.ids]  # an iterator can be read once only

    def resolve(self) -> list[str]:
        """Return the distinct ids as text."""
        if (self.ids is None) == (self.file is None):
            raise ConfigError(
                problem("entity_ids needs exactly one source", do="Give either ids or file")
            )
        if self.ids is not None:
            return _distinct([str(item) for item in self.ids], "ids")
        path = Path(str(self.file))
        if not path.is_file():
            raise ConfigError(problem("entity_ids.file does not exist", f"path {path}"))
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(
                problem("entity_ids.file is not text", f"{path}: {error}", "Write it as UTF-8")
            ) from error
        return _distinct([line.strip() for line in lines if line.strip()], f"file {path}")


def _distinct(ids: list[str], where: str) -> list[str]:
    if not ids:
        raise ConfigError(
            problem("entity_ids is empty", where, "Give ids, or leave it out for all")
        )
    return list(dict.fromkeys(ids))


def as_entity_ids(given: Any, name: str) -> EntityIds | None:
    """Return what was given as entity ids, which YAML has as a mapping."""
    if isinstance(given, Mapping):
        given = EntityIds(**given)
    if given is None or isinstance(given, EntityIds):
        return given
    raise ConfigError(
        problem(
            f"{name} must be an EntityIds",
            f"got {type(given).__name__}",
            "Write EntityIds(ids=[...]) or EntityIds(file=...)",
        )
    )


class _RemembersGiven:
    """Record the names of the fields that the caller passed."""

    given: frozenset[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> "_RemembersGiven":
        made = super().__new__(cls)
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        made.given = frozenset(names[: len(args)]) | frozenset(kwargs)
        return made


@dataclass
class TrainingParams(_RemembersGiven):
    """How to train, with the documented fields and defaults.

    With `time_budget_seconds`, every field that was not given adapts to the data, the device
    and the budget; a field that was given is honoured exactly.
    """

    epochs: int = 1
    learning_rate: float = 0.0001
    check_val_every_n_steps: int | None = None
    check_val_every_n_epochs: int | None = 1
    limit_train_batches: int | None = None
    limit_val_batches: int | None = None
    loss: Callable[..., Any] | None = None
    checkpoint_dir: str | Path | None = None
    metric_to_monitor: str | None = None
    metric_monitoring_mode: MetricMonitoringMode | str | None = None
    gradient_clip_val: float | None = None
    checkpoint_every_n_steps: int | None = None
    early_stopping: EarlyStopping | None = None
    precision: str | int | None = None
    devices: list[int] | int | str = "auto"
    accelerator: str = "gpu"
    strategy: str | None = None
    metrics: list[MetricParams | CustomMetric] = field(default_factory=list)
    top_k: int | None = None
    predictions_threshold: float | None = None
    entity_ids: EntityIds | None = None
    callbacks: list[Any] = field(default_factory=list)
    time_budget_seconds: float | None = None
    batch_size: int | None = None
    seed: int = 0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        _check_exclusive(self.top_k, self.predictions_threshold)
        _check_numbers(self, "TrainingParams", _TRAINING_NUMBERS)
        _check_kinds(self, "TrainingParams")
        if isinstance(self.early_stopping, Mapping):
            known = [f.name for f in fields(EarlyStopping)]
            for key in self.early_stopping:
                if key not in known:
                    raise ConfigError(
                        problem(f"early_stopping has no field `{key}`", do=nearest(key, known))
                    )
            self.early_stopping = EarlyStopping(**self.early_stopping)
        if not isinstance(self.early_stopping, EarlyStopping | None):
            raise ConfigError(
                problem(
                    "early_stopping must be an EarlyStopping",
                    f"got {self.early_stopping!r}",
                    "Write EarlyStopping(patience=3)",
                )
            )
        if isinstance(self.metric_monitoring_mode, str):
            mode = _one_of(
                self.metric_monitoring_mode, MetricMonitoringMode, "metric_monitoring_mode"
            )
            self.metric_monitoring_mode = MetricMonitoringMode(mode)
        if self.loss is not None and not callable(self.loss):
            raise ConfigError(problem("loss must be a function", f"got {self.loss!r}"))
        if self.precision is not None:
            _one_of(str(self.precision), _TRAINING_PRECISIONS, "TrainingParams.precision")
        check_strategy(self.strategy)
        for name in ("top_k", "predictions_threshold"):
            if getattr(self, name) is not None:
                warn_no_effect(f"TrainingParams.{name}", "give it in TestingParams")

    def plain(self) -> dict[str, Any]:
        """Return the fields that decide what is learnt, for comparing two attempts."""
        places = ("checkpoint_dir", "resume", "overwrite", "callbacks", "loss", "metrics")
        made = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in places}
        ids = self.entity_ids
        return made | {"entity_ids": None if ids is None else sorted(ids.resolve())}

    def merged(self, other: "TrainingParams") -> "TrainingParams":
        """Return a copy in which the fields given in *other* win."""
        values = {name: getattr(self, name) for name in self.given}
        values.update({name: getattr(other, name) for name in other.given})
        return TrainingParams(**values)


@dataclass
class TestingParams(_RemembersGiven):
    """How to test or predict, with the documented fields and defaults."""

    __test__ = False  # keep pytest from collecting the class

    output_type: OutputType | str
    local_save_location: str | Path | None = None
    remote_save_location: DataLocation | None = None
    limit_test_batches: int | None = None
    precision: str | int = 32
    prediction_date: datetime | None = None
    devices: list[int] | int | str = 1
    accelerator: str = "gpu"
    strategy: str | None = None
    metrics: list[MetricParams | CustomMetric] = field(default_factory=list)
    top_k: int | None = None
    predictions_threshold: float | None = None
    entity_ids: EntityIds | None = None
    callbacks: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_exclusive(self.top_k, self.predictions_threshold)
        check_strategy(self.strategy)
        if isinstance(self.remote_save_location, Mapping):
            self.remote_save_location = DataLocation(**self.remote_save_location)
        check_remote_location(self.remote_save_location)
        _check_numbers(self, "TestingParams", _TESTING_NUMBERS)
        _check_kinds(self, "TestingParams")
        self.output_type = OutputType(_one_of(self.output_type, OutputType, "output_type"))
        _one_of(str(self.precision), _PRECISIONS, "TestingParams.precision")
        if self.strategy is not None:
            warn_no_effect("TestingParams.strategy", "one device is used")
        if not isinstance(self.devices, list) and self.devices not in (1, "auto"):
            warn_no_effect("TestingParams.devices", "one device is used; [2] names the third")
        if self.callbacks:
            warn_no_effect("TestingParams.callbacks")
        if self.local_save_location is not None:
            self.local_save_location = Path(self.local_save_location)
            if self.local_save_location.suffix != ".tsv":
                raise ConfigError(
                    problem(
                        "local_save_location must end in .tsv",
                        f"got {self.local_save_location}",
                        f"Use {self.local_save_location}.tsv or a file in that directory",
                    )
                )


def _one_of(value: Any, known: Iterable[str], name: str) -> str:
    """Return a value that is one of the *known* ones."""
    names = [str(item) for item in known]
    if str(value) not in names:
        raise ConfigError(problem(f"{name} is `{value}`", do=nearest(str(value), names)))
    return str(value)


def _check_numbers(params: Any, where: str, limits: Mapping[str, tuple[type, float]]) -> None:
    """Check that fields which are given are finite numbers of their kind and not too small."""
    for name, (kind, least) in limits.items():
        value = getattr(params, name)
        if value is None and (name not in _NEEDED or name not in params.given):
            continue
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        whole = number and float(value).is_integer()  # False for NaN and infinity, as wanted
        good = number and math.isfinite(value) and (kind is float or whole)
        if not good or not (value > 0 if least < 0 else value >= least):
            wanted = "a whole number" if kind is int else "a finite number"
            bound = "above 0" if least < 0 else f"of at least {least:g}"
            raise ConfigError(
                problem(
                    f"{where}.{name} must be positive" if least else f"{where}.{name} is wrong",
                    f"got {value!r}",
                    f"Give {wanted} {bound}",
                )
            )
        if kind is int:
            setattr(params, name, int(value))


def _check_kinds(params: Any, where: str) -> None:
    """Check fields that hold objects of this module, and the accelerator's name."""
    params.entity_ids = as_entity_ids(params.entity_ids, f"{where}.entity_ids")
    for metric in params.metrics:
        if not isinstance(metric, (MetricParams, CustomMetric)):
            raise ConfigError(
                problem(
                    f"{where}.metrics holds {metric!r}",
                    do="Write MetricParams(alias=...) or CustomMetric(alias=..., function=...)",
                )
            )
    _one_of(params.accelerator, _ACCELERATORS, f"{where}.accelerator")


def _check_exclusive(top_k: int | None, threshold: float | None) -> None:
    if top_k is not None and threshold is not None:
        raise ConfigError(
            problem(
                "top_k and predictions_threshold are mutually exclusive",
                f"got top_k={top_k} and predictions_threshold={threshold}",
                "Give one of them",
            )
        )


def training_params_from_mapping(values: Mapping[str, Any], path: str) -> TrainingParams:
    """Build `TrainingParams` from YAML; an unknown key is an error with the nearest name."""
    known = {f.name for f in fields(TrainingParams)}
    for key in values:
        if key not in known:
            raise ConfigError(problem(f"{path}.{key} is not a known field", nearest(key, known)))
    try:
        return TrainingParams(**values)
    except TypeError as error:
        raise ConfigError(problem(f"{path} has a value of the wrong type", str(error))) from error
