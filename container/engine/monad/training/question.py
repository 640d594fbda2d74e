"""What a recommendation's target function asks for, found out by calling it.

Target functions are opaque and say the same thing in many ways. At random events of random entities
the target is compared with the events that follow: with the first one alone, and with the items in
the order in which they first occur.
"""

import dataclasses
from typing import Any

import numpy as np

from monad.data.representation import Representation
from monad.data.store import Column, Table
from monad.targets.events import Window
from monad.targets.sketches import Sketch
from monad.targets.values import label, labels
from monad.training.rows import Labeler, Rows

_ASKED = 300
_COMPARED = 100  # rows of which all events that follow are read
_FEWEST = 20
_SHARE = 0.98
REPEATED = 0.02  # share of answers from the history, below which a recommendation is of new items

NEXT, FOLLOWING, WINDOW, CHOSEN, OTHER = "next", "following", "window", "chosen", "other"
_ALONE = "; for the next item alone return sketch(future[source][column][:1])"
_UNDERSTOOD = {
    NEXT: "The target is the next item",
    FOLLOWING: f"The target is items of the events that follow{_ALONE}",
    WINDOW: f"The target is the items of a time window{_ALONE}",
    CHOSEN: f"The target is items chosen among those of the events that follow{_ALONE}",
    OTHER: f"The target is items in a way of its own{_ALONE}",
}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked for.

    Attributes:
        kind: NEXT: the item of the next event. FOLLOWING: items of the events that follow, however
            late: all of them, those of the first timestamp, or the first few. WINDOW: items of the
            events that follow within a time. CHOSEN: some items of those events. OTHER: anything
            else.
        field: Categorical field that the items are values of; -1 for OTHER.
        new: Whether what follows is, as a rule, none of the history's items.
    """

    kind: str
    field: int = -1
    new: bool = False

    @property
    def text(self) -> str:
        """What was understood, for the log."""
        return _UNDERSTOOD[self.kind]

    @property
    def by_event(self) -> bool:
        """Whether every event of a history is to teach which item follows.

        It is how next items are learned, and all that follows where nothing is taken twice. Where
        things are, what was taken often and lately says more (docs/decisions.md).
        """
        return self.kind == NEXT or (self.kind == FOLLOWING and self.new)


@dataclasses.dataclass
class _Answers:
    """Targets at random events, and the rows of the event table that they are compared with."""

    rows: Rows
    windows: list[Window]
    begin: np.ndarray
    follows: np.ndarray  # the first row after the split point
    end: np.ndarray  # after the last row that labels may look at


def question(
    labeler: Labeler, representation: Representation, random: np.random.Generator
) -> Question:
    """Return what the target function asks for."""
    tables = labeler.store.tables
    if len(tables) != 1 or not representation.categories():
        return Question(OTHER)
    found = _answers(labeler, tables[0], random)
    if len(found.rows) < _FEWEST:
        return Question(OTHER)
    field = representation.item_field_of(found.rows.targets)
    column = tables[0].column(representation.categories()[field].column)
    kind = NEXT if _is_next(found, column) else _kind(found, tables[0], column)
    return Question(kind, -1 if kind == OTHER else field, _are_new(found, column))


def _answers(labeler: Labeler, table: Table, random: np.random.Generator) -> _Answers:
    """Call the target function at random events that another event of the entity follows."""
    counts = np.diff(table.offsets)
    able = np.flatnonzero(counts > 1)
    if not len(able):
        nobody = np.zeros(0, dtype=np.int64)
        return _Answers(Rows(nobody, nobody, []), [], nobody, nobody, nobody)
    entities = random.choice(able, _ASKED)
    place = table.offsets[entities] + (random.random(_ASKED) * (counts[entities] - 1)).astype(int)
    order = np.unique(np.stack([entities, np.asarray(table.times[place])]), axis=1)
    order = order[:, random.permutation(order.shape[1])]
    entities, stamps = order[0], order[1]
    windows: list[Window] = []
    rows = labeler.label(entities, stamps, windows)
    return _Answers(
        rows,
        windows,
        table.offsets[rows.entities],
        table.position(rows.entities, rows.stamps),
        table.position(rows.entities, np.full(len(rows), labeler.label_end)),
    )


def _items(target: Sketch) -> set[Any]:
    """Return the names of the items that a target wants."""
    items, weights = target.combined()
    return set(labels(items[weights > 0]).tolist())


def _is_next(found: _Answers, column: Column) -> bool:
    """Tell whether targets are the item of the next event, and nothing else."""
    # A target may be there where no event follows: the row is then another entity's, or none.
    exists = found.follows < found.end
    values = column.values(np.where(exists, found.follows, 0)).tolist()
    same = [
        there and not len(target.masked) and _items(target) == {label(value)}
        for target, value, there in zip(found.rows.targets, values, exists.tolist(), strict=True)
    ]
    return bool(np.mean(same) >= _SHARE)


def _are_new(found: _Answers, column: Column) -> bool:
    """Tell whether next items are, as a rule, none of the history's."""
    repeated = [
        column.raw(row) in column.raw(slice(begin, row))
        for begin, row, end in zip(
            found.begin.tolist(), found.follows.tolist(), found.end.tolist(), strict=True
        )
        if row < end
    ]
    return bool(repeated) and float(np.mean(repeated)) < REPEATED


def _kind(found: _Answers, table: Table, column: Column) -> str:
    """Return what targets are that are more than the next item."""
    inside, prefix, basket, least, most = [], [], [], 0, len(table.times)
    for i in range(min(len(found.rows), _COMPARED)):
        target, row, end = found.rows.targets[i], int(found.follows[i]), int(found.end[i])
        wanted = _items(target)
        codes = column.raw(slice(row, end))
        first = np.sort(np.unique(codes, return_index=True)[1])
        first = first[codes[first] >= 0]
        names = labels(column.values(row + first)).tolist()
        size = len(wanted)
        inside.append(wanted <= set(names))
        prefix.append(not len(target.masked) and set(names[:size]) == wanted)
        if not prefix[-1]:
            continue
        together = int((np.asarray(table.times[row:end]) == table.times[row]).sum())
        basket.append(int((first < together).sum()) == size)
        least = max(least, int(first[size - 1]) + 1)
        most = min(most, int(first[size]) if size < len(first) else most)
    if np.mean(prefix) < _SHARE:
        return CHOSEN if np.mean(inside) >= _SHARE else OTHER
    bounded = [window.bounded for window in found.windows]
    cut = [window.cut for window in found.windows]
    if any(bounded) and not all(cut):
        return WINDOW
    # As many events in all rows, or all there are: else they end by something like a time.
    return FOLLOWING if least <= most or np.mean(basket) >= _SHARE else WINDOW
