"""Implicit ALS: factors from purchase counts, older purchases weighing less; tuned where time allows."""

from typing import Any

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.events import DAY, EventLog
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.metrics import ranking_metrics
from bench.evaluation.ranking import fill_up, popular_items, seen_pairs

TRIALS, QUICK_TRIALS = 8, 2


def draw_parameters(rng: np.random.Generator) -> dict[str, Any]:
    """Return one random choice of parameters."""
    return {
        "factors": int(rng.choice([32, 64, 128])),
        "regularization": float(rng.choice([0.01, 0.1, 1.0, 10.0])),
        "alpha": float(rng.choice([1.0, 5.0, 20.0])),
        "iterations": int(rng.choice([10, 20, 30])),
        "half_life_days": float(rng.choice([30.0, 90.0, 365.0, 3650.0])),
    }


class ImplicitALS:
    """Matrix factorisation of the `implicit` package."""

    name = "als"
    kinds = ("recommendation",)
    environment = "peers"
    seeded = True
    leave_one_out = True

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Choose on the validation cut-off (leave-one-out: on the event before), fit, recommend."""
        rng = np.random.default_rng(effort.seed)
        trials = []
        past, who, bought = validation(problem)
        for _ in range(QUICK_TRIALS if effort.quick else TRIALS):
            chosen = draw_parameters(rng)
            lists = recommend(past, who, chosen, problem, effort)
            value = ranking_metrics(lists, bought, problem.log.num_items)
            trials.append((value[f"ndcg@{problem.task.k}"], chosen))
        score, best = max(trials, key=lambda trial: trial[0])
        lists = recommend(problem.log, problem.population, best, problem, effort)
        lists = fill_up(lists, popular_items(problem), seen_pairs(problem))
        return Prediction(
            lists, {"validation_ndcg": score, "parameters": best, "trials": len(trials)}
        )


def validation(problem: Problem) -> tuple[EventLog, np.ndarray, np.ndarray]:
    """Return the past of the validation split, its entities and what they bought."""
    if problem.task.leave_one_out:
        from bench.evaluation.definitions import leave_one_out

        inner, held = leave_one_out(problem.dataset, problem.log, problem.task)
        return inner.log, inner.population, held.bought
    found = problem.examples(problem.validation_cutoff)
    log = problem.log
    past = log.select(slice(0, log.position(problem.validation_cutoff)))
    return past, found.entity, found.bought


def recommend(
    log: EventLog, who: np.ndarray, chosen: dict[str, Any], problem: Problem, effort: Effort
) -> np.ndarray:
    """Return lists (rows x k) for *who*."""
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse

    age = (int(log.time[-1]) - log.time) / DAY
    weight = (chosen["alpha"] * 0.5 ** (age / chosen["half_life_days"])).astype(np.float32)
    counts = sparse.csr_matrix(
        (weight, (log.entity, log.item)), shape=(problem.log.num_entities, problem.log.num_items)
    )
    model = AlternatingLeastSquares(
        factors=chosen["factors"],
        regularization=chosen["regularization"],
        iterations=chosen["iterations"],
        random_state=effort.seed,
        num_threads=effort.num_threads,
    )
    model.fit(counts, show_progress=False)
    lists, _ = model.recommend(
        who, counts[who], N=problem.task.k, filter_already_liked_items=problem.task.filter_seen
    )
    return np.asarray(lists, np.int64)
