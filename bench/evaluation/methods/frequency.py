"""Frequency: those who bought on many days come back; spend is what it was, per window."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.events import DAY
from bench.evaluation.methods.base import Effort, Prediction


class Frequency:
    """Days with a purchase (churn) or mean amount of a window since the first purchase (regression)."""

    name = "frequency"
    kinds = ("binary", "regression")
    environment = "peers"
    seeded = False

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Return minus the purchase days, or the mean amount of a window."""
        log, size = problem.log, problem.log.num_entities
        if problem.task.kind == "binary":
            days = np.unique(log.entity.astype(np.int64) * 1_000_000 + log.time // DAY) // 1_000_000
            return Prediction(-np.bincount(days, minlength=size)[problem.population].astype(float))
        first = np.full(size, problem.cutoff)
        first[log.entity[::-1]] = log.time[::-1]
        horizon = problem.task.horizon_days * DAY
        windows = np.maximum((problem.cutoff - first) / horizon, 1.0)
        money = np.bincount(log.entity, log.amount, minlength=size)
        return Prediction((money / windows)[problem.population])
