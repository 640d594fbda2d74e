"""LightGBM on causal aggregates: rows of many timestamps, tuned on the validation cut-off.

The choice (parameters, step between timestamps, how far back, loss) uses labels that end at the
cut-off. One cut-off's validation is noisy, so the best few choices are fitted again, on rows up to the
validation cut-off, and averaged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.evaluation.aggregates import Aggregates, aggregate
from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.metrics import auroc, log_loss, mae

TRIALS, QUICK_TRIALS = 40, 3
KEPT, QUICK_KEPT = 5, 1
MAX_ROUNDS = 800
MAX_ROWS = 400_000


@dataclass(frozen=True)
class Rows:
    """Feature rows with their labels."""

    values: np.ndarray
    target: np.ndarray
    age: np.ndarray  # timestamps back from the newest, for choosing how far back to learn


class Examples:
    """Labelled rows at one timestamp, made once."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.made, self.seed = problem, {}, seed

    def at(self, cutoff: int) -> tuple[Aggregates, np.ndarray]:
        """Return aggregates and labels at *cutoff*."""
        if cutoff not in self.made:
            found = self.problem.examples(cutoff)
            table = aggregate(self.problem.log, found.entity, cutoff, self.problem.log)
            self.made[cutoff] = (table, found.target)
        return self.made[cutoff]

    def rows(self, until: int, *, step_days: int, limit: int) -> Rows:
        """Return rows at timestamps in steps back from *until*, at most MAX_ROWS of them."""
        task = self.problem.task
        cutoffs = self.problem.training_cutoffs(
            until=until, step_days=step_days, min_history_days=2 * task.horizon_days
        )[:limit]
        parts = [self.at(cutoff) for cutoff in cutoffs]
        values = np.concatenate([table.values for table, _ in parts])
        target = np.concatenate([labels for _, labels in parts])
        age = np.repeat(np.arange(len(parts)), [len(labels) for _, labels in parts])
        if len(target) > MAX_ROWS:
            kept = np.random.default_rng(self.seed).choice(len(target), MAX_ROWS, replace=False)
            values, target, age = values[kept], target[kept], age[kept]
        return Rows(values, target, age)


def draw_parameters(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """Return one random choice of parameters."""
    losses = ["binary"] if kind == "binary" else ["l1", "l1", "log_l1", "log_l2", "tweedie"]
    return {
        "loss": str(rng.choice(losses)),
        "num_leaves": int(rng.choice([4, 7, 15, 31])),
        "learning_rate": float(rng.choice([0.03, 0.05, 0.1])),
        "min_child_samples": int(rng.choice([20, 50, 100, 200, 400])),
        "feature_fraction": float(rng.choice([0.1, 0.2, 0.4, 0.7])),
        "bagging_fraction": float(rng.choice([0.5, 0.7, 0.9])),
        "bagging_freq": 1,
        "lambda_l2": float(rng.choice([0.0, 1.0, 10.0, 100.0])),
        "lambda_l1": float(rng.choice([0.0, 0.0, 1.0])),
        "extra_trees": bool(rng.choice([False, False, True])),
        "timestamps": int(rng.choice([5, 10, 20, 40])),
        "step_days": int(rng.choice([7, 14])),
    }


class LightGBMTabular:
    """Boosted trees for churn, spend and item sales."""

    name = "lightgbm"
    kinds = ("binary", "regression")
    environment = "peers"
    seeded = True

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Choose on the validation cut-off, fit again, answer."""
        rng = np.random.default_rng(effort.seed)
        kind, examples = problem.task.kind, Examples(problem, effort.seed)
        horizon = problem.cutoff - problem.validation_cutoff
        trials = []
        for _ in range(QUICK_TRIALS if effort.quick else TRIALS):
            chosen = draw_parameters(rng, kind)
            if effort.quick:
                chosen |= {"timestamps": 4, "step_days": problem.task.horizon_days}
            trials.append(self._try(problem, examples, chosen, horizon))
        trials.sort(key=lambda trial: trial[0])
        kept = trials[: QUICK_KEPT if effort.quick else KEPT]
        values = self._refit(problem, examples, kept, effort)
        facts = {
            "validation": [abs(score) for score, _, _ in kept],
            "parameters": [chosen | {"rounds": rounds} for _, rounds, chosen in kept],
            "features": examples.at(problem.validation_cutoff)[0].values.shape[1],
            "trials": len(trials),
        }
        return Prediction(values, facts)

    def _try(
        self, problem: Problem, examples: Examples, chosen: dict[str, Any], horizon: int
    ) -> tuple[float, int, dict[str, Any]]:
        """Return the validation loss (lower is better), the rounds and the parameters."""
        import lightgbm as lgb

        table, target = examples.at(problem.validation_cutoff)
        rows = examples.rows(
            problem.validation_cutoff - horizon,
            step_days=chosen["step_days"],
            limit=chosen["timestamps"],
        )
        train = dataset(rows, table, chosen)
        valid = lgb.Dataset(table.values, forward(target, chosen["loss"]), reference=train)
        kind = problem.task.kind

        def evaluate(raw: np.ndarray, _: Any) -> tuple[str, float, bool]:
            if kind == "binary":
                return "log_loss", log_loss(target, raw), False
            return "mae", mae(target, backward(raw, chosen["loss"])), False

        booster = lgb.train(
            parameters(chosen, 0),
            train,
            MAX_ROUNDS,
            valid_sets=[valid],
            feval=evaluate,
            callbacks=[lgb.early_stopping(40, first_metric_only=True, verbose=False)],
        )
        if kind == "binary":  # log-loss stops (steadier), AUROC chooses
            value = -auroc(target, booster.predict(table.values))
        else:
            value = booster.best_score["valid_0"]["mae"]
        return value, booster.best_iteration, chosen

    def _refit(
        self,
        problem: Problem,
        examples: Examples,
        kept: list[tuple[float, int, dict[str, Any]]],
        effort: Effort,
    ) -> np.ndarray:
        """Return the mean prediction of the choices kept, fitted on everything labelled."""
        import lightgbm as lgb

        cutoff = problem.cutoff
        table = aggregate(problem.log, problem.population, cutoff, problem.log)
        answers = []
        for place, (_, rounds, chosen) in enumerate(kept):
            rows = examples.rows(
                problem.validation_cutoff, step_days=chosen["step_days"], limit=chosen["timestamps"]
            )
            seed = effort.seed * 100 + place + 1
            train = dataset(rows, table, chosen)
            booster = lgb.train(parameters(chosen, seed), train, max(rounds, 1))
            answers.append(backward(booster.predict(table.values), chosen["loss"]))
        return np.mean(answers, axis=0)


def forward(target: np.ndarray, loss: str) -> np.ndarray:
    """Return the label that *loss* learns."""
    return np.log1p(np.maximum(target, 0)) if loss.startswith("log_") else np.maximum(target, 0)


def backward(value: np.ndarray, loss: str) -> np.ndarray:
    """Return predictions in the units of the label."""
    if loss.startswith("log_"):
        return np.expm1(np.maximum(value, 0))
    return value if loss == "binary" else np.maximum(value, 0)


def dataset(rows: Rows, table: Aggregates, chosen: dict[str, Any]) -> Any:
    """Return a LightGBM data set of *rows*."""
    import lightgbm as lgb

    return lgb.Dataset(
        rows.values,
        forward(rows.target, chosen["loss"]),
        feature_name=table.names,
        categorical_feature=table.categorical,
        free_raw_data=False,
        params={"max_bin": 63, "verbosity": -1},
    )


def parameters(chosen: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters of a choice."""
    objective = {"log_l1": "l1", "log_l2": "l2"}.get(chosen["loss"], chosen["loss"])
    own = {"timestamps", "step_days", "loss"}
    return {name: value for name, value in chosen.items() if name not in own} | {
        "objective": objective,
        "metric": "None",
        "num_threads": 1,  # measured: at these sizes a second thread costs more than it brings
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
        "max_bin": 63,
    }
