"""The definitions: strict time, populations, labels and the guards against leaks."""

from dataclasses import replace

import numpy as np
import pytest

from bench.evaluation import definitions as d
from bench.evaluation.events import DAY, build_log
from tests.unit.evaluation.logs import START, made_log, tiny_log

CUTOFF = START + 9 * DAY
CHURN = d.Task("churn", "binary", 10, active_days=5)
SPEND = d.Task("spend", "regression", 10, active_days=5)
ITEMS = d.Task("items", "recommendation", 10, active_days=5)


def test_event_on_the_cutoff_is_history():
    """An event at exactly T is an input; one second later is a label."""
    problem = d.build_problem("tiny", tiny_log(), CHURN, CUTOFF)
    assert problem.log.time.max() == CUTOFF
    assert len(problem.log) == 4


def test_ids_first_seen_after_the_cutoff_are_unknown():
    """The vocabulary of a problem holds what was seen up to T."""
    problem = d.build_problem("tiny", tiny_log(), CHURN, CUTOFF)
    assert problem.log.item_ids.tolist() == ["x", "y", "z"]


def test_population_is_active_in_the_days_before():
    """The lower end of the active window is excluded, the cut-off included."""
    problem = d.build_problem("tiny", tiny_log(), CHURN, CUTOFF)
    assert problem.log.entity_ids[problem.population].tolist() == ["a", "b", "c"]
    narrow = d.build_problem("tiny", tiny_log(), replace(CHURN, active_days=4), CUTOFF)
    assert narrow.log.entity_ids[narrow.population].tolist() == ["a", "c"]


def test_labels_of_churn_spend_and_items():
    """Labels look at the window after T only, and at the population only."""
    log = tiny_log()
    answers = {
        t.name: d.truth(log, d.build_problem("tiny", log, t, CUTOFF)) for t in (CHURN, SPEND, ITEMS)
    }
    assert answers["churn"].target.tolist() == [0, 0, 1]
    assert answers["spend"].target.tolist() == [32, 16, 0]
    assert answers["items"].bought.tolist() == [[0, 3], [1, 1]]


def test_window_past_the_data_is_refused():
    """A truncated label is an error, not a label."""
    problem = d.build_problem("tiny", tiny_log(), CHURN, CUTOFF)
    with pytest.raises(ValueError, match="ends past the data"):
        problem.examples(CUTOFF - 9 * DAY)
    with pytest.raises(ValueError, match="Choose an earlier timestamp"):
        problem.examples(CUTOFF)


def test_training_cutoffs_step_back_from_the_validation_cutoff():
    """Training timestamps never reach past what is labelled, and leave some history."""
    problem = d.build_problem("made", made_log(), CHURN, START + 200 * DAY)
    cutoffs = problem.training_cutoffs(
        until=problem.validation_cutoff, step_days=7, min_history_days=30
    )
    assert cutoffs[0] == START + 190 * DAY
    assert min(cutoffs) > problem.log.start + 30 * DAY
    assert set(np.diff(cutoffs)) == {-7 * DAY}
    assert len(problem.examples(cutoffs[0]).target)


def test_changing_the_future_changes_no_problem():
    """A planted future leaves every array of the problem as it was."""
    log = made_log()
    cutoff = START + 150 * DAY
    after = log.time > cutoff
    planted = replace(
        log, amount=np.where(after, 1e9, log.amount), item=np.where(after, 0, log.item)
    )
    before, now = (d.build_problem("made", x, d.CHURN_30, cutoff) for x in (log, planted))
    np.testing.assert_array_equal(before.log.amount, now.log.amount)
    np.testing.assert_array_equal(before.log.item, now.log.item)
    np.testing.assert_array_equal(before.population, now.population)


def test_items_view_asks_about_every_known_item():
    """Item sales are asked for each article of a closed catalogue, unsold ones included."""
    log = build_log(
        entity=["a", "b"],
        item=["x", "x"],
        time=np.array([START, START + 3 * DAY]),
        amount=[1.0, 5.0],
        catalogue=["w", "x"],
        end=START + 30 * DAY,
    )
    problem = d.build_problem("tiny", log, d.ITEM_SALES, START + DAY)
    assert d.truth(log, problem).target.tolist() == [0.0, 5.0]


def test_given_buyers_are_those_who_buy():
    """RelBench gives the buyers of the window as the population, new customers included when known."""
    log = build_log(
        entity=["a", "b", "c"],
        item=["x", "y", "x"],
        time=np.array([START, START + 3 * DAY, START + 20 * DAY]),
        entities=["a", "b", "c"],
        catalogue=["x", "y"],
        end=START + 30 * DAY,
    )
    problem = d.build_problem("tiny", log, d.USER_ITEM_PURCHASE, START + DAY)
    assert problem.log.entity_ids[problem.population].tolist() == ["b"]


def test_leave_one_out_holds_out_the_last_in_file_order():
    """Among equal times the last line of the file is the answer."""
    log = build_log(
        entity=["a", "b", "a", "a", "b", "c"],
        item=["x", "x", "y", "z", "y", "x"],
        time=np.array([1, 1, 2, 2, 2, 5]),
    )
    problem, answers = d.leave_one_out("tiny", log)
    assert problem.log.entity_ids[problem.population].tolist() == ["a", "b"]
    assert log.item_ids[answers.bought[:, 1]].tolist() == ["z", "y"]
    assert len(problem.log) == 4
