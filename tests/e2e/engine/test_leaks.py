"""Twelve ways to let the future into training: each is planted, and caught or without effect."""

import copy
import dataclasses
import datetime as dt
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config import EntityIds, MetricParams, TestingParams, TrainingParams
from monad.config.loading import load_config, parse_config
from monad.config.time_range import DataMode, to_timestamp
from monad.data import ingest, sources
from monad.data.batches import RowReader
from monad.data.cache import open_store
from monad.data.ingest import build_store
from monad.data.pairs import PairReader
from monad.data.representation import fit_representation
from monad.evaluation.catalogue import CATALOGUE
from monad.model.items import NextItemHead
from monad.targets import has_incomplete_training_window, sketch
from monad.tasks import BinaryClassificationTask, RecommendationTask, RegressionTask
from monad.training.foundation import _histories
from monad.training.rows import Labeler
from monad.ui import pretrain
from monad.ui.module import load_from_checkpoint, load_from_foundation_model
from tests.e2e.engine.test_bad_data import configured, days
from tests.unit.engine.sample import location, shop_config, write_config, write_shop

END = to_timestamp("2020-07-28") + 86_399
LATER = to_timestamp("2020-07-29")
LATER_DAY = dt.date(2020, 7, 29)


def stays_away(history, future, attributes, ctx):
    """Churn in the next 28 days."""
    from datetime import timedelta

    window = timedelta(days=28)
    if has_incomplete_training_window(ctx, window):
        return None
    seen = future.interval_from(ctx["SPLIT_TIMESTAMP"], window)["transactions"].count()
    return np.array([float(seen == 0)], dtype=np.float32)


def unchecked(history, future, attributes, ctx):
    """Churn in the next 28 days, without looking whether 28 days are left."""
    from datetime import timedelta

    window = future.interval_from(ctx["SPLIT_TIMESTAMP"], timedelta(days=28))
    return np.array([float(window["transactions"].count() == 0)], dtype=np.float32)


def next_items(history, future, attributes, ctx):
    """What is bought next."""
    items = future["transactions"]["article_id"]
    return sketch(items) if len(items) else None


def table_of(directory) -> dict:
    """The transactions as columns."""
    return pq.read_table(directory / "transactions.parquet").to_pydict()


def stored(directory, values=None, end=END, threads=None):
    """A freshly read store and its plans."""
    raw = copy.deepcopy(values or shop_config(directory))
    if threads:
        raw["query_optimization"] = {"num_threads": threads}
    config = parse_config(raw)
    store, plans = build_store(config, end)
    return config, store, plans


def fitted(directory, values=None):
    """Store and representation."""
    config, store, plans = stored(directory, values)
    limits = config.memory_constraining_params
    return store, fit_representation(store, plans, END, limits, 0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop, and the same shop with all that comes after the training range made up anew."""
    base = tmp_path_factory.mktemp("leaks")
    here = write_shop(base / "here", customers=50)
    there = write_shop(base / "there", customers=50)
    table = table_of(there)
    random = np.random.default_rng(9)
    for i, day in enumerate(table["t_dat"]):
        if np.datetime64(day) > np.datetime64("2020-07-28"):
            table["article_id"][i] = int(random.integers(1000, 1024))
            table["price"][i] = float(random.integers(500, 900))
            table["channel"][i] = 7
    # Everyone also buys in the first hours after it, so that no rule can be a day too generous.
    for customer in sorted(set(table["customer_id"])):
        new = {"customer_id": customer, "t_dat": LATER_DAY, "article_id": 1003, "price": 777.0}
        for name, value in {**new, "channel": 8}.items():
            table[name].append(value)
    pq.write_table(pa.table(table), there / "transactions.parquet")
    return here, there


def same(a, b):
    """Tell whether two entries of a batch, tensors or plain values, are equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    return a == b


def test_trap_1_the_split_divides_history_from_labels_strictly(shop):
    """An event at the split is history only; whatever comes later changes no input of a row."""
    store, representation = fitted(shop[0])
    labels = []

    def spy(history, future, attributes, ctx):
        labels.append((history["transactions"].timestamps, future["transactions"].timestamps))
        return np.array([0.0])

    entity = int(np.argmax(np.diff(store.tables[0].offsets)))
    times = store.tables[0].times[slice(*store.tables[0].offsets[entity : entity + 2])]
    split = int(times[len(times) // 2])
    task = BinaryClassificationTask()
    Labeler(store, spy, task, END, DataMode.TRAIN).label(np.array([entity]), np.array([split]))
    history, future = labels[0]
    assert history.max() == split
    assert future.min() > split

    other, _ = fitted(shop[1])
    everyone = np.arange(store.num_entities)
    stamps = np.full(len(everyone), END)
    one = RowReader(store, representation, 16).read(everyone, stamps)
    two = RowReader(other, representation, 16).read(everyone, stamps)
    assert one.pop("complete") == two.pop("complete")
    for key, value in one.items():
        pairs = (
            zip(value, two[key], strict=True) if isinstance(value, list) else [(value, two[key])]
        )
        assert all(same(a, b) for a, b in pairs), key


def test_trap_2_nothing_is_fitted_on_the_future(shop):
    """Vocabularies, quantiles, scaling, popularity and companions do not know what came later."""
    (here, one), (there, two) = fitted(shop[0]), fitted(shop[1])
    first, second = one.to_plain(), two.to_plain()
    assert first.pop("num_events") < second.pop("num_events")  # it tells of the file, to the log
    assert first == second
    assert not any("7" in f.values for f in two.fields if f.column == "channel")
    position = one.item_field(("transactions", "article_id"))
    items = [PairReader(RowReader(s, one, 16), position).context(END) for s in (here, there)]
    assert np.array_equal(items[0].features, items[1].features)
    found = [item.affinity for item in items]
    for name in ("by_entity", "by_day", "lately", "following", "tastes", "taken"):
        assert (getattr(found[0], name) != getattr(found[1], name)).nnz == 0
    assert (found[0].forecast is None) == (found[1].forecast is None)


def test_trap_2_entities_of_later_are_in_no_vocabulary(tmp_path):
    """Attributes of an entity whose first event comes after the range are not fitted on."""
    directory = write_shop(tmp_path, customers=20)
    table, people = table_of(directory), directory / "customers.parquet"
    new = {"customer_id": "later", "t_dat": LATER_DAY, "article_id": 1003, "price": 1.0}
    for name, value in {**new, "channel": 1}.items():
        table[name].append(value)
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    known = pq.read_table(people).to_pydict()
    for name, value in {"customer_id": "later", "age": 900, "club": "platinum"}.items():
        known[name].append(value)
    pq.write_table(pa.table(known), people)
    store, representation = fitted(directory)
    assert "later" in store.entity_ids.tolist()
    by_name = {field.column: field for field in representation.attributes}
    assert sorted(by_name["club"].values) == ["gold", "silver"]
    assert max(by_name["age"].edges) < np.log1p(100)


def test_trap_2_testing_on_time_that_training_saw_is_said(shop, tmp_path, caplog):
    """A test before the end of the training range warns, and its result says by how many days."""
    config = write_config(tmp_path, shop_config(shop[0], epochs=1))
    pretrain(config, tmp_path / "fm")
    module = load_from_foundation_model(tmp_path / "fm", BinaryClassificationTask(), stays_away)
    module.fit(TrainingParams(checkpoint_dir=tmp_path / "churn", epochs=1, limit_train_batches=2))
    with caplog.at_level(logging.WARNING, "monad"):
        leaky = module.test(TestingParams(output_type="decoded", prediction_date="2020-05-28"))
        assert "LEAK: the test's split point" in caplog.text
        caplog.clear()
        honest = module.test(TestingParams(output_type="decoded"))
        module.predict(TestingParams(output_type="decoded", prediction_date="2020-08-01"))
        assert "LEAK" not in caplog.text
        module.predict(TestingParams(output_type="decoded", prediction_date="2020-05-28"))
        assert "LEAK: the prediction date, 2020-05-28, lies 6" in caplog.text
        caplog.clear()
    assert leaky["test_seen_by_training_days"] == pytest.approx(62, abs=1)
    assert "LEAK" not in caplog.text
    assert "test_seen_by_training_days" not in honest


def snapshot_values(directory, dated):
    """A configuration with an attribute table that was changed after the training range."""
    values = shop_config(directory)
    people = values["data_sources"][2]
    people["data_location"] = location(directory / "snapshot.parquet")
    if dated:
        people["date_column"] = {"name": "changed"}
    return values


def test_trap_3_snapshots_of_later_are_said_or_read_as_of_then(shop, tmp_path, caplog):
    """A status written after the range warns; with a date_column the older status is read."""
    directory = write_shop(tmp_path, customers=30)
    ids = [f"c{i:03d}" for i in range(30)]
    old = {"customer_id": ids, "status": [["a", "b"][i % 2] for i in range(30)]}
    stamps = [np.datetime64(f"2020-{day}") for day in ("02-01", "01-01", "08-20")]
    table = {
        "customer_id": old["customer_id"] * 3,
        "status": old["status"]
        + ["older"] * 30
        + ["left" if i % 3 == 0 else "here" for i in range(30)],
        "changed": pa.array(np.repeat(stamps, 30)),
    }
    pq.write_table(pa.table(table), directory / "snapshot.parquet")
    with caplog.at_level(logging.WARNING, "monad"):
        stored(directory, snapshot_values(directory, dated=False))
    assert "LEAK? Attribute source customers was changed after the training range" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "monad"):
        _, store, _ = stored(directory, snapshot_values(directory, dated=True))
    assert "LEAK" not in caplog.text
    column = store.attributes[0].columns[0]
    assert column.values(slice(0, 4)).tolist() == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("dates", "text"),
    [
        ({"test_start_date": "2020-07-28"}, "training_end_date and test_start_date overlap"),
        (
            {"validation_start_date": "2020-07-28", "test_start_date": None, "test_end_date": None},
            "training_end_date and validation_start_date overlap",
        ),
        (
            {"validation_start_date": "2020-07-29", "validation_end_date": "2020-08-05",
             "test_start_date": "2020-08-05"},
            "validation_end_date and test_start_date overlap",
        ),
    ],
)  # fmt: skip
def test_trap_4_ranges_of_time_do_not_overlap(shop, dates, text):
    """A day cannot be in two ranges, so that nobody's later events are trained on."""
    values = shop_config(shop[0])
    values["data_params"] |= dates
    with pytest.raises(ValueError, match=text):
        parse_config(values)


def test_trap_4_training_labels_end_with_the_training_range(shop, tmp_path):
    """Other entities' events after the range are in no label of training, time-split or not."""
    _, store, _ = stored(shop[0])
    latest = []

    def spy(history, future, attributes, ctx):
        latest.extend(future["transactions"].timestamps[-1:])
        return None

    everyone = np.arange(store.num_entities)
    labeler = Labeler(store, spy, BinaryClassificationTask(), END, DataMode.TRAIN)
    labeler.label(everyone, np.full(len(everyone), to_timestamp("2020-05-01")))
    assert max(latest) <= END < store.last_time


def test_trap_5_ties_are_broken_by_the_order_of_the_rows(shop, tmp_path):
    """Events of one time keep the file's order, whatever the number of threads."""
    directory = write_shop(tmp_path, customers=8)
    table = table_of(directory)
    table["t_dat"] = [table["t_dat"][0]] * len(table["t_dat"])
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    found = []
    for threads in (1, 2, 4):
        _, store, _ = stored(directory, threads=threads)
        found.append(np.asarray(store.tables[0].values("price", slice(None))))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    owners = np.array(table["customer_id"])
    wanted = np.concatenate([np.array(table["price"])[owners == c] for c in np.unique(owners)])
    assert np.array_equal(found[0], wanted)


def test_trap_5_rows_without_an_order_are_ordered_by_their_values(tmp_path, monkeypatch):
    """A source whose rows come in any order, as Snowflake's do, reads the same every time."""
    landed = sources.land
    monkeypatch.setattr(
        ingest, "land", lambda *given: dataclasses.replace(landed(*given), stable_order=False)
    )
    random = np.random.default_rng(0)
    found = []
    for name in ("one", "two"):
        directory = write_shop(tmp_path / name, customers=8)
        table = table_of(directory)
        table["t_dat"] = [table["t_dat"][0]] * len(table["t_dat"])
        order = random.permutation(len(table["t_dat"]))
        shuffled = {key: [values[i] for i in order] for key, values in table.items()}
        pq.write_table(pa.table(shuffled), directory / "transactions.parquet")
        _, store, _ = stored(directory)
        found.append([store.tables[0].values(c, slice(None)) for c in ("article_id", "price")])
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.fixture(scope="module")
def recommender(shop, tmp_path_factory):
    """A trained recommendation on the shop."""
    directory = tmp_path_factory.mktemp("items")
    pretrain(write_config(directory, shop_config(shop[0], epochs=1)), directory / "fm")
    module = load_from_foundation_model(directory / "fm", RecommendationTask(), next_items)
    module.fit(TrainingParams(checkpoint_dir=directory / "items", epochs=1))
    return directory


def lists(directory, module, top_k):
    """Predicted lists by entity."""
    file = directory / f"top{top_k}" / "predictions.tsv"
    module.predict(
        TestingParams(
            output_type="decoded",
            top_k=top_k,
            prediction_date="2020-07-28T23:59:59",
            local_save_location=file,
        )
    )
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:]]
    return {row[0]: [item for item in row[1 : 1 + top_k] if item] for row in rows}


def test_trap_6_metrics_rank_the_whole_catalogue(shop, recommender):
    """HR@5 of `test` is the one counted by hand from lists of every item; none is sampled."""
    module = load_from_checkpoint(recommender / "items", target_fn=next_items)
    full = lists(recommender, module, 24)
    assert all(len(items) == len(set(items)) == 24 for items in full.values())
    table = table_of(shop[0])
    wanted: dict[str, set[str]] = {}
    for who, day, item in zip(
        table["customer_id"], table["t_dat"], table["article_id"], strict=True
    ):
        if np.datetime64("2020-07-28") < np.datetime64(day) <= np.datetime64("2020-08-27"):
            wanted.setdefault(who, set()).add(str(item))
    hits = [bool(set(full[who][:5]) & items) for who, items in wanted.items() if who in full]
    found = module.test(
        TestingParams(
            output_type="decoded", top_k=5, metrics=[MetricParams("HR", kwargs={"top_k": 5})]
        )
    )
    assert found["test_HR@5_0"] == pytest.approx(np.mean(hits))
    assert found["test_HR_0"] == pytest.approx(np.mean(hits))
    assert not any("sample" in name for name in CATALOGUE["recommendation"])


def test_trap_7_items_bought_before_are_recommended_again(shop, recommender):
    """Seen items are not filtered: people buy again, and a target function may mask them."""
    module = load_from_checkpoint(recommender / "items", target_fn=next_items)
    table = table_of(shop[0])
    bought: dict[str, set[str]] = {}
    for who, item in zip(table["customer_id"], table["article_id"], strict=True):
        bought.setdefault(who, set()).add(str(item))
    top = lists(recommender, module, 4)
    repeated = np.mean([len(set(items) & bought[who]) / 4 for who, items in top.items()])
    assert repeated > 0.5


@pytest.mark.parametrize("unit", [1, 3600, 86_400])
def test_trap_8_the_time_to_the_next_event_is_no_input(tmp_path, unit, caplog):
    """A derived next gap, in any unit, and a copy of the next event's item are found and left out."""
    directory = write_shop(tmp_path, customers=40)
    table = table_of(directory)
    days = np.array([np.datetime64(d) for d in table["t_dat"]]).astype("datetime64[s]").astype(int)
    same = np.array(table["customer_id"][1:]) == np.array(table["customer_id"][:-1])
    gap = np.append(np.where(same, days[1:] - days[:-1], 0), 0) / unit
    gap[~np.append(same, False)] = np.nan
    table["until_next"] = gap.tolist()
    table["coming"] = [
        item if here else None
        for item, here in zip([*table["article_id"][1:], None], [*same, False], strict=True)
    ]
    table["since_last"] = np.insert(gap[:-1], 0, np.nan).tolist()
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    with caplog.at_level(logging.WARNING, "monad"):
        _, store, plans = stored(directory)
    by_name = {plan.name: plan for plan in plans["transactions"]}
    assert by_name["until_next"].reason == "is the time to the entity's next event"
    assert by_name["coming"].reason == "repeats `article_id` of the entity's next event"
    left = {name for name, plan in by_name.items() if not plan.modelled}
    assert left == {"until_next", "coming"}
    assert caplog.text.count("LEAK: column transactions.") == 2
    assert "until_next" in store.tables[0].column_names()  # target functions may use it


@pytest.mark.parametrize(
    "spelled",
    [
        lambda now, gap: -gap / 86_400,
        lambda now, gap: gap / (7 * 86_400),
        lambda now, gap: now + gap,
        lambda now, gap: 1000 * (now + gap),
    ],
    ids=["negative days", "weeks", "its time", "its time in milliseconds"],
)
def test_trap_8_other_spellings_of_the_next_event_are_found(tmp_path, spelled):
    """The time to the next event with the other sign, in weeks, or as a point in time."""
    random = np.random.default_rng(0)
    now = np.cumsum(random.integers(1, 40, (40, 12)), axis=1) * 86_400.0
    gap = np.diff(now, axis=1, append=now[:, -1:] + 86_400)
    values = configured(
        tmp_path,
        {
            "id": np.repeat([f"e{i}" for i in range(40)], 12),
            "at": days(now.reshape(-1) / 86_400),
            "kind": random.choice(list("abc"), now.size).tolist(),
            "since": np.diff(now, axis=1, prepend=now[:, :1]).reshape(-1).tolist(),
            "coming": spelled(now + to_timestamp("2020-01-01"), gap).reshape(-1).tolist(),
        },
    )
    _, plans = build_store(parse_config(values), to_timestamp("2021-01-01"))
    reasons = {plan.name: plan.reason for plan in plans["events"]}
    assert reasons["coming"] == "is the time to the entity's next event"
    assert reasons["since"] == ""


def test_trap_8_is_looked_for_in_the_training_range_alone(tmp_path):
    """A column that becomes the time to the next event later is not judged by that."""
    random = np.random.default_rng(0)
    people, early, late = 60, 2, 200
    times = np.concatenate([[10, 40], 230 + 3 * np.arange(late)]).astype(float)
    gaps = np.diff(times, append=times[-1] + 3)
    numbers = np.tile(gaps, people)
    seen = np.tile(np.arange(early + late) < early, people)
    numbers[seen] = random.random(seen.sum()) * 500
    values = configured(
        tmp_path,
        {
            "id": np.repeat([f"e{i}" for i in range(people)], early + late),
            "at": days(np.tile(times, people)),
            "kind": random.choice(list("abc"), len(numbers)).tolist(),
            "number": numbers.tolist(),
        },
    )
    _, plans = build_store(parse_config(values), END)
    assert {plan.name: plan.reason for plan in plans["events"]}["number"] == ""


def test_trap_8_a_planted_gap_does_not_make_the_scores_better(tmp_path, monkeypatch):
    """AUROC of churn with the planted column is no better than without; unguarded it would be."""
    scores = {}
    for case in ("clean", "planted", "unguarded"):
        directory = write_shop(tmp_path / case, customers=60)
        if case != "clean":
            table = table_of(directory)
            days = np.array([np.datetime64(d) for d in table["t_dat"]])
            same = np.array(table["customer_id"][1:]) == np.array(table["customer_id"][:-1])
            ahead = np.where(same, (days[1:] - days[:-1]).astype(int), 400)
            table["until_next"] = [*ahead.astype(float).tolist(), 400.0]
            pq.write_table(pa.table(table), directory / "transactions.parquet")
        if case == "unguarded":
            monkeypatch.setattr(ingest, "leave_out_leaks", lambda *_: None)
        pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
        module = load_from_foundation_model(
            directory / "fm", BinaryClassificationTask(), stays_away
        )
        module.fit(TrainingParams(epochs=5, learning_rate=5e-3, checkpoint_dir=directory / "churn"))
        scores[case] = module.test(TestingParams(output_type="decoded"))["test_auroc_0"]
    assert scores["planted"] <= scores["clean"] + 0.02
    assert scores["unguarded"] > scores["planted"] + 0.05


def test_trap_9_what_is_tested_changes_no_weight(shop, tmp_path):
    """With all of the test range made up anew, pretraining and fine-tuning give the same bits."""
    weights = []
    for directory in shop:
        config = write_config(directory, shop_config(directory, epochs=1, precision=32))
        out = tmp_path / directory.name
        pretrain(config, out / "fm")
        module = load_from_foundation_model(out / "fm", BinaryClassificationTask(), stays_away)
        module.fit(TrainingParams(checkpoint_dir=out / "churn", epochs=1, limit_train_batches=3))
        content = torch.load(out / "churn" / "best_model.ckpt", weights_only=True)
        weights.append({**content["network"], **content["head"]})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_comes_later_changes_no_prediction(shop, tmp_path):
    """Trained and asked at the end of the range, both shops predict the same to the last digit."""
    found: list[list[str]] = []
    for directory in shop:
        out = tmp_path / directory.name
        values = shop_config(directory, epochs=1, limit_train_batches=3)
        pretrain(write_config(directory, values), out / "fm")
        lines: list[str] = []
        for task, function in (
            (BinaryClassificationTask(), stays_away),
            (RegressionTask(), amount_of_next),
            (RecommendationTask(), bought_later),
        ):
            module = load_from_foundation_model(out / "fm", task, function)
            module.fit(TrainingParams(epochs=1, limit_train_batches=3))
            file = out / task.kind / "predictions.tsv"
            module.predict(
                TestingParams(
                    output_type="decoded",
                    prediction_date="2020-07-28T23:59:59",
                    local_save_location=file,
                )
            )
            lines += sorted(file.read_text().splitlines())
        found.append(lines)
    assert len(found[0]) == 3 * 51
    assert found[0] == found[1]


def bought_later(history, future, attributes, ctx):
    """What is bought in the next four weeks: not the next item alone, so pairs are ranked."""
    items = future.interval_from(ctx["SPLIT_TIMESTAMP"], dt.timedelta(days=28))["transactions"]
    return sketch(items["article_id"]) if len(items) else None


def test_what_a_budget_trains_on_ends_with_the_range(shop, tmp_path):
    """Histories of pretraining, and counts of what follows what, know nothing of later."""
    counts = []
    for directory in shop:
        out = tmp_path / directory.name
        store, representation = fitted(directory)
        reader = RowReader(store, representation, 16)
        budget = TrainingParams(time_budget_seconds=2, accelerator="cpu", seed=0)
        for params in (budget, TrainingParams(accelerator="cpu")):
            config = parse_config(shop_config(directory))
            parts = _histories(config, reader, END, params)[:2]
            assert max(store.stream.times[part.end - 1].max() for part in parts) <= END
        values = shop_config(directory, epochs=1, limit_train_batches=3)
        pretrain(write_config(directory, values), out / "fm")
        module = load_from_foundation_model(out / "fm", RecommendationTask(), next_one)
        module.fit(budget)
        assert module.next_item
        assert isinstance(module.head, NextItemHead)
        counts.append(module.head.followers.state_dict())
    counts = [{k: v for k, v in found.items() if k != "weight"} for found in counts]
    assert float(counts[0]["strength"].sum()) > 0
    assert all(torch.equal(counts[0][name], counts[1][name]) for name in counts[0])


def next_one(history, future, attributes, ctx):
    """The very next item."""
    items = future["transactions"]["article_id"]
    return sketch(items[:1]) if len(items) else None


def test_trap_10_a_weak_order_is_said(tmp_path, caplog):
    """Entities whose events nearly all share a time are said to have no sequence; others are not."""
    directory = write_shop(tmp_path, customers=20)
    with caplog.at_level(logging.WARNING, "monad"):
        stored(directory)
    assert "at one or two times" not in caplog.text
    table = table_of(directory)
    table["t_dat"] = [day.replace(day=1, month=1 + day.month // 12) for day in table["t_dat"]]
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    with caplog.at_level(logging.WARNING, "monad"):
        stored(directory)
    assert "have them all at one or two times" in caplog.text


def test_trap_11_new_and_empty_entities_are_scored_or_named(shop, tmp_path, caplog):
    """An entity first seen after training gets a prediction; one without history is counted."""
    directory = write_shop(tmp_path, customers=30)
    table = table_of(directory)
    table["customer_id"] += ["new", "later"]
    table["t_dat"] += [np.datetime64("2020-08-01").item(), np.datetime64("2020-08-25").item()]
    table["article_id"] += [1001, 999_999]
    table["price"] += [3.0, 4.0]
    table["channel"] += [1, 2]
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    pretrain(write_config(directory, shop_config(directory, epochs=1)), directory / "fm")
    module = load_from_foundation_model(directory / "fm", RegressionTask(), amount_of_next)
    module.fit(TrainingParams(epochs=1, limit_train_batches=2, checkpoint_dir=directory / "x"))
    file = tmp_path / "p" / "predictions.tsv"
    with caplog.at_level(logging.WARNING, "monad"):
        module.predict(
            TestingParams(
                output_type="decoded",
                prediction_date="2020-08-10",
                local_save_location=file,
                entity_ids=EntityIds(ids=["new", "later", "nobody", "c001"]),
            )
        )
    assert [line.split("\t")[0] for line in file.read_text().splitlines()[1:]].count("new") == 1
    assert {line.split("\t")[0] for line in file.read_text().splitlines()[1:]} == {"new", "c001"}
    assert "1 of the entity_ids have no event at or before" in caplog.text
    assert "1 of 4 entity_ids are not in the data, such as nobody" in caplog.text


def amount_of_next(history, future, attributes, ctx):
    """What is spent from now on."""
    return np.array([future["transactions"].sum("price")], dtype=np.float32)


def test_trap_12_truncated_windows_are_left_out(shop, caplog):
    """A window longer than what is left gives no row, even where the function does not check."""
    _, store, _ = stored(shop[0])
    everyone = np.arange(store.num_entities)
    task = BinaryClassificationTask()
    for days_left, kept in ((40, True), (10, False)):
        stamps = np.full(len(everyone), END - days_left * 86_400)
        with caplog.at_level(logging.WARNING, "monad"):
            rows = Labeler(store, unchecked, task, END, DataMode.TRAIN).label(everyone, stamps)
        assert bool(len(rows)) is kept
        assert ("windows are cut short" in caplog.text) is not kept


def test_trap_12_functions_with_and_without_the_check_train_alike(shop):
    """Leaving truncated rows out gives the rows that the documented check gives."""
    from monad.training.rows import latest_split

    _, store, _ = stored(shop[0])
    everyone = np.arange(store.num_entities)
    found = [
        latest_split(
            Labeler(store, function, BinaryClassificationTask(), END, DataMode.TRAIN),
            everyone,
            np.random.default_rng(0),
        )
        for function in (stays_away, unchecked)
    ]
    assert found[0] == found[1] == END - 28 * 86_400


def test_a_store_of_a_configuration_is_read_once(shop):
    """The cache key holds the end of the training range, which bounds what is profiled."""
    config = load_config(write_config(shop[0], shop_config(shop[0])))
    first, _ = open_store(config, END)
    again, _ = open_store(config, END)
    other, _ = open_store(config, LATER)
    assert first is again
    assert other is not first
