"""Recency: who has been away longest churns; nobody who buys rarely spends."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction


class Recency:
    """Seconds since the last event as the churn score."""

    name = "recency"
    kinds = ("binary",)
    environment = "peers"
    seeded = False

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Return the age of the last event of each entity."""
        last = np.full(problem.log.num_entities, problem.log.start - 1)
        last[problem.log.entity] = problem.log.time  # sorted by time: the last write wins
        return Prediction((problem.cutoff - last[problem.population]).astype(np.float64))
