"""Zero: the value that minimises the absolute error when most of a population buys nothing."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction


class Zero:
    """Predict zero for everyone."""

    name = "zero"
    kinds = ("regression",)
    environment = "peers"
    seeded = False

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Return zeros."""
        return Prediction(np.zeros(len(problem.population)))
