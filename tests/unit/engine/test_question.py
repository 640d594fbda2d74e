"""What a recommendation's target function is understood to ask for."""

from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from monad.config import OutputType, TestingParams
from monad.config.loading import parse_config
from monad.config.schema import MemoryConstrainingParams
from monad.config.time_range import DataMode
from monad.data.ingest import build_store
from monad.data.representation import fit_representation
from monad.errors import ConfigError
from monad.tasks import RecommendationTask
from monad.training.asked import prediction_stamp
from monad.training.question import CHOSEN, FOLLOWING, NEXT, OTHER, WINDOW, question
from monad.training.rows import Labeler
from monad.ui.target_function import (
    SPLIT_TIMESTAMP,
    has_incomplete_training_window,
    next_n_days,
    next_n_hours,
    sequential_decay,
    sketch,
    slice_time_window,
    time_decay,
)
from tests.unit.engine.sample import log_config

SPAN = 200 * 86_400
LONG = 3_650


def log_of(directory, *, repeats: bool, users: int = 60, events: int = 30):
    """A store of ratings with ties, and its representation."""
    random = np.random.default_rng(0)
    who = np.repeat(np.arange(users), events)
    when = np.sort(random.integers(0, SPAN // 600, (users, events)), axis=1) * 600
    when[:, 1::5] = when[:, 0::5]  # two events of each five at one time
    what = np.stack([random.permutation(400)[:events] for _ in range(users)])
    if repeats:
        what %= 7
    table = {
        "user": who,
        "movie": what.reshape(-1) + 10,
        "stars": random.integers(1, 6, len(who)).astype(float),
        "at": 1_000_000_000 + when.reshape(-1),
    }
    config = log_config(directory / "ratings.parquet", table, "user", "at", "1990-01-01")
    store, plans = build_store(parse_config(config), None)
    limits = MemoryConstrainingParams()
    return store, fit_representation(store, plans, store.last_time, limits, seed=0)


@pytest.fixture(scope="module")
def new_items(tmp_path_factory):
    """Ratings of things that nobody takes twice."""
    return log_of(tmp_path_factory.mktemp("new"), repeats=False)


@pytest.fixture(scope="module")
def old_items(tmp_path_factory):
    """Purchases of the same few things."""
    return log_of(tmp_path_factory.mktemp("old"), repeats=True)


def asked(data, function):
    """What *function*, of the history, the future of the ratings and the context, asks for."""
    store, representation = data

    def target_fn(history, future, attributes, ctx):
        return function(history, future, ctx)

    labeler = Labeler(store, target_fn, RecommendationTask(), store.last_time, DataMode.TRAIN)
    return question(labeler, representation, np.random.default_rng(0))


def window(ctx, future, days=30):
    return future["ratings"].interval_from(ctx[SPLIT_TIMESTAMP], timedelta(days=days))


def stars(events):
    return sketch(events["movie"][:1], events["stars"][:1])


def first_with_three(history, future, ctx):
    return sketch(future["ratings"]["movie"][:1]) if history["ratings"].count() >= 3 else None


def first_checked(history, future, ctx):
    if has_incomplete_training_window(ctx, timedelta(days=30)):
        return None
    return sketch(window(ctx, future)["movie"][:1])


def first_counted(history, future, ctx):
    _, names = future["ratings"].filter("stars", lambda n: n >= 1).groupBy("movie").count()
    return sketch([str(future["ratings"]["movie"][0])]) if len(names) else None


@pytest.mark.parametrize(
    "function",
    [
        lambda h, f, c: sketch(f["ratings"]["movie"][:1]),
        lambda h, f, c: sketch([f["ratings"]["movie"][0]], [2.0]),
        lambda h, f, c: stars(f["ratings"]),
        lambda h, f, c: sketch(window(c, f)["movie"][:1]),
        lambda h, f, c: sketch(window(c, f, LONG)["movie"][:1]),
        lambda h, f, c: sketch(next_n_hours(f, c[SPLIT_TIMESTAMP], None)["ratings"]["movie"][:1]),
        lambda h, f, c: sketch(next_n_days(f, c[SPLIT_TIMESTAMP], LONG)["ratings"]["movie"][:1]),
        lambda h, f, c: sketch(
            slice_time_window(f, c[SPLIT_TIMESTAMP], c[SPLIT_TIMESTAMP] + SPAN)["ratings"]["movie"][
                :1
            ]
        ),
        first_with_three,
        first_checked,
        first_counted,
    ],
)
def test_the_next_item_is_recognised_however_it_is_asked_for(new_items, caplog, function):
    """Windows, filters, weights and conditions on the history do not hide the next item."""
    found = asked(new_items, function)
    assert found.kind == NEXT
    assert new_items[1].categories()[found.field].column == "movie"
    assert "LEAK" not in caplog.text


@pytest.mark.parametrize(
    "function",
    [
        lambda h, f, c: sketch(f["ratings"]["movie"]),
        lambda h, f, c: sketch(np.unique(f["ratings"]["movie"])),
        lambda h, f, c: sketch(f["ratings"]["movie"][:10]),
        lambda h, f, c: sketch(f["ratings"]["movie"], sequential_decay(f["ratings"], 0)),
        lambda h, f, c: sketch(f["ratings"]["movie"], sequential_decay(f["ratings"], 0.5)),
        lambda h, f, c: sketch(f["ratings"]["movie"], time_decay(f["ratings"], 0.9)),
        lambda h, f, c: sketch(next_n_days(f, c[SPLIT_TIMESTAMP], LONG)["ratings"]["movie"]),
        lambda h, f, c: sketch(
            f["ratings"]["movie"][f["ratings"].timestamps == f["ratings"].timestamps.min()]
        ),
    ],
)
@pytest.mark.parametrize("data", ["new_items", "old_items"])
def test_what_follows_is_recognised_however_late_it_is(request, data, function):
    """All that follows, the first basket and the first few are one kind; repeats are told."""
    found = asked(request.getfixturevalue(data), function)
    assert (found.kind, found.new) == (FOLLOWING, data == "new_items")


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda h, f, c: sketch(window(c, f)["movie"]), WINDOW),
        (lambda h, f, c: sketch(np.unique(window(c, f, 14)["movie"])), WINDOW),
        (
            lambda h, f, c: sketch(
                f["ratings"]["movie"][f["ratings"].timestamps < c[SPLIT_TIMESTAMP] + 30 * 86_400]
            ),
            WINDOW,
        ),
        (lambda h, f, c: sketch(f["ratings"]["movie"][-1:]), CHOSEN),
        (
            lambda h, f, c: sketch(f["ratings"].filter("stars", lambda n: n > 3)["movie"][:1]),
            CHOSEN,
        ),
        (lambda h, f, c: sketch(f["ratings"]["movie"]).mask_loss(h["ratings"]["movie"]), CHOSEN),
        (lambda h, f, c: sketch(h["ratings"]["movie"]), OTHER),
        (lambda h, f, c: None, OTHER),
    ],
)
def test_windows_and_choices_are_told_from_what_follows(new_items, function, kind):
    """A time that ends what counts is a window; the last item, or liked ones, are something else."""
    assert asked(new_items, function).kind == kind


def test_a_prediction_long_after_the_data_says_when_they_end(new_items):
    """The error shows the last event as a date, and that the prediction date may be left out."""
    scenario = SimpleNamespace(store=new_items[0])
    params = TestingParams(output_type=OutputType.DECODED, prediction_date=datetime(2020, 1, 1))
    with pytest.raises(ConfigError, match=r"last event 2002-\d\d-\d\d .*Leave it out"):
        prediction_stamp(scenario, params)  # type: ignore[arg-type]
