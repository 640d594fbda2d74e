"""What a method is: a name, the kinds of task it answers and one call, from the past to predictions."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from bench.evaluation.definitions import Kind, Problem


@dataclass(frozen=True)
class Effort:
    """How hard a method may try.

    Attributes:
        seed: Seed of everything random in the method.
        quick: Take the small version (smoke runs), never for figures that are compared.
        budget_seconds: Training time of methods that take one; None: their own convergence.
        num_threads: Threads of a method.
        work_dir: A folder of this cell, for what a method must write.
    """

    seed: int = 0
    quick: bool = False
    budget_seconds: float | None = None
    num_threads: int = 2
    work_dir: str = ""


@dataclass(frozen=True)
class Prediction:
    """Answers for the population of a problem, in its order.

    Attributes:
        values: A probability, a score or a value for each row; for recommendations item codes
            (rows x k), best first, -1 where a list is shorter.
        facts: What a reader wants to know: parameters chosen, rounds, rows, training seconds.
    """

    values: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """A peer or the engine.

    Attributes:
        name: Name in tables and files.
        kinds: Kinds of task it answers.
        environment: Which interpreter runs it: peers, rectools or engine.
        seeded: Whether another seed can give another answer.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    environment: ClassVar[str]
    seeded: ClassVar[bool]

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Learn from the problem's log and answer for its population."""
        ...
