"""The harness: cells, what a worker sees, resuming, comparisons and the page that is written."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.evaluation import catalogue, runner
from bench.evaluation import definitions as d
from bench.evaluation.catalogue import Dataset, Sources
from bench.evaluation.events import DAY
from bench.evaluation.report import attribute_table, write_report
from bench.evaluation.runner import Plan, run
from bench.evaluation.scoring import Judged, compare
from bench.evaluation.store import load_problem, save_problem
from bench.evaluation.worker import peak_rss_mib
from tests.unit.evaluation.logs import START, made_log

pytest.importorskip("pandas")

CHURN = d.Task("churn", "binary", 20, active_days=60)
SPEND = d.Task("spend", "regression", 20, active_days=60)
ITEMS = d.Task("items", "recommendation", 20, active_days=60)
MADE = Dataset("made", lambda _: made_log(), ("2020-07-08",), (CHURN, SPEND, ITEMS))
MISSING = Dataset("missing", catalogue._hm, ("2020-07-08",), (CHURN,))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan over one made data set and one that is not there."""
    monkeypatch.setattr(catalogue, "DATASETS", (MADE, MISSING))
    names = ("recency", "frequency", "zero", "popularity", "most-bought")
    return Plan(Sources(tmp_path), methods=names, interpreters={"peers": sys.executable})


def test_a_problem_survives_the_disk(tmp_path):
    """What a worker reads is what was written, and ends at the cut-off."""
    problem = d.build_problem("made", made_log(), CHURN, START + 150 * DAY)
    save_problem(tmp_path / "p.npz", problem)
    found = load_problem(tmp_path / "p.npz")
    assert found.task == CHURN
    assert found.log.time.max() <= found.cutoff
    np.testing.assert_array_equal(found.population, problem.population)
    np.testing.assert_array_equal(found.log.item_ids, problem.log.item_ids)
    np.testing.assert_array_equal(found.log.category["channel"], problem.log.category["channel"])


def test_run_resume_and_report(plan, tmp_path):
    """Every cell is scored, a missing data set is skipped with a reason, a rerun runs nothing."""
    said: list[str] = []
    assert run(plan, said.append) == 0
    assert sum("seed 0:" in line for line in said) == 6
    assert any(line.startswith("missing: skipped, no H&M files") for line in said)
    cell = json.loads(
        next((tmp_path / "full" / "cells").glob("*/*/churn/recency-0.json")).read_text()
    )
    assert 0 <= cell["metrics"]["auroc"] <= 1
    assert cell["peak_rss_mib"] > 10
    said.clear()
    assert run(plan, said.append) == 0
    assert not any("seed" in line for line in said)
    docs = tmp_path / "docs" / "evaluation.md"
    written = write_report(plan.sources, results_dir=tmp_path / "results", docs=docs)
    page = docs.read_text()
    assert "### made: churn" in page
    assert "| most-bought |" in page
    stored = json.loads(written[1].read_text())
    assert len(stored["cells"]) == 6
    assert str(tmp_path) not in written[1].read_text()


def test_a_failing_method_is_reported_and_tried_again(plan, tmp_path):
    """A worker that fails leaves no result, and the run says which cell and why."""
    broken = replace(plan, methods=("recency",), interpreters={"peers": "/bin/false"})
    said: list[str] = []
    assert run(broken, said.append) == 1
    assert any("churn recency seed 0: failed, exit code 1" in line for line in said)
    assert not list((tmp_path / "full" / "cells").glob("*/*/*/recency-0.json"))


def test_a_worker_that_ends_early_is_a_failure(plan, tmp_path):
    """An exit code of 0 without predictions is no result, and older predictions are not judged."""
    assert run(plan, lambda _: None) == 0
    for path in (tmp_path / "full" / "cells").glob("*/*/churn/recency-0.json"):
        path.unlink()
    silent = replace(plan, methods=("recency",), interpreters={"peers": "/bin/true"})
    said: list[str] = []
    assert run(silent, said.append) == 1
    assert any("exit code 0" in line for line in said)


def test_engine_is_compared_with_the_best_peer(plan, tmp_path):
    """With cells of the engine the page holds differences with intervals."""
    run(plan, lambda _: None)
    for path in (tmp_path / "full" / "cells").glob("*/*/*/frequency-0*"):
        text = path.name.replace("frequency", "engine")
        content = path.read_bytes().replace(b'"method": "frequency"', b'"method": "engine"')
        (path.parent / text).write_bytes(content)
    docs = tmp_path / "evaluation.md"
    write_report(plan.sources, results_dir=tmp_path / "results", docs=docs)
    assert "engine minus best peer" in docs.read_text()
    assert "without_top_1_percent" in docs.read_text()


def test_a_comparison_with_itself_is_zero():
    """The paired bootstrap of a method with itself has no width."""
    log = made_log()
    problem = d.build_problem("made", log, CHURN, START + 180 * DAY)
    answers = d.truth(log, problem)
    noise = np.random.default_rng(0).random(len(answers.entity))
    side = [[Judged(answers, noise, log.num_items)]]
    assert compare(CHURN, "auroc", side, side, rounds=20) == {
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
    }


def test_a_better_method_wins_over_cutoffs():
    """A score that knows the answers beats noise with an interval above zero."""
    log = made_log()
    ours, theirs = [], []
    for days in (150, 180):
        problem = d.build_problem("made", log, CHURN, START + days * DAY)
        answers = d.truth(log, problem)
        noise = np.random.default_rng(days).random(len(answers.entity))
        ours.append([Judged(answers, answers.target + noise, log.num_items)])
        theirs.append([Judged(answers, noise, log.num_items)])
    found = compare(CHURN, "auroc", ours, theirs, rounds=100)
    assert found["low"] > 0.2


def test_every_method_is_known_and_fits_some_task():
    """The registry names methods that exist, each with an environment."""
    for name in runner.METHODS:
        method = runner.load_method(name)
        assert method.name == name
        assert method.environment in {"peers", "rectools", "engine"}
        assert any(runner.fits(name, task) for task in (CHURN, SPEND, ITEMS))


def test_memory_is_measured():
    """The peak of this process is a plausible number of MiB."""
    assert 10 < peak_rss_mib() < 100_000


def test_attributes_are_compared_when_both_versions_ran():
    """The page sets a data set beside itself without attributes, cut-off by cut-off."""
    cells = [
        {
            "dataset": name,
            "cutoff": "2020-07-08",
            "method": "lightgbm",
            "task": {"name": "churn", "kind": "binary", "horizon_days": 20},
            "metrics": {"auroc": value},
        }
        for name, value in (("made", 0.7), ("made-without-attributes", 0.65))
    ]
    assert "| made | churn | lightgbm | auroc | 0.7000 | 0.6500 | 0.0500 |" in attribute_table(
        cells
    )
    assert attribute_table(cells[:1]) == ""
