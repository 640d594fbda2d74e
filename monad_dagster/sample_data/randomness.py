"""Independent random streams of the sample, one for each purpose and block of customers.

A stream depends on the seed, its purpose and the block's number only, so blocks can be built
in any order, or alone, and give the same bytes.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a random stream is used for; the numbers are part of the output's definition."""

    CATALOGUE = 1
    SEGMENTS = 2
    DEMAND = 3
    CUSTOMERS = 4
    BEHAVIOR = 5
    PURCHASES = 6
    CALIBRATION = 7
    POSTAL_CODES = 8


def random_stream(seed: int, purpose: Purpose, block: int = 0) -> np.random.Generator:
    """Return the generator of one purpose and block.

    Args:
        seed: The sample's seed.
        purpose: What the numbers are for.
        block: Number of the customer block; 0 for what all blocks share.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, purpose, block))))


def weighted_choice(rng: np.random.Generator, weights: np.ndarray, size: int) -> np.ndarray:
    """Draw *size* positions of *weights* with probability proportional to them."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    draws = rng.random(size) * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, draws, side="right"), len(weights) - 1)
