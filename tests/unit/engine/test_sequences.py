"""Histories, what is held out of them, and target functions that ask for the next item."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.data.affinity import best_columns
from monad.data.batches import RowReader
from monad.data.device import DeviceColumns, shapes_for, windows
from monad.data.ingest import build_store
from monad.data.pairs import PairReader, feature_names
from monad.data.representation import fit_representation
from monad.logs import run_logger
from monad.model.following import Softmax
from monad.model.network import Network, Size
from monad.training.pretraining import (
    NextItemModule,
    PretrainHeads,
    PretrainModule,
    drawn_positions,
)
from monad.training.sequences import SequenceBatches, histories, hold_out_last
from monad.training.streams import Plan, TimedStream
from tests.unit.engine.sample import shop_config, write_shop


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader of the shop."""
    directory = write_shop(tmp_path_factory.mktemp("shop"))
    store, plans = build_store(parse_config(shop_config(directory)), None)
    limits = MemoryConstrainingParams()
    representation = fit_representation(store, plans, store.last_time, limits, seed=0)
    return RowReader(store, representation, 12)


def test_held_out_last_events_are_not_in_training_windows(reader):
    """The last event of a held-out history is the question and never an answer in training."""
    store = reader.store
    whole = histories(reader, np.arange(store.num_entities), store.last_time)
    train, validation = hold_out_last(whole, 10, seed=3)
    again, _ = hold_out_last(whole, 10, seed=3)
    assert len(validation) == 10
    assert (train.end == again.end).all()
    shortened = np.isin(train.entities, validation.entities)
    assert (train.end[shortened] == validation.end - 1).all()
    assert (train.end[~shortened] == whole.end[~shortened]).all()


def test_an_epoch_reads_every_history_within_the_window(reader):
    """Short histories are read whole; long ones in windows of the network's length."""
    store = reader.store
    whole = histories(reader, np.arange(store.num_entities), store.last_time)
    batches = SequenceBatches(reader, whole, tokens=100, rows=8)
    lengths = np.concatenate([b["length"].numpy() for b in batches.epoch((0, 0))])
    copies = np.minimum(-(-whole.counts // batches.window), 4)
    assert len(lengths) == copies.sum()
    assert lengths.max() <= batches.window
    assert (np.sort(lengths[lengths < batches.window])[:5] > 1).all()


def test_pair_features_do_not_know_the_future(reader):
    """Pairs at a split point are the same whether later events are there or not."""
    store = reader.store
    stamp = store.first_time + (store.last_time - store.first_time) // 2
    table = store.tables[0]
    pairs = PairReader(reader, reader.representation.item_field())
    everyone = np.arange(store.num_entities)
    before = pairs.pairs(everyone, stamp)
    after = np.asarray(table.times) > stamp
    assert after.any()
    other = PairReader(reader, reader.representation.item_field())
    other.codes = np.where(after, 2, other.codes)
    other.numbers = [np.where(after, 99.0, values) for values in other.numbers]
    other.history = type(other.history)(table, other.codes, other.numbers, other.num_items)
    changed = other.pairs(everyone, stamp)
    np.testing.assert_array_equal(before.rows, changed.rows)
    np.testing.assert_array_equal(before.items, changed.items)
    np.testing.assert_allclose(before.features, changed.features, rtol=1e-5, atol=1e-5)
    assert before.features.shape[1] == len(feature_names(len(pairs.numbers))[0])


def test_prepared_pairs_are_those_made_alone(reader):
    """Rows that were prepared together get what each would get by itself, in half precision."""
    store = reader.store
    stamp = store.last_time
    pairs = PairReader(reader, reader.representation.item_field())
    everyone = np.arange(store.num_entities)
    pairs.prepare(everyone, np.full(len(everyone), stamp))
    chosen = np.array([5, 3, 17])
    known, alone = pairs._known(chosen, stamp), pairs.pairs(chosen, stamp)
    assert known is not None
    np.testing.assert_array_equal(known.items, alone.items)
    np.testing.assert_allclose(known.features, alone.features, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("width", [50, 30_000])
def test_best_columns_keeps_the_largest_of_each_row(width):
    """Dense pieces and single rows agree with sorting."""
    from scipy import sparse

    random = np.random.default_rng(0)
    dense = random.random((6, 50)) * (random.random((6, 50)) < 0.6)
    wide = sparse.csr_matrix(np.pad(dense, ((0, 0), (0, width - 50))))
    kept = best_columns(wide, 10).toarray()[:, :50]
    for row, found in zip(dense, kept, strict=True):
        edge = np.sort(row)[-10]
        np.testing.assert_allclose(found, np.where(row >= max(edge, 1e-12), row, 0.0))


def test_a_timed_stream_ends_by_the_clock_and_goes_on_where_it_was(monkeypatch):
    """What the trainer takes for an epoch is a share of the budget, not a pass over the data."""
    clock = iter(np.arange(0.0, 1000.0))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    module: Any = SimpleNamespace(validation_seconds=0.0)
    plan = Plan(1, 1, 1e-3, deadline=200.0, started=0.0, label="", timed_epochs=True)
    stream = TimedStream(lambda epoch, skip: iter([(epoch, i) for i in range(8)]), plan, module)
    first, second = list(stream), list(stream)
    assert len(first) == len(second) == 11
    assert [*first, *second] == [(i // 8, i % 8) for i in range(22)]


def test_windows_cut_on_the_device_are_those_that_the_reader_makes(reader):
    """Columns on a device give the same batch as the reader, position by position."""
    whole = histories(reader, np.arange(reader.store.num_entities), reader.store.last_time)
    begin, end = whole.begin[:7], np.minimum(whole.end[:7], whole.begin[:7] + 9)
    expected = reader.sequences(begin, end)
    found = DeviceColumns(reader, torch.device("cpu")).sequences(windows(begin, end))
    assert set(found) == {name for name in expected if not name.startswith("dense")}
    assert found["complete"] == expected["complete"]
    here, there = found["valid"], expected["valid"]
    assert here.shape[1] % 8 == 0  # few different shapes
    torch.testing.assert_close(found["length"], expected["length"])
    for name in ("gaps", "weekday", "hour", "source", "numbers"):
        torch.testing.assert_close(found[name][here], expected[name][there], equal_nan=True)
    for left, right in zip(found["codes"], expected["codes"], strict=True):
        torch.testing.assert_close(left[here], right[there])
        after = found["followed"] + 1
        torch.testing.assert_close(left.flatten()[after], right.flatten()[expected["followed"] + 1])
        assert not left[~here].any()


def test_shapes_fit_all_windows_and_have_few_places_over():
    """Every window fits into a shape, and most places of full batches hold an event."""
    sizes = np.minimum(np.random.default_rng(0).geometric(1 / 40, 5_000) + 1, 201)
    shapes = shapes_for(sizes, 4_096, 512, 8)
    lengths = np.array([length for _, length in shapes])
    assert len(shapes) <= 8
    assert lengths[-1] >= sizes.max()
    assert all(rows * length <= 4_096 for rows, length in shapes)
    taken = lengths[np.searchsorted(lengths, sizes)]
    assert sizes.sum() / taken.sum() > 0.8


def test_an_epoch_of_shaped_batches_reads_every_window(reader):
    """Batches have one of the shapes; each history is there, hardly any of them twice."""
    whole = histories(reader, np.arange(reader.store.num_entities), reader.store.last_time)
    batches = SequenceBatches(reader, whole, 200, 16)
    batches.named = True
    plain = sum(int((batch["window_size"] > 0).sum()) for batch in batches.epoch((0, 0)))
    batches.fix_shapes()
    made = list(batches.epoch((0, 0)))
    assert {(len(b["window_begin"]), b["longest"]) for b in made} <= set(batches.shapes)
    read = [
        int(a) for b in made for a, n in zip(b["window_begin"], b["window_size"], strict=True) if n
    ]
    assert plain <= len(read) < 1.3 * plain
    assert set(np.searchsorted(whole.begin, read, side="right")) == set(range(1, len(whole) + 1))


def sequence_module(reader, side):
    """A module that learns the next item on the CPU, with columns as on a device."""
    torch.manual_seed(0)
    network = Network(reader.representation, Size(16, 1, 2, 16, 0.0, 12))
    plan = Plan(1, 1, 1e-3, None, 0.0, "Test")
    position = reader.representation.item_field()
    if side:
        heads = PretrainHeads(reader.representation, network)
        return PretrainModule(network, heads, plan, Softmax())
    return NextItemModule(network, plan, position, Softmax(), run_logger)


def test_a_loss_by_weight_is_the_loss_of_the_same_windows(reader):
    """Filled-up batches of a fixed shape have the loss and gradients of batches as they come."""
    module = sequence_module(reader, side=False)
    whole = histories(reader, np.arange(6), reader.store.last_time)
    size = np.minimum(whole.end - whole.begin, 13)
    columns = DeviceColumns(reader, torch.device("cpu"))
    fill = np.zeros(3, dtype=np.int64)
    begin, size = np.concatenate([whole.begin, fill]), np.concatenate([size, fill])
    cut = columns.cut(torch.from_numpy(begin), torch.from_numpy(size), 16)
    found = module._loss_by_weight(cut)
    wanted = module._sequence_loss(columns.sequences(windows(begin[:-3], (begin + size)[:-3])))
    torch.testing.assert_close(found, wanted)
    at = module.network.following.predicted.index(module.position)
    weights = [module.network.following.queries[at].weight, *module.network.blocks.parameters()]
    for one, other in zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_smaller_losses_by_weight_are_finite_and_reach_their_heads(reader):
    """Numbers, gaps and other fields learn from a filled-up batch, also from one without events."""
    module = sequence_module(reader, side=True)
    columns = DeviceColumns(reader, torch.device("cpu"))
    for sizes in ([5, 9, 0], [0, 0, 0]):
        begin = torch.from_numpy(np.array([0, 5, 0]))
        module._loss_by_weight(columns.cut(begin, torch.tensor(sizes), 16)).backward()
    gap = module.heads.gap.weight.grad
    assert torch.isfinite(gap).all()
    assert gap.abs().sum() > 0


def test_positions_are_drawn_evenly_from_events_that_have_a_follower():
    """No place is a row's last event, and rows are drawn by how many events they have."""
    torch.manual_seed(0)
    rows, places = drawn_positions(torch.tensor([1, 4, 0, 7, 0]), 9_000)
    assert set(rows.tolist()) == {1, 3}
    assert set(places[rows == 1].tolist()) == {0, 1, 2}
    assert set(places[rows == 3].tolist()) == set(range(6))
    assert abs(float((rows == 1).float().mean()) - 3 / 9) < 0.03
