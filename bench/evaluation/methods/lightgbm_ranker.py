"""LightGBM ranker over repurchase, popularity, co-purchase and factorisation candidates.

Rows of several timestamps, groups of one entity at one timestamp, tuned on the validation cut-off by
MAP@k over all true items (those outside the candidates count as missed); the best few choices are
fitted again and averaged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.evaluation.candidates import Pairs, candidate_pairs
from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.metrics import ranking_metrics
from bench.evaluation.ranking import fill_up, popular_items, rank_pairs

TRIALS, QUICK_TRIALS = 8, 2
KEPT, QUICK_KEPT = 3, 1
CHECK_EVERY, PATIENCE, MAX_ROUNDS = 25, 2, 400
MAX_ENTITIES = 2500


@dataclass(frozen=True)
class Groups:
    """Candidates of the entities that bought, with labels."""

    pairs: Pairs
    label: np.ndarray
    bought: np.ndarray
    num_rows: int


class Examples:
    """Labelled candidates at one timestamp, made once."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.made = problem, {}
        self.rng = np.random.default_rng(seed)

    def at(self, cutoff: int) -> Groups:
        """Return the candidates of those who bought after *cutoff*, at most MAX_ENTITIES."""
        if cutoff not in self.made:
            found = self.problem.examples(cutoff)
            buyers = np.unique(found.bought[:, 0])
            if len(buyers) > MAX_ENTITIES:
                buyers = np.sort(self.rng.choice(buyers, MAX_ENTITIES, replace=False))
            kept = np.isin(found.bought[:, 0], buyers)
            bought = found.bought[kept].copy()
            bought[:, 0] = np.searchsorted(buyers, bought[:, 0])
            pairs = candidate_pairs(self.problem.log, found.entity[buyers], cutoff)
            width = self.problem.log.num_items
            wanted = bought[:, 0] * width + bought[:, 1]
            label = np.isin(pairs.row * width + pairs.item, wanted)
            self.made[cutoff] = Groups(pairs, label, bought, len(buyers))
        return self.made[cutoff]


def draw_parameters(rng: np.random.Generator, num_threads: int) -> dict[str, Any]:
    """Return one random choice of parameters."""
    return {
        "objective": str(rng.choice(["lambdarank", "lambdarank", "binary"])),
        "num_leaves": int(rng.choice([7, 15, 31, 63])),
        "learning_rate": float(rng.choice([0.05, 0.1])),
        "min_child_samples": int(rng.choice([50, 200, 1000])),
        "feature_fraction": float(rng.choice([0.3, 0.6, 0.9])),
        "bagging_fraction": float(rng.choice([0.5, 0.8])),
        "bagging_freq": 1,
        "lambda_l2": float(rng.choice([0.0, 10.0])),
        "lambdarank_truncation_level": int(rng.choice([15, 30, 60])),
        "timestamps": int(rng.choice([3, 6])),
        "num_threads": num_threads,
    }


class LightGBMRanker:
    """Two stages: candidates, then boosted trees."""

    name = "lightgbm-ranker"
    kinds = ("recommendation",)
    environment = "peers"
    seeded = True

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Choose on the validation cut-off, fit again, rank the candidates."""
        rng = np.random.default_rng(effort.seed)
        examples = Examples(problem, effort.seed)
        trials = []
        for _ in range(QUICK_TRIALS if effort.quick else TRIALS):
            chosen = draw_parameters(rng, effort.num_threads)
            trials.append((*self._try(problem, examples, chosen, effort.quick), chosen))
        trials.sort(key=lambda trial: -trial[0])
        kept = trials[: QUICK_KEPT if effort.quick else KEPT]
        pairs = candidate_pairs(problem.log, problem.population, problem.cutoff)
        total = np.zeros(len(pairs.row))
        for place, (_, rounds, chosen) in enumerate(kept):
            until = problem.validation_cutoff
            groups = self._groups(problem, examples, until, chosen, effort.quick)
            booster = new_booster(groups, chosen, effort.seed * 100 + place + 1)
            for _ in range(rounds):
                booster.update()
            scores = booster.predict(pairs.values)
            total += (scores - scores.mean()) / (scores.std() + 1e-12)
        lists = ranked(pairs, total, len(problem.population), problem.task.k)
        facts = {
            "validation": [score for score, _, _ in kept],
            "parameters": [chosen | {"rounds": rounds} for _, rounds, chosen in kept],
            "trials": len(trials),
            "candidates": len(pairs.row),
        }
        return Prediction(fill_up(lists, popular_items(problem)), facts)

    def _groups(
        self, problem: Problem, examples: Examples, until: int, chosen: dict[str, Any], quick: bool
    ) -> list[Groups]:
        """Return training groups at timestamps in steps back from *until*."""
        step = max(problem.task.horizon_days // 2, 7)
        cutoffs = problem.training_cutoffs(
            until=until, step_days=step, min_history_days=problem.task.horizon_days
        )
        limit = 1 if quick else chosen["timestamps"]
        return [examples.at(cutoff) for cutoff in cutoffs[:limit]]

    def _try(
        self, problem: Problem, examples: Examples, chosen: dict[str, Any], quick: bool
    ) -> tuple[float, int]:
        """Return the best validation MAP@k and its number of rounds."""
        valid = examples.at(problem.validation_cutoff)
        until = 2 * problem.validation_cutoff - problem.cutoff
        booster = new_booster(self._groups(problem, examples, until, chosen, quick), chosen, 0)
        best, best_rounds, k = 0.0, CHECK_EVERY, problem.task.k
        for done in range(1, (100 if quick else MAX_ROUNDS) + 1):
            booster.update()
            if done % CHECK_EVERY:
                continue
            lists = ranked(valid.pairs, booster.predict(valid.pairs.values), valid.num_rows, k)
            value = ranking_metrics(lists, valid.bought, problem.log.num_items)[f"map@{k}"]
            if value > best:
                best, best_rounds = value, done
            elif done - best_rounds >= PATIENCE * CHECK_EVERY:
                break
        return best, best_rounds


def ranked(pairs: Pairs, score: np.ndarray, num_rows: int, k: int) -> np.ndarray:
    """Return the best candidates of each row."""
    return rank_pairs(pairs.row, pairs.item, score, num_rows=num_rows, k=k)


def new_booster(groups: list[Groups], chosen: dict[str, Any], seed: int) -> Any:
    """Return a booster over *groups* that has learned nothing yet."""
    import lightgbm as lgb

    sizes = [np.bincount(g.pairs.row, minlength=g.num_rows) for g in groups]
    own = {"timestamps"} | (
        {"lambdarank_truncation_level"} if chosen["objective"] == "binary" else set()
    )
    settings = {name: value for name, value in chosen.items() if name not in own} | {
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
        "max_bin": 127,
        "metric": "None",
    }
    train = lgb.Dataset(
        np.concatenate([g.pairs.values for g in groups]),
        np.concatenate([g.label for g in groups]).astype(int),
        group=np.concatenate(sizes),
        feature_name=groups[0].pairs.names,
        params=settings,
    )
    return lgb.Booster(settings, train)
