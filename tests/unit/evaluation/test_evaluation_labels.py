"""What pretraining brings: few labels, and the table of the engine beside the network from scratch."""

from dataclasses import asdict

import numpy as np
import pytest

from bench.evaluation import definitions as d
from bench.evaluation.methods import load_method
from bench.evaluation.methods.engine_targets import SOURCE, with_few_labels
from bench.evaluation.report import label_table


class _Source:
    """A history with times alone."""

    def __init__(self, times: list[int]) -> None:
        self.timestamps = np.array(times)


def test_a_share_of_the_rows_is_labelled_the_same_one_each_time():
    """About the share asked for is answered, whatever the mode, and equally in a second call."""
    target_fn = with_few_labels(lambda *_: np.ones(1), 0.1)

    def answered(mode: str) -> list[bool]:
        return [
            target_fn(
                {SOURCE: _Source([n, 5 * n])}, None, None, {"SPLIT_TIMESTAMP": 7, "MODE": mode}
            )
            is not None
            for n in range(4000)
        ]

    first = answered("train")
    assert 0.07 < np.mean(first) < 0.13
    assert first == answered("validation")
    assert target_fn({SOURCE: _Source([])}, None, None, {"SPLIT_TIMESTAMP": 1}) in (None, 1.0)


@pytest.mark.parametrize("suffix", ["", "-labels-1", "-labels-10"])
def test_each_variant_from_scratch_has_its_pretrained_twin(suffix):
    """Both sides of a line of the table see the same share of labels."""
    scratch, twin = load_method(f"engine-from-scratch{suffix}"), load_method(f"engine{suffix}")
    assert (scratch.from_scratch, twin.from_scratch) == (True, False)
    assert scratch.label_share == twin.label_share


def test_the_table_compares_what_both_sides_have():
    """Means and differences are of the cut-offs that both have, seeds averaged first."""

    def cell(method: str, cutoff: str, value: float, seed: int = 0) -> dict:
        task = asdict(d.Task("churn", "binary", 30))
        return {
            "dataset": "made",
            "task": task,
            "method": method,
            "cutoff": cutoff,
            "seed": seed,
            "metrics": {"auroc": value},
        }

    cells = [
        cell("engine-labels-1", "a", 0.7, 0),
        cell("engine-labels-1", "a", 0.8, 1),
        cell("engine-labels-1", "b", 0.9),
        cell("engine-from-scratch-labels-1", "a", 0.5),
        cell("engine", "a", 0.9),
        cell("lightgbm", "a", 0.9),
    ]
    text = label_table(cells)
    assert "| made | churn | 1 % | auroc | 0.7500 | 0.5000 | 0.2500 | 0.2500 |" in text
    assert "100 %" not in text
    assert label_table(cells[-2:]) == ""
