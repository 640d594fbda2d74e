"""Training on a GPU; skipped where there is none (continuous integration has none).

Run it where one is: `python -m pytest tests/e2e/engine/test_gpu.py`.
"""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monad.config import EntityIds, OutputType, TestingParams, TrainingParams
from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.data.batches import RowReader
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.logs import run_logger
from monad.model.following import Softmax
from monad.model.network import Network, Size
from monad.targets import sketch
from monad.training.pretraining import NextItemModule
from monad.training.ranks import gpu_present
from monad.training.sequences import SequenceBatches, histories
from monad.training.streams import Plan
from monad.ui import pretrain
from monad.ui.module import RecommendationTask, load_from_foundation_model
from tests.e2e.engine.test_tasks import TASKS
from tests.unit.engine.sample import shop_config, write_config, write_shop

pytestmark = pytest.mark.skipif(not gpu_present(), reason="no GPU")
CUTOFF = "2020-07-01"


def next_item(history, future, attributes, ctx):
    items = future["transactions"]["article_id"][:1]
    return sketch(items, np.ones(len(items))) if len(items) else None


def answers(module, folder, **fields):
    """Train a scenario on the GPU and return the lines of its predictions."""
    module.fit(
        TrainingParams(checkpoint_dir=folder / "sc", time_budget_seconds=6.0, accelerator="gpu")
    )
    module.predict(
        TestingParams(
            output_type=OutputType.DECODED,
            local_save_location=folder / "p.tsv",
            prediction_date=CUTOFF,
            **fields,
        )
    )
    return (folder / "p.tsv").read_text().splitlines()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader of the shop."""
    directory = write_shop(tmp_path_factory.mktemp("shop"), customers=300)
    store, plans = build_store(parse_config(shop_config(directory)), None)
    representation = fit_representation(
        store, plans, store.last_time, MemoryConstrainingParams(), seed=0
    )
    return RowReader(store, representation, 24)


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_a_captured_step_has_the_loss_and_gradients_of_a_plain_one(reader, half):
    """For each shape, for full and filled-up batches, a graph gives what launching one by one does."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    network = Network(reader.representation, Size(32, 2, 2, 32, 0.0, 24))
    plan = Plan(1, 1, 1e-3, None, 0.0, "Test")
    position = reader.representation.item_field()
    module = NextItemModule(network, plan, position, Softmax(), run_logger)
    whole = histories(reader, np.arange(reader.store.num_entities), reader.store.last_time)
    train, checks = (SequenceBatches(reader, whole, 400, 64) for _ in range(2))
    module.cut_on_device(reader, train, checks)
    assert len(module.shapes) > 1
    module.to(device).train()
    module.make_graphs(device, half)
    columns = module.columns(device)
    limits = (2e-2, 2e-3) if half else (1e-3, 1e-5)
    for batch in list(train.epoch((0, 0)))[:8]:
        found = module.training_step(module.transfer_batch_to_device(batch, device, 0), 0)
        module.backward(found)
        got = [p.grad.clone() for p in network.blocks.parameters()]
        module.zero_grad()
        with torch.autocast("cuda", half, enabled=half is not None):
            wanted = module._sequence_loss(columns.sequences(batch))
        wanted.backward()
        torch.testing.assert_close(found, wanted.detach(), rtol=limits[0], atol=limits[1])
        for mine, parameter in zip(got, network.blocks.parameters(), strict=True):
            torch.testing.assert_close(mine, parameter.grad, rtol=10 * limits[0], atol=limits[1])
        module.zero_grad()


def test_training_steps_are_captured_and_fit_the_data(tmp_path, caplog):
    """Pretraining under a budget replays graphs, says nothing of a failed capture, and learns."""
    directory = write_shop(tmp_path, customers=2_000)
    values = shop_config(directory, time_budget_seconds=8.0, accelerator="gpu")
    with caplog.at_level(logging.INFO, logger="monad"):
        pretrain(write_config(directory, values), directory / "fm")
    said = "\n".join(caplog.messages)
    assert "could not be captured" not in said
    metrics = [getattr(record, "monad_metrics", {}) for record in caplog.records]
    losses = [made["val_loss"] for made in metrics if "val_loss" in made]
    assert min(losses) < np.log(24)  # of 24 items customers like four
    module = load_from_foundation_model(directory / "fm", RecommendationTask(), next_item)
    asked = EntityIds(ids=[f"c{i:03d}" for i in range(20)])
    assert len(answers(module, tmp_path, top_k=3, entity_ids=asked)) == 21


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A foundation model of the shop, trained on the GPU."""
    directory = write_shop(tmp_path_factory.mktemp("shop"), customers=200)
    values = shop_config(directory, time_budget_seconds=6.0, accelerator="gpu")
    pretrain(write_config(directory, values), directory / "fm")
    return directory


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_trains_and_predicts(foundation, tmp_path, name):
    """Each task's scenario is trained on the GPU and answers for all."""
    task, target_fn, _ = TASKS[name]
    module = load_from_foundation_model(foundation / "fm", task, target_fn)
    assert len(answers(module, tmp_path)) > 50


def test_texts_and_vectors_train_on_a_gpu(tmp_path):
    """Columns that are read on the CPU travel with batches of changing shape."""
    directory = write_shop(tmp_path, customers=120)
    path = directory / "transactions.parquet"
    table = pq.read_table(path)
    words = pa.array([f"note {i % 7} of {i % 3}" for i in range(len(table))])
    pq.write_table(table.append_column("note", words), path)
    values = shop_config(directory, time_budget_seconds=5.0, accelerator="gpu")
    for source in values["data_sources"]:
        if source["name"] == "transactions":
            source["column_type_overrides"] = {"note": "text"}
    pretrain(write_config(directory, values), directory / "fm")
    assert (directory / "fm" / "best_model.ckpt").is_file()
