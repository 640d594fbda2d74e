"""Recommendations: never worse than their start, and good where nothing is taken twice."""

import logging

import numpy as np
import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.model.items import ItemHead
from monad.targets import sketch
from monad.training import pretraining
from monad.training.ranking import clearly_less
from monad.ui import pretrain
from monad.ui.module import RecommendationTask, load_from_foundation_model
from tests.e2e.engine.test_flow import next_items
from tests.unit.engine.sample import shop_config, write_config, write_shop


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A foundation model of the shop."""
    shop = write_shop(tmp_path_factory.mktemp("shop"), customers=300)
    pretrain(write_config(shop, shop_config(shop, time_budget_seconds=4)), shop / "fm")
    return shop / "fm"


def next_item(history, future, attributes, ctx):
    items = future["transactions"]["article_id"][:1]
    return sketch(items, np.ones(len(items))) if len(items) else None


def test_a_network_that_more_training_harms_stays_as_pretrained(foundation, monkeypatch, caplog):
    """Held-out last events decide between the foundation model's weights and the scenario's."""
    right = pretraining.next_item_loss
    monkeypatch.setattr(pretraining, "next_item_loss", lambda *args: -right(*args))
    module = load_from_foundation_model(foundation, RecommendationTask(), next_item)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="monad.run"):
        module.fit(TrainingParams(time_budget_seconds=60, epochs=5, learning_rate=0.05))
    assert "whose weights are the foundation model's" in caplog.text
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_only_a_clear_difference_gives_a_training_up():
    """A few rows that rank worse by chance are no reason to throw the training away."""
    random = np.random.default_rng(0)
    start = random.random(130)
    assert not clearly_less(start + random.normal(-0.005, 0.1, 130), start)
    assert clearly_less(start + random.normal(-0.05, 0.1, 130), start)
    assert not clearly_less(np.zeros(0), np.zeros(0))


def test_a_training_that_ranks_worse_is_given_up(foundation, monkeypatch, caplog):
    """When learning made the order of the validation rows worse, the start is kept and said so."""
    right = ItemHead.loss
    monkeypatch.setattr(ItemHead, "loss", lambda *args: -right(*args))
    module = load_from_foundation_model(foundation, RecommendationTask(), next_items)
    made = []
    make_head = module.make_head

    def recorded():
        made.append(make_head())
        return made[-1]

    monkeypatch.setattr(module, "make_head", recorded)
    starts = []
    start_from = ItemHead.start_from

    def noted(head, targets):
        start_from(head, targets)
        starts.append({name: value.clone() for name, value in head.state_dict().items()})

    monkeypatch.setattr(ItemHead, "start_from", noted)
    with caplog.at_level(logging.INFO, logger="monad.run"):
        module.fit(TrainingParams(time_budget_seconds=6, learning_rate=0.05))
    assert "the start is kept" in caplog.text
    assert all(torch.equal(value, starts[0][name]) for name, value in made[0].state_dict().items())


def test_a_ranking_is_about_as_good_as_naming_what_was_taken_most(foundation):
    """On data of habits the engine's order reaches the most-taken items' within a few per cent."""
    module = load_from_foundation_model(foundation, RecommendationTask(), next_items)
    module.fit(TrainingParams(time_budget_seconds=6))
    found = module.test(TestingParams(output_type="decoded", top_k=5))
    baseline = found["test_baseline_most_bought_MAP@5_0"]
    assert found["test_MAP@5_0"] >= 0.9 * baseline
