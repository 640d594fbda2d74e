"""Problems, answers and predictions as .npz files: plain arrays, never pickled.

The file of a problem ends at its cut-off; the answers lie in another file that only the judge opens.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluation.definitions import Examples, Problem, Task
from bench.evaluation.events import EventLog

_ARRAYS = ("entity", "item", "time", "amount", "basket")
_GROUPS = ("numeric", "category", "entity_attributes", "item_attributes")


def _text(values: np.ndarray) -> np.ndarray:
    """Return texts as UTF-8 bytes of fixed width, which take a quarter of the room."""
    return np.char.encode(np.asarray(values, str), "utf-8")


def save_problem(path: Path, problem: Problem) -> None:
    """Write *problem* to *path*."""
    log = problem.log
    arrays: dict[str, np.ndarray] = {name: getattr(log, name) for name in _ARRAYS}
    arrays |= {"entity_ids": _text(log.entity_ids), "item_ids": _text(log.item_ids)}
    arrays["population"] = problem.population
    for group in _GROUPS:
        arrays |= {f"{group}:{name}": v for name, v in getattr(log, group).items()}
    arrays |= {f"labels:{name}": _text(values) for name, values in log.labels.items()}
    head = {
        "dataset": problem.dataset,
        "task": asdict(problem.task),
        "cutoff": problem.cutoff,
        "end": log.end,
        "closed_catalogue": log.closed_catalogue,
        "closed_entities": log.closed_entities,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, head=np.array(json.dumps(head)), **arrays)
    part.replace(path)


def load_problem(path: Path) -> Problem:
    """Read a problem from *path*."""
    with np.load(path, allow_pickle=False) as stored:
        head = json.loads(str(stored["head"]))
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*_GROUPS, "labels")}
        for key in stored.files:
            group, _, name = key.partition(":")
            if name:
                values = stored[key]
                groups[group][name] = (
                    np.char.decode(values, "utf-8") if group == "labels" else values
                )
        log = EventLog(
            **{name: stored[name] for name in _ARRAYS},
            entity_ids=np.char.decode(stored["entity_ids"], "utf-8"),
            item_ids=np.char.decode(stored["item_ids"], "utf-8"),
            end=head["end"],
            closed_catalogue=head["closed_catalogue"],
            closed_entities=head["closed_entities"],
            **groups,
        )
        task = Task(**head["task"])
        return Problem(head["dataset"], task, log, head["cutoff"], stored["population"])


def save_answers(path: Path, answers: Examples, num_items: int) -> None:
    """Write the answers of a problem to *path*."""
    values = {"target": answers.target} if answers.bought is None else {"bought": answers.bought}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        cutoff=np.array(answers.cutoff),
        entity=answers.entity,
        num_items=np.array(num_items),
        **values,
    )


def load_answers(path: Path) -> tuple[Examples, int]:
    """Read answers and the number of item codes from *path*."""
    with np.load(path, allow_pickle=False) as stored:
        given = {name: stored[name] for name in ("target", "bought") if name in stored.files}
        examples = Examples(int(stored["cutoff"]), stored["entity"], **given)
        return examples, int(stored["num_items"])


def write_json(path: Path, value: Any) -> None:
    """Write *value* as JSON in one step, so that a half-written file is never taken as finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True, default=_plain) + "\n")
    part.replace(path)


def _plain(value: Any) -> Any:
    """Return numpy scalars as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")
