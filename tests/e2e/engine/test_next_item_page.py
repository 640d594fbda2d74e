"""docs/next-item.md: its script runs as it stands, and other ways to ask end in the same training."""

import logging
import re
import runpy
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from monad.config import TrainingParams
from monad.ui.module import RecommendationTask, load_from_foundation_model
from monad.ui.target_function import SPLIT_TIMESTAMP, sketch

PAGE = Path(__file__).parents[3] / "docs/next-item.md"
USERS, EVENTS, ITEMS, GROUPS = 80, 14, 120, 4


def ratings() -> str:
    """CSV of single visits: nobody takes a thing twice, and a user's things are of one group."""
    random = np.random.default_rng(0)
    lines = ["user_id,item_id,stars,timestamp"]
    for user in range(USERS):
        start = 1_600_000_000 + user * 86_400
        liked = random.permutation(np.arange(user % GROUPS, ITEMS, GROUPS))[:EVENTS]
        for step, item in enumerate(liked):
            lines.append(f"{user},{item + 1},{random.integers(1, 6)}.0,{start + step // 2 * 60}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The directory in which the page's script ran, with a shorter budget."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "ratings.csv").write_text(ratings())
    script = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    assert "SECONDS = 60 " in script
    (directory / "next_item.py").write_text(script.replace("SECONDS = 60 ", "SECONDS = 3 "))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        found = runpy.run_path("next_item.py")
    return directory, found


def test_the_script_of_the_page_runs_as_it_stands(ran):
    """Each user gets ten items that are new to them, and the groups are found."""
    directory, found = ran
    rows = (directory / "predictions.tsv").read_text().splitlines()[1:]
    assert len(rows) == len(found["answers"]) == USERS
    group = {"1": 1, "2": 2, "3": 3, "0": 0}
    right = 0
    for row in rows:
        user, *ranked = row.split("\t")[: 1 + found["longest"] + 10]
        new = [item for item in ranked if item and item not in found["seen"][user]][:10]
        assert len(new) == 10
        right += sum((int(item) - 1) % GROUPS == group[str(int(user) % GROUPS)] for item in new)
    assert right / (10 * USERS) > 0.6  # by chance 0.15: half of a group is seen


def items_of_a_month(history, future, attributes, ctx):
    window = future.interval_from(ctx[SPLIT_TIMESTAMP], timedelta(days=30))
    return sketch(window["ratings"]["item_id"])


def all_that_follows(history, future, attributes, ctx):
    return sketch(future["ratings"]["item_id"])


def in_ten_years(history, future, attributes, ctx):
    window = future.interval_from(ctx[SPLIT_TIMESTAMP], timedelta(days=3_650))
    return sketch(window["ratings"]["item_id"])


@pytest.mark.parametrize(
    ("target_fn", "understood", "few"),
    [
        (all_that_follows, "items of the events that follow", False),
        (in_ten_years, "items of the events that follow", False),
        (items_of_a_month, "items of a time window", True),
    ],
)
def test_single_visits_are_learned_event_by_event(
    ran, caplog, monkeypatch, target_fn, understood, few
):
    """Where hardly anyone comes back, there are no rows at split points; the log says what is done."""
    monkeypatch.chdir(ran[0])
    module = load_from_foundation_model(Path("foundation"), RecommendationTask(), target_fn)
    with caplog.at_level(logging.INFO, "monad.run"):
        module.fit(TrainingParams(time_budget_seconds=2))
    assert module.next_item
    assert f"The target is {'the ' if few else ''}{understood}" in caplog.text
    assert ("No rows at split points: learning from" in caplog.text) is few
