"""Popularity: everyone gets what most entities took in the last window."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.ranking import fill_up, popular_items, seen_pairs


class Popularity:
    """The same list for everyone; for leave-one-out without the items of the history."""

    name = "popularity"
    kinds = ("recommendation",)
    environment = "peers"
    seeded = False
    leave_one_out = True

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Return the popular items."""
        empty = np.full((len(problem.population), problem.task.k), -1, np.int64)
        if not problem.task.filter_seen:
            top = popular_items(problem)[: problem.task.k]
            empty[:, : len(top)] = top
            return Prediction(empty)
        return Prediction(fill_up(empty, popular_items(problem), seen_pairs(problem)))
