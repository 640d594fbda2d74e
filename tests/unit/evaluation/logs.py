"""A small made log for the tests of the evaluation."""

import numpy as np

from bench.evaluation.definitions import timestamp
from bench.evaluation.events import DAY, EventLog, build_log

START = timestamp("2020-01-01")


def made_log(num_entities: int = 60, num_days: int = 240, seed: int = 0) -> EventLog:
    """Return a log in which each entity has its own rhythm and its own few items."""
    rng = np.random.default_rng(seed)
    entity, item, time, amount = [], [], [], []
    for who in range(num_entities):
        rhythm = rng.integers(4, 40)
        own = rng.integers(0, 40, 5)
        for day in np.cumsum(rng.poisson(rhythm, num_days // int(rhythm))):
            for _ in range(int(rng.integers(1, 4))):
                if day < num_days:
                    entity.append(f"e{who}")
                    item.append(
                        f"i{rng.choice(own) if rng.random() < 0.7 else rng.integers(0, 40)}"
                    )
                    time.append(START + int(day) * DAY + int(rng.integers(0, DAY)))
                    amount.append(float(rng.gamma(2, 10)))
    return build_log(
        entity=entity,
        item=item,
        time=np.array(time),
        amount=amount,
        numeric={"quantity": np.ones(len(time))},
        category={"channel": np.array(item, object)},
        end=START + num_days * DAY,
    )


def tiny_log() -> EventLog:
    """Return six events around the cut-off 2020-01-10 00:00, one exactly on it."""
    days = [1, 5, 9, 9, 9 + 1 / DAY, 15]
    return build_log(
        entity=["a", "b", "a", "c", "b", "a"],
        item=["x", "y", "x", "z", "y", "w"],
        time=np.array([START + round(day * DAY) for day in days]),
        amount=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        end=START + 60 * DAY,
    )
