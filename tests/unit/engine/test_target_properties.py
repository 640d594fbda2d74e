"""The target-function API agrees with plain Python over random events."""

import math
from collections import Counter, defaultdict
from datetime import timedelta

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monad.data.store import CATEGORY, NUMBER, Column, Table
from monad.model.items import items_loss
from monad.targets import (
    Attributes,
    DataSourceEvents,
    Events,
    next_n_days,
    next_n_hours,
    sequential_decay,
    sketch,
    slice_time_window,
    time_decay,
)

DAY = 86_400
KINDS = ["a", "b", "c"]
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 20 * DAY),
        st.sampled_from([0, 1, 2, -1]),
        st.one_of(st.just(math.nan), st.integers(-1000, 1000).map(lambda x: x / 4)),
    ),
    max_size=14,
)
WINDOWS = st.tuples(st.integers(-2, 22), st.integers(-10, 10))


def events_of(rows) -> Events:
    """Events of one entity over a real table; two columns, `kind` and `price`."""
    rows = sorted(rows, key=lambda row: row[0])
    times = np.array([row[0] for row in rows], dtype=np.int64)
    kinds = Column(
        "kind",
        CATEGORY,
        "categorical",
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array(KINDS, dtype=object),
    )
    price = Column("price", NUMBER, "decimal", np.array([row[2] for row in rows], dtype=np.float32))
    table = Table("t", np.array([0, len(rows)]), times, [kinds, price])
    return Events({"t": DataSourceEvents(table, slice(0, len(rows)))})


def plain(rows) -> list[tuple[int, str, float]]:
    """The same events in plain Python, kinds by name."""
    named = [(t, "None" if k < 0 else KINDS[k], float(p)) for t, k, p in rows]
    return sorted(named, key=lambda row: row[0])


def close(found, wanted) -> bool:
    """Equal numbers, NaN included."""
    return bool(np.allclose(found, wanted, rtol=1e-5, atol=1e-4, equal_nan=True))


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_reductions(rows):
    """Sum, mean, min and max, with and without NaN, by name and by callable."""
    source = events_of(rows)["t"]
    prices = [p for _, _, p in plain(rows)]
    known = [p for p in prices if not math.isnan(p)]
    assert source.count() == len(prices)
    assert close(source.sum("price"), sum(known))
    assert close(source.sum("price", ignore_nan=False), sum(prices))
    assert close(source.mean("price"), sum(known) / len(known) if known else math.nan)
    assert close(source.min("price"), min(known, default=math.nan))
    assert close(source.max("price"), max(known, default=math.nan))
    assert close(source.sum(lambda c: c["price"] * 2), 2 * sum(known))
    if any(math.isnan(p) for p in prices):
        for reduced in (source.mean, source.min, source.max):
            assert math.isnan(reduced("price", ignore_nan=False))


@settings(deadline=None, max_examples=60)
@given(EVENTS, WINDOWS)
def test_windows(rows, window):
    """Intervals are open at the start and closed at the end; slices are the other way round."""
    events, times = events_of(rows), [t for t, _, _ in plain(rows)]
    start, days = window[0] * DAY, window[1]
    low, high = sorted((start, start + days * DAY))

    def seen(made):
        return made["t"].timestamps.tolist()

    inside = [t for t in times if low < t <= high]
    assert seen(events.interval_from(start, timedelta(days=days))) == inside
    assert events["t"].interval_from(start, timedelta(days=days)).count() == len(inside)
    if days >= 0:
        assert seen(next_n_days(events, start, days)) == inside
        assert seen(next_n_hours(events, start, 24 * days)) == inside
    assert seen(next_n_days(events, start, None)) == [t for t in times if t > start]
    end = start + days * DAY
    assert seen(slice_time_window(events, start, end)) == [t for t in times if start <= t < end]


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.permutations([*KINDS, "absent"]))
def test_groups(rows, groups):
    """Grouped counts, shares, sums, means, extremes and flags, found or in a given order."""
    grouped = events_of(rows)["t"].groupBy("kind")
    by_kind = defaultdict(list)
    for _, kind, price in plain(rows):
        if kind != "None":  # a missing value is no group
            by_kind[kind].append(price)
    counts, names = grouped.count()
    assert names == sorted(by_kind)
    assert counts.tolist() == [len(by_kind[name]) for name in names]
    known = {k: [p for p in v if not math.isnan(p)] for k, v in by_kind.items()}
    wanted = [known.get(name, []) for name in groups]
    assert grouped.count(groups=groups)[0].tolist() == [len(by_kind.get(g, [])) for g in groups]
    assert grouped.count(groups=groups)[1] == list(groups)
    assert close(grouped.sum("price", groups=groups)[0], [sum(v) for v in wanted])
    assert close(
        grouped.mean("price", groups=groups)[0], [sum(v) / len(v) if v else 0 for v in wanted]
    )
    assert close(grouped.min("price", groups=groups)[0], [min(v, default=0) for v in wanted])
    assert close(grouped.max("price", groups=groups)[0], [max(v, default=0) for v in wanted])
    flags = grouped.exists(groups=groups)[0]
    assert flags.tolist() == [float(g in by_kind) for g in groups]
    shares, _ = grouped.count(normalize=True, groups=groups)
    inside = sum(len(by_kind.get(g, [])) for g in groups)
    assert close(shares.sum(), 1.0 if inside else 0.0)


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.integers(-200, 200), WINDOWS)
def test_filter_and_apply_compose(rows, limit, window):
    """Filtering, transforming and windows may follow one another in any order."""
    source = events_of(rows)["t"]
    start, length = window[0] * DAY, timedelta(days=abs(window[1]))
    cut = (start, start + length.total_seconds())
    wanted = [p + 1 for t, _, p in plain(rows) if p > limit and cut[0] < t <= cut[1]]
    one = source.filter("price", lambda p: p > limit).apply(lambda p: p + 1, "price")
    other = source.apply(lambda p: p + 1, "price").interval_from(start, length)
    assert close(sorted(one.interval_from(start, length)["price"]), sorted(wanted))
    assert close(sorted(other.filter("price", lambda p: p > limit + 1)["price"]), sorted(wanted))
    assert source.filter("kind", lambda k: k == "a").count() == sum(
        k == "a" for _, k, _ in plain(rows)
    )


ITEMS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8).map(float)), max_size=8)


def as_sketch(pairs):
    """A sketch of (item, weight) pairs."""
    items, weights = zip(*pairs, strict=True) if pairs else ((), ())
    return sketch(np.array(items, dtype=np.int64), np.array(weights, dtype=float))


def weights_of(made):
    """Items and weights of a sketch as a dict."""
    items, weights = made.combined()
    return dict(zip(items.tolist(), weights.tolist(), strict=True))


def counted(pairs) -> Counter:
    """The reference: summed weights, zeros left out."""
    total: Counter = Counter()
    for item, weight in pairs:
        total[item] += weight
    return Counter({item: weight for item, weight in total.items() if weight})


@settings(deadline=None, max_examples=80)
@given(ITEMS, ITEMS, st.integers(0, 4))
def test_sketch_algebra(one, two, factor):
    """Sums add weights, products keep common items, numbers scale, differences remove items."""
    a, b, left, right = as_sketch(one), as_sketch(two), counted(one), counted(two)
    assert weights_of(a + b) == counted([*one, *two])
    assert weights_of(a + b) == weights_of(b + a)
    assert weights_of(a * factor) == {i: w * factor for i, w in left.items() if factor}
    assert weights_of(factor * a) == weights_of(a * factor)
    assert weights_of(a * b) == {i: left[i] * right[i] for i in left.keys() & right.keys()}
    gone = {item for item, _ in two}
    assert weights_of(a - b) == {i: w for i, w in left.items() if i not in gone}
    masked = a.mask_loss([5, 6])
    assert weights_of(masked) == left
    assert set((masked + b).masked.tolist()) == {5, 6}


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.floats(0, 1), st.floats(0.01, 1))
def test_decays(rows, gamma, daily):
    """Sequential decay follows the order of baskets, time decay the days since the first event."""
    source = events_of(rows)["t"]
    times = [t for t, _, _ in plain(rows)]
    baskets = sorted(set(times))
    assert close(
        sequential_decay(source, gamma),
        [1.0 if baskets.index(t) == 0 else gamma ** baskets.index(t) for t in times],
    )
    assert close(time_decay(source, daily), [daily ** ((t - times[0]) / DAY) for t in times])


def test_masked_items_have_no_part_in_the_loss():
    """A masked item's score changes neither the loss nor any gradient; an unmasked one's does."""
    scores = torch.zeros(1, 6, requires_grad=True)
    batch = {
        "target_rows": torch.tensor([0]),
        "target_items": torch.tensor([2]),
        "target_weights": torch.tensor([1.0]),
        "masked_rows": torch.tensor([0]),
        "masked_items": torch.tensor([4]),
    }
    loss = items_loss(scores, batch)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 4] == 0.0
    assert scores.grad[0, 3] != 0.0
    assert math.isclose(float(loss), math.log(5), rel_tol=1e-5)


def test_attributes_by_source_and_by_column():
    """Attributes are found with and without the source, in any letter case."""
    attributes = Attributes({"people": {"AGE": 30, "club": "gold"}})
    assert attributes["people"]["AGE"] == attributes["age"] == 30
    assert attributes.get("height") is None
    assert "CLUB" in attributes
    assert list(attributes) == ["people"]
