"""Training rows are read once, as many as a budget leaves time for."""

import time

import numpy as np
import pytest

from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.tasks import BinaryClassificationTask
from monad.training import scenario
from monad.training.rows import Rows
from tests.unit.engine.sample import shop_config, write_shop


@pytest.mark.parametrize(("late", "kept"), [(None, 25), (60.0, 25), (-1.0, 10)])
def test_rows_are_read_until_the_time_is_up(tmp_path, monkeypatch, late, kept):
    """Without a limit all are; past it the first part is, and those rows alone are trained on."""
    monkeypatch.setattr(scenario, "_PREPARED_AT_ONCE", 10)
    store, plans = build_store(parse_config(shop_config(write_shop(tmp_path))), None)
    limits = MemoryConstrainingParams()
    representation = fit_representation(store, plans, store.last_time, limits, seed=0)
    reader = RowReader(store, representation, 16)
    entities = np.arange(25) % store.num_entities
    stamps = np.linspace(store.first_time, store.last_time, 25).astype(np.int64)
    rows = Rows(entities, stamps, np.arange(25.0)[:, None])
    batches = scenario.ScenarioBatches(reader, BinaryClassificationTask(), -1, 4_096)
    until = None if late is None else time.monotonic() + late
    read = batches.prepare(rows, until)
    np.testing.assert_array_equal(read.targets, rows.targets[:kept])
    expected = reader.aggregates.read(entities[:kept], stamps[:kept])
    np.testing.assert_array_equal(batches.aggregates(read, np.arange(kept)), expected)
    taken = [batch["target"] for batch in batches.epoch(read, (0, 0), 4)]
    assert sorted(np.concatenate(taken)[:, 0].tolist()) == list(range(kept))
