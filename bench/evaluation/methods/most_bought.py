"""Bought, then popular: an entity's own items by number of baskets, the rest by popularity."""

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.ranking import fill_up, popular_items, popularity, rank_pairs, recent_days


class MostBought:
    """Own items by number of baskets, ties by recent popularity, filled up with popular ones."""

    name = "most-bought"
    kinds = ("recommendation",)
    environment = "peers"
    seeded = False

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Return each entity's most bought items."""
        log = problem.log
        place = np.full(log.num_entities, -1, np.int64)
        place[problem.population] = np.arange(len(problem.population))
        row = place[log.entity]
        mine = row >= 0
        key = row[mine] * log.num_items + log.item[mine]
        num_baskets = int(log.basket.max(initial=0)) + 1
        in_basket = np.unique(key * num_baskets + log.basket[mine]) // num_baskets
        pair, count = np.unique(in_basket, return_counts=True)
        item = pair % log.num_items
        recent = popularity(log, problem.cutoff, recent_days(problem))
        lists = rank_pairs(
            pair // log.num_items,
            item,
            count + recent[item] / (recent.max() + 1.0),
            num_rows=len(problem.population),
            k=problem.task.k,
        )
        return Prediction(fill_up(lists, popular_items(problem)))
