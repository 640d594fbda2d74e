"""What is predicted, for whom and from when: the only place where time is compared.

Inputs have `time <= T`; a label looks at `T < time <= T + horizon`. A method gets a `Problem`, whose
log ends at T, and makes its own training rows from earlier timestamps with `Problem.examples`, under
the same definition. A window that reaches past the end of the log is refused, not shortened.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from bench.evaluation.events import DAY, EventLog

Kind = Literal["binary", "regression", "recommendation"]


def timestamp(text: str) -> int:
    """Return the second at which the UTC day *text* (YYYY-MM-DD) begins."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def day_text(cutoff: int) -> str:
    """Return the UTC day of *cutoff* as YYYY-MM-DD."""
    return datetime.fromtimestamp(cutoff, UTC).strftime("%Y-%m-%d")


@dataclass(frozen=True)
class Task:
    """One question.

    Attributes:
        name: Name in tables and files.
        kind: Decides the metrics.
        horizon_days: Length of the window of the label.
        active_days: Only entities with an event in that many days up to T; None: every known one.
        view: Whose behaviour: the log as it is, or seen from its items.
        k: Length of a recommendation list.
        filter_seen: Items of the history may not be recommended (leave-one-out only).
        leave_one_out: The split is each entity's last event and not a time.
        given_buyers: The population is given as those who buy in the window (RelBench does so).
    """

    name: str
    kind: Kind
    horizon_days: int
    active_days: int | None = None
    view: Literal["entity", "item"] = "entity"
    k: int = 12
    filter_seen: bool = False
    leave_one_out: bool = False
    given_buyers: bool = False


CHURN_30 = Task("churn", "binary", 30, active_days=90)
SPEND_30 = Task("spend", "regression", 30, active_days=90)
ITEMS_30 = Task("items", "recommendation", 30, active_days=90)

# RelBench rel-hm: 7-day windows.
USER_CHURN = Task("user-churn", "binary", 7, active_days=7)
ITEM_SALES = Task("item-sales", "regression", 7, active_days=None, view="item")
USER_ITEM_PURCHASE = Task("user-item-purchase", "recommendation", 7, given_buyers=True)

LEAVE_ONE_OUT = Task("next-item", "recommendation", 0, k=10, filter_seen=True, leave_one_out=True)


@dataclass(frozen=True)
class Examples:
    """Entities at one timestamp with their labels.

    Attributes:
        cutoff: The timestamp T.
        entity: Codes of the population at T.
        target: One value for each entity; for a recommendation None.
        bought: For a recommendation, pairs (position in `entity`, item), distinct.
    """

    cutoff: int
    entity: np.ndarray
    target: np.ndarray | None = None
    bought: np.ndarray | None = None


def population(log: EventLog, task: Task, cutoff: int) -> np.ndarray:
    """Return the codes of the entities that *task* asks about at *cutoff*, from the past alone."""
    if task.view == "item" and task.active_days is None:
        return np.arange(log.num_entities, dtype=np.int64)
    after = log.start - 1 if task.active_days is None else cutoff - task.active_days * DAY
    return np.unique(log.between(after, cutoff).entity).astype(np.int64)


def examples(log: EventLog, task: Task, cutoff: int, who: np.ndarray | None = None) -> Examples:
    """Return the labels of *task* at *cutoff*.

    Raises:
        ValueError: The window reaches past the last second observed.
    """
    until = cutoff + task.horizon_days * DAY
    if until > log.end:
        raise ValueError(
            f"The {task.horizon_days}-day window after {day_text(cutoff)} ends past the data, "
            f"which was observed until {day_text(log.end)}. Choose an earlier timestamp."
        )
    entity = population(log, task, cutoff) if who is None else who
    future = log.between(cutoff, until)
    row = np.full(log.num_entities, -1, np.int64)
    row[entity] = np.arange(len(entity))
    rows = row[future.entity]
    known = rows >= 0
    if task.kind == "recommendation":
        pairs = np.unique(rows[known] * log.num_items + future.item[known])
        bought = np.stack([pairs // log.num_items, pairs % log.num_items], axis=1)
        return Examples(cutoff, entity, bought=bought)
    if task.kind == "binary":
        lines = np.bincount(rows[known], minlength=len(entity))
        return Examples(cutoff, entity, target=(lines == 0).astype(np.float64))
    money = np.bincount(rows[known], future.amount[known], minlength=len(entity))
    return Examples(cutoff, entity, target=money)


@dataclass(frozen=True)
class Problem:
    """What a method is given: the past, the question and whom to answer it for."""

    dataset: str
    task: Task
    log: EventLog
    cutoff: int
    population: np.ndarray

    @property
    def validation_cutoff(self) -> int:
        """Latest timestamp whose label is known at the cut-off: for choosing."""
        return self.cutoff - self.task.horizon_days * DAY

    def examples(self, cutoff: int) -> Examples:
        """Return labelled examples at an earlier timestamp."""
        return examples(self.log, self.task, cutoff)

    def training_cutoffs(self, *, until: int, step_days: int, min_history_days: int) -> list[int]:
        """Return timestamps in steps back from *until*, latest first."""
        earliest = self.log.start + min_history_days * DAY
        return list(range(until, earliest, -step_days * DAY)) or [until]


def build_problem(dataset: str, log: EventLog, task: Task, cutoff: int) -> Problem:
    """Return the problem of *task* at *cutoff*; nothing after the cut-off is inside."""
    viewed = log.by_item() if task.view == "item" else log
    seen = viewed.until(cutoff)
    who = population(seen, task, cutoff)
    if task.given_buyers:
        buyers = np.unique(viewed.between(cutoff, cutoff + task.horizon_days * DAY).entity)
        who = buyers[buyers < seen.num_entities].astype(np.int64)
    return Problem(dataset, task, seen, cutoff, who)


def leave_one_out(
    dataset: str, log: EventLog, task: Task = LEAVE_ONE_OUT
) -> tuple[Problem, Examples]:
    """Return the problem of each entity's last event, and the answers.

    The last event is the last in time; among equal times, the last in file order.
    """
    last = np.zeros(len(log), bool)
    place = np.full(log.num_entities, -1, np.int64)
    place[log.entity] = np.arange(len(log))
    count = np.bincount(log.entity, minlength=log.num_entities)
    last[place[count > 1]] = True
    rest, held = log.select(~last), log.select(last)
    who = np.sort(held.entity).astype(np.int64)
    pairs = np.stack([np.searchsorted(who, held.entity), held.item.astype(np.int64)], axis=1)
    problem = Problem(dataset, task, rest, int(rest.time[-1]), who)
    return problem, Examples(problem.cutoff, who, bought=pairs[np.argsort(pairs[:, 0])])


def truth(log: EventLog, problem: Problem) -> Examples:
    """Return the labels of *problem*, for the judge alone."""
    viewed = log.by_item() if problem.task.view == "item" else log
    return examples(viewed, problem.task, problem.cutoff, problem.population)
