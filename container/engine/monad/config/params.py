"""`TrainingParams`, `TestingParams` and the small types they use.

Documented names and defaults; `time_budget_seconds`, `batch_size` and `seed` are this engine's
own. `given` remembers which fields the caller set, because a time budget may only adapt others.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from monad.config.schema import DataLocation
from monad.config.support import check_remote_location, check_strategy, warn_no_effect
from monad.config.values import allows_none, instance, number, one_of, positive
from monad.errors import ConfigError, nearest, problem

_PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")
_TRAINING_PRECISIONS = (*_PRECISIONS, "16-true", "bf16-true", "64", "64-true")
_SHORT = {"16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's older names of the same
_ACCELERATORS = ("cpu", "gpu", "cuda", "auto")
_COUNTS = (
    "epochs",
    "check_val_every_n_steps",
    "check_val_every_n_epochs",
    "limit_train_batches",
    "checkpoint_every_n_steps",
    "batch_size",
    "top_k",
)
_FROM_ZERO = ("limit_val_batches",)

logger = logging.getLogger("monad.fit")


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

    def resolve(self, name: str = "entity_ids.file") -> list[str]:
        """Return the distinct ids as text; *name* is what errors call the file."""
        if (self.ids is None) == (self.file is None):
            raise ConfigError(
                problem("entity_ids needs exactly one source", do="Give either ids or file")
            )
        if self.ids is not None:
            return _distinct([str(item) for item in self.ids], "ids")
        path = Path(str(self.file))
        if not path.is_file():
            raise ConfigError(problem(f"{name} does not exist", f"path {path}", "Check the path"))
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(
                problem(f"{name} is no text file", f"path {path}: {error}", "Write one id a line")
            ) from error
        return _distinct([line.strip() for line in lines if line.strip()], f"file {path}")


def _distinct(ids: list[str], where: str) -> list[str]:
    if not ids:
        raise ConfigError(
            problem("entity_ids is empty", where, "Give ids, or leave it out for all")
        )
    return list(dict.fromkeys(ids))


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
        for name in (*_COUNTS, *_FROM_ZERO):
            if getattr(self, name) is not None:
                least = 0 if name in _FROM_ZERO else 1
                setattr(self, name, number(getattr(self, name), name, whole=True, least=least))
        self.learning_rate = positive(self.learning_rate, "learning_rate")
        if self.time_budget_seconds is not None:
            self.time_budget_seconds = positive(self.time_budget_seconds, "time_budget_seconds")
        if self.gradient_clip_val is not None:
            self.gradient_clip_val = number(self.gradient_clip_val, "gradient_clip_val", least=0)
        self.epochs = number(self.epochs, "epochs", whole=True, least=1)
        self.seed = number(self.seed, "seed", whole=True, least=0)
        if self.loss is not None and not callable(self.loss):
            raise ConfigError(problem("loss must be a function", f"got {self.loss!r}"))
        if self.early_stopping is not None:
            self.early_stopping = instance(EarlyStopping, self.early_stopping, "early_stopping")
        if self.metric_monitoring_mode is not None:
            self.metric_monitoring_mode = MetricMonitoringMode(
                one_of(self.metric_monitoring_mode, MetricMonitoringMode, "metric_monitoring_mode")
            )
        if self.precision is not None:
            self.precision = _precision(self.precision, _TRAINING_PRECISIONS, "precision")
        check_strategy(self.strategy)
        self.accelerator = one_of(self.accelerator, _ACCELERATORS, "accelerator")
        self.devices = _devices(self.devices, "devices")
        self.metrics = _metrics(self.metrics, "metrics")
        if self.entity_ids is not None:
            self.entity_ids = instance(EntityIds, self.entity_ids, "entity_ids")
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
        self.output_type = OutputType(one_of(self.output_type, OutputType, "output_type"))
        self.precision = _precision(self.precision, _PRECISIONS, "TestingParams.precision")
        self.accelerator = one_of(self.accelerator, _ACCELERATORS, "accelerator")
        self.devices = _devices(self.devices, "devices")
        self.metrics = _metrics(self.metrics, "metrics")
        for name in ("top_k", "limit_test_batches"):
            if getattr(self, name) is not None:
                setattr(self, name, number(getattr(self, name), name, whole=True, least=1))
        _check_threshold(self.predictions_threshold)
        if self.entity_ids is not None:
            self.entity_ids = instance(EntityIds, self.entity_ids, "entity_ids")
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


def _check_exclusive(top_k: int | None, threshold: float | None) -> None:
    if top_k is not None and threshold is not None:
        raise ConfigError(
            problem(
                "top_k and predictions_threshold are mutually exclusive",
                f"got top_k={top_k} and predictions_threshold={threshold}",
                "Give one of them",
            )
        )


def _check_threshold(value: float | None) -> None:
    """Refuse a threshold that no probability, or every one, reaches."""
    if value is not None and not 0 < number(value, "predictions_threshold") < 1:
        raise ConfigError(
            problem("predictions_threshold must lie between 0 and 1", f"got {value!r}")
        )


def _precision(value: Any, known: tuple[str, ...], path: str) -> str | int:
    text = _SHORT.get(str(value).lower(), str(value))
    return value if value in (32, 64) else one_of(text, known, path)


def _devices(value: Any, path: str) -> list[int] | int | str:
    """Return devices as "auto", a count (-1 is all) or a list of indices."""
    if str(value) == "auto":
        return "auto"
    if isinstance(value, str) and "," in value:
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple)) and value:
        return [number(item, path, whole=True, least=0) for item in value]
    found = 0 if value == [] else number(value, path, whole=True, least=-1)
    if found == 0:
        raise ConfigError(
            problem(f"{path} is {value!r}", do="Give auto, a count, or a list of indices")
        )
    return int(found)


def _metrics(value: Any, path: str) -> list[MetricParams | CustomMetric]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(problem(f"{path} must be a list of metrics", f"got {value!r}"))
    made: list[MetricParams | CustomMetric] = []
    for i, item in enumerate(value):
        if isinstance(item, CustomMetric):
            made.append(item)
        else:
            given = {"alias": item} if isinstance(item, str) else item
            made.append(instance(MetricParams, given, f"{path}[{i}]"))
    return made


def training_params_from_mapping(values: Mapping[str, Any], path: str) -> TrainingParams:
    """Build `TrainingParams` from YAML; an unknown key is ignored with a warning.

    More fields are documented than we could read, so that an unknown one need not be a mistake.
    """
    known = {f.name for f in fields(TrainingParams)}
    for key in values:
        if key not in known:
            logger.warning("%s: unknown key `%s` is ignored; %s", path, key, nearest(key, known))
    optional = {f.name for f in fields(TrainingParams) if allows_none(f.type)}
    given: dict[str, Any] = {
        key: value
        for key, value in values.items()
        if key in known and (value is not None or key in optional)
    }
    try:
        return TrainingParams(**given)
    except ConfigError as error:
        raise type(error)(f"{path}: {error}") from error
