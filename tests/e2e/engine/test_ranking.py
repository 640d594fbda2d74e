"""Recommendations: never worse than their start, and good where nothing is taken twice."""

import logging

import pytest
import torch

from monad.config import TestingParams, TrainingParams
from monad.model.items import ItemHead
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
