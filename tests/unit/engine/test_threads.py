"""The number of threads that work within a budget is done with."""

import itertools

import pytest
import torch

from monad.training import threads


@pytest.mark.parametrize(
    ("seconds", "best", "calls"),
    [({1: 1.0, 2: 0.6}, 2, 5), ({1: 1.0, 2: 0.9}, 1, 2), ({1: 1.0, 2: 18.0}, 1, 2)],
)
def test_threads_that_do_not_pay_are_not_measured_to_the_end(monkeypatch, seconds, best, calls):
    """Two threads must be clearly faster than one; the first measurement that is not ends it."""
    asked = []

    def measured(x, weight, most):
        count = torch.get_num_threads()
        asked.append((count, most))
        return min(seconds[count], max(most, 0.0))

    monkeypatch.setattr(threads, "_seconds", measured)
    before = torch.get_num_threads()
    try:
        assert threads.calibrate_threads(2) == torch.get_num_threads() == best
    finally:
        torch.set_num_threads(before)
    assert sum(count == 2 for count, _ in asked) == calls


@pytest.mark.parametrize(("most", "seconds"), [(2.0, 2.0), (9.0, 4.0)])
def test_a_measurement_ends_when_it_is_too_slow(monkeypatch, most, seconds):
    """What is left of it would only cost the budget: four rounds of a second, or fewer."""
    clock = itertools.count()
    monkeypatch.setattr(threads.time, "perf_counter", lambda: float(next(clock)))
    assert threads._seconds(torch.randn(8, 64), torch.randn(64, 256), most) == seconds
