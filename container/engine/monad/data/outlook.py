"""What happens after a split point, in several windows: what the aggregates' branch learns first.

For each source and window: whether anything happens, how many events, on how many days, and the sum
of the first numeric column. A window that reaches past the end of the training range is not known.
"""

import numpy as np

from monad.config.time_range import DAY_SECONDS
from monad.data.aggregates import AggregateReader, TableAggregates, squash

OUTLOOK_DAYS = (7, 14, 30, 60, 90)
_SUM_SCALE = 3.0  # so that sums, on their log scale, weigh about as much as the others


def outlook_size(specs: list[TableAggregates]) -> int:
    """Return the number of outcomes of a row."""
    return sum(len(OUTLOOK_DAYS) * (4 if spec.numbers else 3) for spec in specs)


def outlook(
    reader: AggregateReader, entities: np.ndarray, stamps: np.ndarray, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes (rows, outcomes), and which of them are known by *end*."""
    found, known = [], []
    for spec, prefix in zip(reader.specs, reader.prefixes, strict=True):
        now = prefix.table.position(entities, stamps)
        _, days, _, _ = prefix.sessions
        for window in OUTLOOK_DAYS:
            upto = stamps + window * DAY_SECONDS
            last = np.maximum(prefix.table.position(entities, np.minimum(upto, end)), now)
            count = (last - now).astype(np.float64)
            outcomes = [count > 0, np.log1p(count), np.log1p(days[last] - days[now])]
            if spec.numbers:
                outcomes.append(squash(prefix.numbers[0].between(now, last)) / _SUM_SCALE)
            found += outcomes
            known += [upto <= end] * len(outcomes)
    return np.stack(found, 1).astype(np.float32), np.stack(known, 1).astype(np.float32)
