"""Scenario rows: which (main entity, split point) pairs to learn from, and their labels.

Several split points per entity, from the training range only. Labels come from the target
function, which sees events `<= split` as history and events after it, up to the end of the
range, as future.
"""

import dataclasses
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from monad.config.params import EntityIds
from monad.config.time_range import DAY_SECONDS, DataMode, shown
from monad.data.store import Column, Store
from monad.errors import DataError, NoTargetError, TargetFunctionError, nearest, problem
from monad.targets.attributes import Attributes
from monad.targets.events import DataSourceEvents, Events, Window
from monad.targets.sketches import Sketch
from monad.targets.windows import MODE, SPLIT_TIMESTAMP, TRAINING_END_TIMESTAMP
from monad.tasks import Task

logger = logging.getLogger("monad.run")
_USUAL_WINDOWS = (1, 2, 3, 7, 10, 14, 21, 28, 30, 31, 45, 60, 61, 90, 91, 120, 180, 182, 365)
_CHECKED_ENTITIES = 100
TargetFn = Callable[..., Any]


@dataclasses.dataclass
class Rows:
    """Labelled rows; targets are a matrix, or sketches for recommendation."""

    entities: np.ndarray
    stamps: np.ndarray
    targets: Any

    def __len__(self) -> int:
        return len(self.entities)

    def take(self, chosen: np.ndarray) -> "Rows":
        """Return some of the rows."""
        targets = self.targets
        if isinstance(targets, np.ndarray):
            picked: Any = targets[chosen]
        else:
            picked = [targets[i] for i in chosen]
        return Rows(self.entities[chosen], self.stamps[chosen], picked)


class _AttributeRow(Mapping[str, Any]):
    """The columns of one attribute source for one entity, read when asked for."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: dict[str, Column], entity: int) -> None:
        self._columns = columns
        self._row = slice(entity, entity + 1)

    def __getitem__(self, name: str) -> Any:
        found = self._columns.get(name)
        if found is None:  # Snowflake upper-cases names, so letter case does not matter
            same = (c for n, c in self._columns.items() if n.lower() == str(name).lower())
            found = next(same, None)
        if found is None:
            raise KeyError(f"No attribute `{name}`; {nearest(str(name), self._columns)}")
        return found.values(self._row)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Labeler:
    """Calls the target function for rows of a store."""

    def __init__(
        self, store: Store, target_fn: TargetFn, task: Task, label_end: int, mode: DataMode
    ) -> None:
        self.store = store
        self.target_fn = target_fn
        self.task = task
        self.label_end = label_end
        self.mode = mode
        self._warned = False
        self._said_infinite = False
        self._sources = {s.name: {c.name: c for c in s.columns} for s in store.attributes}

    def _attributes(self, entity: int) -> Attributes:
        rows = {name: _AttributeRow(columns, entity) for name, columns in self._sources.items()}
        return Attributes(rows)

    def label(
        self, entities: np.ndarray, stamps: np.ndarray, windows: list[Window] | None = None
    ) -> Rows:
        """Return the rows for which the target function returned a target.

        A row whose window reaches past the end of the labels is left out; with *windows*, which
        gets what each row's target function asked for, it is kept.
        """
        bounds = []
        ends = np.full(len(entities), self.label_end)
        for table in self.store.tables:
            begin = table.offsets[entities]
            now = table.position(entities, stamps)
            end = np.maximum(table.position(entities, ends), now)
            bounds.append((table, begin.tolist(), now.tolist(), end.tolist()))
        kept, targets = [], []
        for i in range(len(entities)):
            window = Window(self.label_end)
            made = self._one(i, int(entities[i]), int(stamps[i]), bounds, window)
            if made is not None and window.cut and windows is None:
                self._warn_truncated(int(stamps[i]))
                continue
            made = None if made is None else self._checked(made, int(entities[i]))
            if made is not None:
                kept.append(i)
                targets.append(made)
                if windows is not None:
                    windows.append(window)
        index = np.array(kept, dtype=np.int64)
        if self.task.kind != "recommendation":
            shape = (0, self.task.num_outputs)
            targets = np.stack(targets) if targets else np.zeros(shape, np.float32)  # type: ignore[assignment]
        return Rows(entities[index], stamps[index], targets)

    def _one(self, i: int, entity: int, stamp: int, bounds: list[Any], window: Window) -> Any:
        history = Events(
            {t.name: DataSourceEvents(t, slice(begin[i], now[i])) for t, begin, now, _ in bounds}
        )
        future = Events(
            {
                t.name: DataSourceEvents(t, slice(now[i], end[i]), None, window)
                for t, _, now, end in bounds
            }
        )
        ctx = {
            SPLIT_TIMESTAMP: stamp,
            MODE: self.mode,
            TRAINING_END_TIMESTAMP: self.label_end,
        }
        try:
            return self.target_fn(history, future, self._attributes(entity), ctx)
        except (Exception, SystemExit, GeneratorExit) as error:  # none may end a job as if done
            raise TargetFunctionError(
                problem(
                    "The target function raised",
                    f"{type(error).__name__}: {error} (main entity"
                    f" {self.store.entity_ids[entity]}, split point {shown(stamp)})",
                    "Fix target_fn; it is called with history, future, attributes, ctx",
                    whereabouts(self.target_fn, error),
                )
            ) from error

    def _warn_truncated(self, stamp: int) -> None:
        if not self._warned:
            logger.warning(
                "LEAK: the target function looks past the end of the labels at split point %d; such"
                " rows are left out, because their windows are cut short. Return None when"
                " has_incomplete_training_window(ctx, window) is true. %s",
                stamp,
                whereabouts(self.target_fn),
            )
            self._warned = True

    def _checked(self, made: Any, entity: int) -> Any:
        kind = self.task.kind
        if kind == "recommendation":
            if not isinstance(made, Sketch):
                raise self._wrong(made, "a Sketch; build one with sketch(items, weights)")
            return made if len(made) else None
        if isinstance(made, Sketch):
            raise self._wrong(made, "an array")
        if np.iscomplexobj(made):
            raise self._wrong(made, "an array of numbers")
        try:
            with np.errstate(over="ignore"):
                values = np.asarray(made, dtype=np.float32).reshape(-1)
        except (TypeError, ValueError):
            raise self._wrong(made, "an array of numbers") from None
        size = self.task.num_outputs
        by_index = kind == "multiclass" and len(values) == 1
        if len(values) != size and not by_index:
            more = f", or the task RegressionTask(num_targets={len(values)})"
            more = more if kind == "regression" else ""
            raise self._wrong(made, f"an array of length {size}{more}")
        if not np.isfinite(values).all():
            self._warn_not_finite(made, values, entity)
            return None
        if by_index:
            if values[0] not in range(size):
                raise self._wrong(made, f"a class index from 0 to {size - 1}, or {size} scores")
            return np.eye(size, dtype=np.float32)[int(values[0])]
        if kind == "multiclass":
            return self._shares(values, made)
        if kind in ("binary", "multilabel") and not np.isin(values, (0.0, 1.0)).all():
            raise self._wrong(made, "zeros and ones")
        return values

    def _warn_not_finite(self, made: Any, values: np.ndarray, entity: int) -> None:
        """Say once that rows are left out whose target is infinite or past 32 bits; NaN may be."""
        if np.isinf(values).any() and not self._said_infinite:
            logger.warning(
                "The target function returned %s (main entity %s); rows whose target is infinite or"
                " past the range of 32-bit floats are left out. %s",
                repr(made)[:100],
                self.store.entity_ids[entity],
                whereabouts(self.target_fn),
            )
            self._said_infinite = True

    def _shares(self, scores: np.ndarray, made: Any) -> np.ndarray | None:
        """Return the scores of classes as shares of one; None when there is none to divide by."""
        if (scores < 0).any():
            raise self._wrong(made, "scores that are not negative")
        total = scores.sum()
        return scores / total if total > 0 else None

    def _wrong(self, made: Any, wanted: str) -> TargetFunctionError:
        seen = f"{type(made).__name__} {made!r}"
        return TargetFunctionError(
            problem(
                "The target function returned something the task cannot use",
                f"{seen[:200]}; {self.task!r} needs {wanted}",
                "Return that, or None to leave the row out",
                whereabouts(self.target_fn),
            )
        )


def whereabouts(target_fn: TargetFn, error: BaseException | None = None) -> str:
    """Say where a target function is, or at which of its file's lines *error* was raised."""
    code = getattr(target_fn, "__code__", None)
    if code is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    lines = [frame.lineno for frame in frames if frame.filename == code.co_filename]
    return f"See {code.co_filename}, line {lines[-1] if lines else code.co_firstlineno}"


def active_entities(store: Store, stamp: int, among: np.ndarray) -> np.ndarray:
    """Return those of *among* with an event at or before *stamp*."""
    seen = np.zeros(len(among), dtype=bool)
    for table in store.tables:
        seen |= table.position(among, np.full(len(among), stamp)) > table.offsets[among]
    return among[seen]


def chosen_entities(store: Store, wanted: EntityIds) -> np.ndarray:
    """Return the main entities that are asked for; those the data lacks are counted in a warning.

    Raises:
        DataError: The data has none of them.
    """
    index = {str(name): i for i, name in enumerate(store.entity_ids.tolist())}
    names = wanted.resolve()
    missing = [name for name in names if name not in index]
    if len(missing) == len(names):
        raise DataError(
            problem(
                "None of the entity_ids is in the data",
                f"{len(names)} asked for, such as {names[0][:60]}; the data has {len(index)}, such"
                f" as {str(store.entity_ids[0])[:60]}",
                "Check how the ids are written",
            )
        )
    if missing:
        logger.warning(
            "%d of %d entity_ids are not in the data, such as %s",
            len(missing),
            len(names),
            missing[0],
        )
    return np.array([index[name] for name in names if name in index], dtype=np.int64)


def day_end(stamp: int) -> int:
    """Return the last second of the day before the one that *stamp* + 1 lies in, or itself."""
    return (stamp + 1) // DAY_SECONDS * DAY_SECONDS - 1


def latest_split(labeler: Labeler, among: np.ndarray, random: np.random.Generator) -> int | None:
    """Find the latest split point whose label window is complete."""
    end = day_end(labeler.label_end)
    for days in _USUAL_WINDOWS:
        stamp = end - days * DAY_SECONDS
        if stamp <= labeler.store.first_time:
            break
        active = active_entities(labeler.store, stamp, among)
        if not len(active):
            continue
        chosen = random.choice(active, min(_CHECKED_ENTITIES * 4, len(active)), replace=False)
        if len(labeler.label(chosen, np.full(len(chosen), stamp))):
            return stamp
    return None


def split_points(first: int, last: int, step_days: int = 7) -> np.ndarray:
    """Return split points from *last* backwards, leaving some history before the first."""
    warm_up = max(14 * DAY_SECONDS, (last - first) // 8)
    points = np.arange(last, first + warm_up, -step_days * DAY_SECONDS)
    return points if len(points) else np.array([last])


def sample_rows(
    labeler: Labeler,
    among: np.ndarray,
    points: np.ndarray,
    most_rows: int,
    random: np.random.Generator,
    seconds: float | None = None,
    per_entity: int | None = None,
) -> Rows:
    """Label up to *most_rows* random pairs of an active entity and a split point."""
    entities, stamps = [], []
    for point in points:
        active = active_entities(labeler.store, int(point), among)
        entities.append(active)
        stamps.append(np.full(len(active), point))
    who, when = np.concatenate(entities), np.concatenate(stamps)
    order = random.permutation(len(who))
    if per_entity is not None:
        order = order[_rank_within(who[order]) < per_entity]
    parts: list[Rows] = []
    found, begun, at = 0, time.monotonic(), 0
    while at < len(order) and found < most_rows:
        chunk = order[at : at + min(4096, max(2 * (most_rows - found), 256))]
        parts.append(labeler.label(who[chunk], when[chunk]))
        found += len(parts[-1])
        at += len(chunk)
        if seconds is not None and time.monotonic() - begun > seconds:
            break
    if not found:
        raise NoTargetError(
            problem(
                "The target function returned None for every row",
                f"{at} pairs of a main entity and a split point were tried",
                "Check its window against the training range, and its filters",
                whereabouts(labeler.target_fn),
            )
        )
    return joined(parts).take(np.arange(min(found, most_rows)))


def _rank_within(groups: np.ndarray) -> np.ndarray:
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(groups)), 0))
    made = np.empty(len(groups), dtype=np.int64)
    made[order] = np.arange(len(groups)) - first
    return made


def joined(parts: list[Rows]) -> Rows:
    """Concatenate rows."""
    targets: Any
    if isinstance(parts[0].targets, np.ndarray):
        targets = np.concatenate([part.targets for part in parts])
    else:
        targets = [target for part in parts for target in part.targets]
    return Rows(
        np.concatenate([part.entities for part in parts]),
        np.concatenate([part.stamps for part in parts]),
        targets,
    )
