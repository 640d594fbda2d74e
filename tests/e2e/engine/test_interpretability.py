"""Attributions find the planted signal, add up, and are written in the documented files."""

import json
import logging
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.errors import ConfigError, DataError, NotBuiltError
from monad.interpretability import interpret, interpret_entity
from monad.interpretability.attribution import attribute, explained_at, full_gates
from monad.interpretability.explain import Explainer, resampled
from monad.targets import sketch
from monad.ui import pretrain
from monad.ui.module import (
    BinaryClassificationTask,
    MulticlassClassificationTask,
    RecommendationTask,
    RegressionTask,
    load_from_foundation_model,
)
from tests.unit.engine.sample import location, write_config

DATE = "2020-06-01"


def by_event_flag(history, future, attributes, ctx):
    """1 when the last event's planted flag is yes."""
    flags = history["events"]["planted"]
    return np.array([float(flags[-1] == "yes")], dtype=np.float32) if len(flags) else None


def by_attribute(history, future, attributes, ctx):
    """1 for the planted group of customers."""
    return np.array([float(attributes["people"]["group"] == "b")], dtype=np.float32)


def by_amount(history, future, attributes, ctx):
    """The last amount."""
    amounts = history["events"]["amount"]
    return np.array([amounts[-1]], dtype=np.float32) if len(amounts) else None


def by_class(history, future, attributes, ctx):
    """The class of the last planted flag."""
    flags = history["events"]["planted"]
    return np.array([["yes", "no", "maybe"].index(flags[-1])]) if len(flags) else None


def next_items(history, future, attributes, ctx):
    """What is taken next."""
    items = future["events"]["item"]
    return sketch(items) if len(items) else None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Events with a planted flag among noise, a foundation model and trained scenarios."""
    directory = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    people, days = 120, 150
    who = np.repeat(np.arange(people), 14)
    day = np.sort(random.integers(0, days, (people, 14)), axis=1).reshape(-1)
    first = np.datetime64("2020-01-01")
    table = {
        "id": [f"p{i:03d}" for i in who],
        "day": pa.array((first + day).astype("datetime64[D]")),
        "planted": random.choice(["yes", "no", "maybe"], len(who)).tolist(),
        "noise": random.choice(list("abcdef"), len(who)).tolist(),
        "item": [f"i{(i + int(random.integers(0, 3))) % 30}" for i in who],
        "amount": random.gamma(2.0, 10.0, len(who)).tolist(),
    }
    pq.write_table(pa.table(table), directory / "events.parquet")
    groups = {
        "id": [f"p{i:03d}" for i in range(people)],
        "group": random.choice(["a", "b"], people).tolist(),
        "age": random.integers(18, 80, people).tolist(),
    }
    pq.write_table(pa.table(groups), directory / "people.parquet")
    values = {
        "data_sources": [
            {
                "type": "event",
                "name": "events",
                "main_entity_column": "id",
                "date_column": {"name": "day"},
                "data_location": location(directory / "events.parquet"),
            },
            {
                "type": "main_entity_attribute",
                "name": "people",
                "main_entity_column": "id",
                "data_location": location(directory / "people.parquet"),
            },
        ],
        "data_params": {
            "data_start_date": "2020-01-01",
            "training_end_date": "2020-05-20",
            "maximum_splitpoints_per_entity": 5,
        },
        "training_params": {"accelerator": "cpu", "precision": 32},
        "memory_constraining_params": {
            "hidden_dim": 16,
            "num_layers": 1,
            "num_heads": 1,
            "max_history_events": 12,
        },
    }
    pretrain(write_config(directory, values), directory / "fm")
    made = {
        "flag": (BinaryClassificationTask(), by_event_flag),
        "attribute": (BinaryClassificationTask(), by_attribute),
        "amount": (RegressionTask(), by_amount),
        "class": (MulticlassClassificationTask(["yes", "no", "maybe"]), by_class),
        "next": (RecommendationTask(), next_items),
    }
    for name, (task, target_fn) in made.items():
        module = load_from_foundation_model(directory / "fm", task, target_fn)
        epochs = 1 if name == "next" else 10
        module.fit(
            TrainingParams(
                checkpoint_dir=directory / name, epochs=epochs, learning_rate=5e-3, batch_size=64
            )
        )
        module.predict(
            TestingParams(
                output_type="decoded",
                prediction_date=DATE,
                local_save_location=directory / f"{name}_predictions" / "predictions.tsv",
            )
        )
    return directory


def explained(world, name, out, **fields):
    """Interpret a scenario and return the directory."""
    interpret(
        predictions_path=world / f"{name}_predictions" / "predictions.tsv",
        output_path=out,
        checkpoint_path=world / name,
        device="cpu",
        prediction_date=DATE,
        **fields,
    )
    return out


def read(path):
    """JSON content of a file."""
    return json.loads(path.read_text())


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_shap"])
def test_the_planted_column_is_the_most_important(world, tmp_path, method):
    """Of all columns of the events the planted one leads, and its wanted value points upwards."""
    out = explained(world, "flag", tmp_path / "out", method=method, limit_batches=1)
    importance = read(out / "events" / "feature_importance.json")
    assert next(iter(importance)) == "planted"
    ranked = [item["importance"] for item in importance.values()]
    assert ranked[0] > 2 * ranked[1]
    values = read(out / "events" / "planted.json")
    assert values["yes"]["attribution"] > 0 > values["no"]["attribution"]
    sources = read(out / "source_importance.json")["sources"]
    assert next(iter(sources)) == "events"
    assert sum(sources.values()) == pytest.approx(1.0)


def test_a_planted_attribute_makes_its_source_the_most_important(world, tmp_path):
    """A target that follows an attribute is attributed to the attribute's source and column."""
    out = explained(world, "attribute", tmp_path / "out")
    assert next(iter(read(out / "source_importance.json")["sources"])) == "people"
    assert next(iter(read(out / "people" / "feature_importance.json"))) == "group"


def test_a_planted_number_is_found_by_value(world, tmp_path):
    """A regression on a number is attributed to that column, larger values to larger outputs."""
    out = explained(world, "amount", tmp_path / "out")
    assert next(iter(read(out / "events" / "feature_importance.json"))) == "amount"
    bins = read(out / "events" / "amount.json")
    by_low = sorted(bins.items(), key=lambda kv: float(kv[0].split(" to ")[0]))
    attributions = [item["attribution"] for _, item in by_low]
    assert np.mean(attributions[-4:]) > np.mean(attributions[:4])


def test_the_documented_files_are_written(world, tmp_path):
    """JSON, a picture, one folder for each source with content, and a manifest."""
    out = explained(world, "flag", tmp_path / "out", group_size=7, limit_batches=2)
    assert (out / "source_importance.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"events", "people"}
    assert read(out / "source_importance.json")["rows"] == 14
    assert read(out / "lineage.json")["kind"] == "interpretation"


def test_without_matplotlib_the_picture_is_left_out_and_said(world, tmp_path, monkeypatch, caplog):
    """The numbers are written, and the log names the extra to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING, "monad"):
        out = explained(world, "flag", tmp_path / "out", limit_batches=1, group_size=5)
    assert not (out / "source_importance.png").exists()
    assert "`interpretability` extra" in caplog.text


def test_attributions_add_up_to_the_change_of_the_output(world):
    """Integrated gradients of a row sum to f(row) - f(references), within the step error."""
    explainer = Explainer(world / "flag", "cpu", DATE)
    group = explainer.entities([f"p{i:03d}" for i in range(20)])
    stamps = np.full(len(group), explainer.stamp, dtype=np.int64)
    batch = explainer.batches.reader.read(group, stamps)
    network, head = explainer.module.network, explainer.module.head
    index = torch.zeros(len(group), dtype=torch.long)
    references = explainer._references
    found = attribute(network, head, batch, index, references)
    whole = full_gates(network, batch, references)
    nothing = whole.like([torch.zeros_like(t) for t in whole.tensors()])
    with torch.no_grad():
        change = explained_at(network, head, batch, index, whole) - explained_at(
            network, head, batch, index, nothing
        )
        plain = head.explained(head.output(network, batch), index)
        assert torch.allclose(explained_at(network, head, batch, index, whole), plain, atol=1e-5)
    total = found.events.sum((1, 2)) + found.aggregates.sum(1) + found.attributes.sum(1)
    sizes = torch.diff(batch["bag_starts"], append=torch.tensor([len(batch["bag_codes"][0])]))
    owner = torch.repeat_interleave(torch.arange(len(group)), sizes)
    for bag in found.bags:
        total = total.index_add(0, owner, bag)
    assert torch.allclose(total, change, atol=0.05 + 0.05 * float(change.abs().max()))


def test_one_entity_is_explained_event_by_event(world, tmp_path):
    """Events stand oldest first in the documented layout; the planted last event weighs most."""
    predictions = world / "flag_predictions" / "predictions.tsv"
    interpret_entity(tmp_path, world / "flag", predictions, "p007", "cpu", DATE)
    made = read(tmp_path / "entity_p007.json")
    events = made["events"][:-1]
    assert len(events) == 14
    stamps = [e["timestamp"][6:10] + e["timestamp"][3:5] + e["timestamp"][:2] for e in events]
    assert stamps == sorted(stamps)
    assert events[0]["timestamp"].endswith(", 00:00:00")
    fields = {"data_source_name", "name", "value", "attribution"}
    assert all(set(m) == fields for e in events for m in e["modality_attributions"])

    def planted(event):
        return next(m for m in event["modality_attributions"] if m["name"] == "planted")

    # The sequence holds the last 12 events; the sketch alone holds the two before.
    assert [len(e["modality_attributions"]) for e in events] == [1] * 2 + [6] * 12
    events = events[2:]
    sizes = [abs(planted(event)["attribution"]) for event in events]
    assert int(np.argmax(sizes)) == len(events) - 1
    assert planted(events[-1])["value"] in ("yes", "no", "maybe")
    names = {m["name"] for m in made["people"][0]["modality_attributions"]}
    assert names == {"group", "age"}


def test_classes_and_items_are_chosen(world, tmp_path):
    """target_index picks the class, recommended_value the item; without an index: the largest."""
    one = explained(world, "class", tmp_path / "one", target_index=0)
    values = read(one / "events" / "planted.json")
    assert values["yes"]["attribution"] > max(values[x]["attribution"] for x in ("no", "maybe"))
    largest = explained(world, "class", tmp_path / "largest")
    assert read(largest / "source_importance.json")["target_index"] is None
    item = explained(world, "next", tmp_path / "item", recommended_value="i3", limit_batches=1)
    assert "(history)" in read(item / "events" / "feature_importance.json")
    interpret_entity(
        tmp_path / "e.json", world / "next", world / "next_predictions", "p003", "cpu", DATE
    )
    assert read(tmp_path / "e.json")["events"]


def test_resampling_takes_as_many_of_each_class():
    """Entities above and below one half are equally many; other tasks keep all."""
    ids = [str(i) for i in range(10)]
    scores = np.array([[0.9]] * 3 + [[0.1]] * 7)
    kept = resampled(ids, scores, "binary")
    assert len(kept) == 6
    assert {"0", "1", "2"} <= set(kept)
    assert resampled(ids, scores, "regression") == ids


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"method": "integrated_gradient"}, ConfigError, "integrated_gradients"),
        ({"target_index": 4}, ConfigError, "has 1 outputs"),
        ({"device": "tpu"}, ConfigError, "cpu or cuda"),
        ({"save_shap_plots": True}, NotBuiltError, "docs/monad-api.md"),
        ({"predictions_path": "nowhere.tsv"}, DataError, "do not exist"),
        ({"prediction_date": "2019-01-01"}, DataError, "has history"),
        ({"group_size": 0}, ConfigError, "positive"),
        ({"limit_batches": 0}, ConfigError, "positive"),
        ({"target_index": "yes"}, ConfigError, "target_index is 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(world, tmp_path, fields, error, text):
    """What cannot be explained is said before anything is written."""
    base = {
        "predictions_path": world / "flag_predictions",
        "output_path": tmp_path / "out",
        "checkpoint_path": world / "flag",
        "device": "cpu",
        "prediction_date": DATE,
    }
    with pytest.raises(error, match=text):
        interpret(**{**base, **fields})
    assert not (tmp_path / "out").exists()


def test_arguments_of_other_tasks_are_said_to_have_no_effect(world, tmp_path, caplog):
    """An item for a classification and an index for a recommendation warn; numpy's numbers do not."""
    some = {"limit_batches": 1, "group_size": 5}
    out = explained(
        world, "flag", tmp_path / "a", recommended_value="x", target_index=np.int64(0), **some
    )
    assert read(out / "source_importance.json")["target_index"] == 0
    explained(
        world, "next", tmp_path / "b", recommended_value=np.str_("i3"), target_index=1, **some
    )
    assert "recommended_value of BinaryClassificationTask() is accepted" in caplog.text
    assert "target_index of RecommendationTask() is accepted" in caplog.text


def test_unknown_items_and_entities_are_named(world, tmp_path):
    """The nearest known item or entity is suggested."""
    with pytest.raises(ConfigError, match="recommended_value is required"):
        explained(world, "next", tmp_path)
    with pytest.raises(ConfigError, match="not a known item"):
        explained(world, "next", tmp_path, recommended_value="i99")
    with pytest.raises(DataError, match="did you mean"):
        interpret_entity(tmp_path, world / "flag", world / "flag_predictions", "p0077", "cpu", DATE)
