"""Every documented `monad` name is there, in the state that docs/monad-api.md gives it."""

import copy
import dataclasses
import enum
import importlib
import inspect
import logging

import numpy as np
import pytest

from monad.config import (
    DataLocation,
    EntityIds,
    TestingParams,
    TrainingParams,
    schema,
    support,
)
from monad.config.loading import parse_config
from monad.config.time_range import DataMode, TimeRange
from monad.errors import ConfigError, EngineError, NotBuiltError
from tests.support import monad_api
from tests.unit.engine.sample import shop_config, write_config, write_shop

LISTED = monad_api.load()
PARAMETERS = [
    pytest.param(owner, row, id=f"{owner}.{row['name']}")
    for owner, rows in LISTED["parameters"].items()
    for row in rows
]
MEMBERS = [
    pytest.param(owner, row["name"], id=f"{owner}.{row['name']}")
    for owner, rows in LISTED["members"].items()
    for row in rows
]
YAML = [pytest.param(row, id=row["name"]) for row in LISTED["yaml"]]


def found(dotted: str):
    """Import the object that a dotted name points to."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name)
        return value
    raise AssertionError(f"{dotted} is missing")


def four_parts(error: BaseException) -> bool:
    """Tell whether a message says what failed, what to do and where to look."""
    return "not built in this engine" in str(error) and "docs/monad-api.md" in str(error)


@pytest.fixture(autouse=True)
def fresh_warnings():
    """Warnings that are given once per process are given again in each test."""
    support.warn_no_effect.cache_clear()


@pytest.fixture
def values(tmp_path):
    """A valid configuration."""
    return copy.deepcopy(shop_config(tmp_path))


def test_page_is_written_from_the_list():
    """docs/monad-api.md says what the list says; `python -m tests.support.monad_api` writes it."""
    assert monad_api.PAGE.read_text(encoding="utf-8") == monad_api.render(LISTED)


def test_states_and_evidence_are_known():
    """Every row has a known state and evidence, and no name stands twice under one owner."""
    rows = monad_api.rows(LISTED)
    assert {row["state"] for _, _, row in rows} <= set(monad_api.STATES)
    assert {row["evidence"] for _, _, row in rows} <= {"D", "D-old"}
    keys = [(section, owner, row["name"]) for section, owner, row in rows]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("row", LISTED["imports"], ids=lambda row: row["name"])
def test_import_paths_resolve_to_one_object(row):
    """A name is the same object at each documented place, and public there."""
    objects = [found(f"{path}.{row['name']}") for path in row["paths"]]
    assert all(one is objects[0] for one in objects)
    for path in row["paths"]:
        module = importlib.import_module(path)
        assert row["name"] in getattr(module, "__all__", vars(module))
    if row["state"] == "not built":
        with pytest.raises(NotBuiltError) as caught:
            objects[0](**row["call"])
        assert four_parts(caught.value)


def test_older_modules_of_entities_resolve():
    """`monad.targets.entity.Events` and `.Attributes` are the same classes."""
    assert found("monad.targets.entity.Events") is found("monad.targets.Events")
    assert found("monad.targets.entity.Attributes") is found("monad.targets.Attributes")


@pytest.mark.parametrize(("owner", "row"), PARAMETERS)
def test_parameters_have_the_documented_defaults(owner, row):
    """A parameter exists, with its default; a list default is a fresh empty list."""
    kind = found(owner)
    if dataclasses.is_dataclass(kind):
        field = {f.name: f for f in dataclasses.fields(kind)}[row["name"]]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        missing = dataclasses.MISSING
    else:
        default = inspect.signature(kind).parameters[row["name"]].default
        missing = inspect.Parameter.empty
    if row["default"] == "REQUIRED":
        assert default is missing
    else:
        assert default == row["default"]
        assert type(default) is type(row["default"])


@pytest.mark.parametrize(("owner", "name"), MEMBERS)
def test_members_exist(owner, name):
    """Every documented method or enum member is there."""
    kind = found(owner)
    assert hasattr(kind, name)
    if isinstance(kind, enum.EnumMeta):
        assert kind[name] in list(kind)


@pytest.mark.parametrize(
    ("owner", "row"),
    [p for p in PARAMETERS if "example" in p.values[1]],
)
def test_parameters_without_effect_warn_and_others_are_refused(owner, row, caplog):
    """A parameter that has no effect warns when it is given; one not built raises."""
    value = row["example"]
    needed = {"output_type": "decoded"} if owner.endswith("TestingParams") else {}
    if row["state"] == "not built":
        with pytest.raises(NotBuiltError) as caught:
            found(owner)(**needed, **{row["name"]: value})
        assert four_parts(caught.value)
        return
    with caplog.at_level(logging.WARNING, "monad"):
        found(owner)(**needed, **{row["name"]: value})
    assert f"{owner.rsplit('.', 1)[1]}.{row['name']} is accepted but has no effect" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: TestingParams(output_type="decoded", top_k=3, predictions_threshold=0.5),
        lambda: TrainingParams(top_k=3, predictions_threshold=0.5),
        lambda: TestingParams(output_type="decoded", local_save_location="predictions.csv"),
        lambda: TestingParams(
            output_type="decoded", remote_save_location=DataLocation(database_type="parquet")
        ),
        lambda: EntityIds(ids=["a"], file="ids.txt").resolve(),
        lambda: found("monad.ui.module.MultilabelClassificationTask")(class_names=[]),
    ],
)
def test_documented_exclusivities_raise(make):
    """What the documentation excludes is refused when the parameters are made."""
    with pytest.raises(ConfigError):
        make()


def test_predictions_to_databricks_are_not_built():
    """The documented Databricks table raises the not-implemented error; Snowflake is taken."""
    with pytest.raises(NotBuiltError) as caught:
        TestingParams(output_type="decoded", remote_save_location=DataLocation("databricks"))
    assert four_parts(caught.value)


def test_required_arguments_are_required():
    """`output_type` and `class_names` have no default."""
    with pytest.raises(TypeError):
        TestingParams()
    with pytest.raises(TypeError):
        found("monad.ui.module.MulticlassClassificationTask")()


def test_resume_and_overwrite_exclude_each_other(tmp_path, values):
    """Both flags together are refused before anything is read."""
    config = write_config(tmp_path, values)
    with pytest.raises(EngineError, match="overwrite"):
        found("monad.ui.pretrain")(config, tmp_path / "out", resume=True, overwrite=True)


def write(values: dict, path: str, value) -> None:
    """Put *value* at a dotted path; `[]` is the first element of a list."""
    *above, last = path.replace("[]", ".0").split(".")
    for part in above:
        values = values[int(part)] if part.isdigit() else values.setdefault(part, {})
    values[last] = value


@pytest.mark.parametrize("row", YAML)
def test_yaml_keys_have_their_state(row, values, caplog):
    """A key is known to the schema, warns, or is refused when the file is read."""
    path = row.get("put", row["name"])
    if "value" not in row:
        known_to_schema(path)
        return
    write(values, path, row["value"])
    with caplog.at_level(logging.WARNING, "monad"):
        if row["state"] == "not built":
            with pytest.raises(NotBuiltError) as caught:
                parse_config(values)
            assert four_parts(caught.value)
            return
        parse_config(values)
    if row["state"] == "no effect":
        assert row["name"].rsplit(".", 1)[-1] in caplog.text
        assert "no effect" in caplog.text or "is ignored" in caplog.text


def known_to_schema(path: str) -> None:
    """Assert that the dataclasses of the schema hold *path*."""
    kinds = {
        "data_sources[]": schema.DataSource,
        "data_location": schema.DataLocation,
        "data_params": schema.DataParams,
        "date_column": schema.DateColumn,
        "split": schema.Split,
    }
    *above, last = path.split(".")
    if above and above[-1] == "connection_params":
        return  # free values, checked by the connector that reads them
    kind = kinds[above[-1]] if above else schema.FoundationModelConfig
    assert last in {field.name for field in dataclasses.fields(kind)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A directory with every file of the fit stage and of a scenario checkpoint, untrained."""
    import torch

    from monad.config.loading import load_config
    from monad.data.representation import Representation
    from monad.io.checkpoint import write_checkpoint
    from monad.model.network import Network, Size
    from monad.tasks import BinaryClassificationTask

    directory = write_shop(tmp_path_factory.mktemp("shop"), customers=20)
    config = write_config(directory, shop_config(directory))
    out = directory / "out"
    found("monad.ui.fit_behavioral_representation")(config, out)
    plain = torch.load(out / "features" / "representation.pt", weights_only=True)
    representation = Representation.from_plain(plain)
    network = Network(representation, Size(width=16, layers=1, heads=1, max_events=16))
    task = BinaryClassificationTask()
    loaded = load_config(config)
    fn = target
    write_checkpoint(out, loaded, representation, network, None, task, fn, {"item_position": -1})
    task_free = directory / "fm"
    write_checkpoint(task_free, loaded, representation, network, None, None, None, {})
    return out


def target(history, future, attributes, ctx):
    """A target function."""
    return np.zeros(1, dtype=np.float32)


def test_documented_files_are_written(checkpoint):
    """Every documented file of a checkpoint directory is there; the others are refused."""
    for row in LISTED["files"]:
        if "by" in row:
            assert found(row["by"])  # what writes it has tests of its own
        elif not row["name"].startswith("predictions"):
            assert (checkpoint / row["name"].rstrip("/")).exists(), row["name"]


def test_load_time_overrides_without_effect_warn(checkpoint, caplog):
    """`with_head` and the old output counts are accepted and warn."""
    module = found("monad.ui.module")
    with caplog.at_level(logging.WARNING, "monad"):
        module.load_from_foundation_model(
            checkpoint.parent / "fm",
            module.BinaryClassificationTask(),
            target,
            with_head=True,
            num_outputs=1,
            num_targets=10,
        )
    for name in ("with_head", "num_outputs and num_targets"):
        assert f"{name} is accepted but has no effect" in caplog.text


def test_a_split_replaces_the_configured_dates(checkpoint):
    """Each mode's range is put in the place of its dates; a range for predictions is refused."""
    module = found("monad.ui.module")
    path = checkpoint.parent / "fm"
    loaded = module.load_from_foundation_model(
        path,
        module.BinaryClassificationTask(),
        target,
        split={
            DataMode.TRAIN: TimeRange(end_date="2020-05-31"),
            DataMode.VALIDATION: TimeRange("2020-06-01", "2020-06-30"),
            DataMode.TEST: TimeRange(start_date="2020-07-01"),
        },
    )
    dates = loaded.checkpoint.config.data_params
    assert dates.training_end_date == "2020-05-31"
    assert (dates.validation_start_date, dates.validation_end_date) == ("2020-06-01", "2020-06-30")
    assert dates.test_start_date == "2020-07-01"
    with pytest.raises(ConfigError, match="prediction_date"):
        module.load_from_foundation_model(
            path,
            module.BinaryClassificationTask(),
            target,
            split={DataMode.PREDICT: TimeRange()},
        )


@pytest.mark.parametrize("row", LISTED["metrics"], ids=lambda row: row["name"])
def test_tasks_monitor_the_documented_metric(row):
    """A task's monitored key and direction are the documented ones."""
    name, monitor, mode = row["name"].split()
    task = found(f"monad.ui.module.{name}")
    assert (task.monitor, task.mode) == (monitor, mode)


def test_testing_params_that_do_not_fit_the_task_warn(checkpoint, caplog):
    """top_k, a threshold or metrics that a task cannot use are said to have no effect."""
    module = found("monad.ui.module").load_from_checkpoint(checkpoint)
    params = TestingParams(output_type="decoded", top_k=3)
    with caplog.at_level(logging.WARNING, "monad"), pytest.raises(EngineError, match="trained"):
        module.predict(params)
    assert "TestingParams.top_k of a binary task is accepted but has no effect" in caplog.text


def test_logs_have_the_documented_format():
    """Logger names and the line format are the documented ones."""
    logs = found("monad.logs")
    assert logs.fit_logger.name == "monad.fit"
    assert logs.pretrain_logger.name == "monad.pretrain"
    assert logs.run_logger.name == "monad.run"
    record = logging.LogRecord("monad.fit", logging.INFO, "", 0, "message", None, None)
    record.created = 0.0
    line = logging.Formatter(logs.FORMAT, logs.DATE_FORMAT).format(record)
    assert line.split(" - ", 1)[1] == "INFO - monad.fit: message"
