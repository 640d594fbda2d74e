"""The peers on made data: lists without duplicates, candidates that cannot see the future."""

from dataclasses import replace

import numpy as np
import pytest

from bench.evaluation import definitions as d
from bench.evaluation.events import DAY
from bench.evaluation.methods import load_method
from bench.evaluation.methods.base import Effort
from bench.evaluation.metrics import auroc, ranking_metrics
from tests.unit.evaluation.logs import START, made_log

pytest.importorskip("scipy")

CUTOFF = START + 190 * DAY
CHURN = d.Task("churn", "binary", 20, active_days=60)
SPEND = d.Task("spend", "regression", 20, active_days=60)
ITEMS = d.Task("items", "recommendation", 20, active_days=60)
QUICK = Effort(seed=1, quick=True, num_threads=1)


def answer(name: str, task: d.Task, log=None):
    """Return a problem on made data with a method's prediction."""
    log = made_log(200) if log is None else log
    problem = d.build_problem("made", log, task, CUTOFF)
    return problem, d.truth(log, problem), load_method(name).predict(problem, QUICK)


@pytest.mark.parametrize("name", ["popularity", "most-bought"])
def test_lists_are_full_and_distinct(name):
    """Each list holds k different known items."""
    problem, _, prediction = answer(name, ITEMS)
    assert prediction.values.shape == (len(problem.population), 12)
    assert all(len(set(row)) == 12 for row in prediction.values.tolist())
    assert prediction.values.min() >= 0


def test_own_items_beat_popular_ones_where_people_repeat():
    """Bought-then-popular is ahead of popularity on data made of repeats."""
    scores = {}
    for name in ("popularity", "most-bought"):
        problem, answers, prediction = answer(name, ITEMS)
        scores[name] = ranking_metrics(prediction.values, answers.bought, problem.log.num_items)
    assert scores["most-bought"]["map@12"] > scores["popularity"]["map@12"]


def test_lightgbm_learns_churn():
    """Boosted trees on aggregates are ahead of chance, and their answers are probabilities."""
    pytest.importorskip("lightgbm")
    _, answers, prediction = answer("lightgbm", CHURN)
    assert auroc(answers.target, prediction.values) > 0.6
    assert 0 <= prediction.values.min() <= prediction.values.max() <= 1


def test_lightgbm_repeats_itself():
    """The same seed gives the same spend to the last digit."""
    pytest.importorskip("lightgbm")
    first, second = (answer("lightgbm", SPEND)[2].values for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_ranker_is_ahead_of_popularity():
    """The two-stage ranker beats popularity on made repeats."""
    pytest.importorskip("lightgbm")
    problem, answers, prediction = answer("lightgbm-ranker", ITEMS)
    popular = answer("popularity", ITEMS)[2]
    ranked, base = (
        ranking_metrics(p.values, answers.bought, problem.log.num_items)["map@12"]
        for p in (prediction, popular)
    )
    assert ranked > base


def test_candidates_do_not_see_the_future():
    """Planted purchases after the timestamp change no candidate and no feature."""
    from bench.evaluation.candidates import candidate_pairs

    log = made_log()
    after = log.time > CUTOFF
    planted = replace(
        log, item=np.where(after, 0, log.item), amount=np.where(after, 1e9, log.amount)
    )
    who = np.unique(log.entity[~after]).astype(np.int64)
    before, now = (candidate_pairs(x, who, CUTOFF) for x in (log, planted))
    np.testing.assert_array_equal(before.item, now.item)
    np.testing.assert_allclose(before.values, now.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["popularity", "als"])
def test_leave_one_out_recommends_nothing_seen(name):
    """With seen items filtered no list holds an item of the history."""
    if name == "als":
        pytest.importorskip("implicit")
    problem, _ = d.leave_one_out("made", made_log())
    lists = load_method(name).predict(problem, QUICK).values
    for row, entity in enumerate(problem.population):
        seen = set(problem.log.item[problem.log.entity == entity].tolist())
        assert not seen & set(lists[row][lists[row] >= 0].tolist())


def test_unknown_method_is_named():
    """A misspelt method is an error that lists the known ones."""
    with pytest.raises(ValueError, match="Known: recency"):
        load_method("lightgmb")
