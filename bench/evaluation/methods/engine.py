"""The open engine through its documented API, as its scripts use it: pretrain, fine-tune, predict.

The tables hold the past alone. Only a time budget, a device and a seed are set: nothing is tuned here.
The foundation model of a data set, cut-off and seed serves all its tasks; its seconds are in the facts.
"""

import fcntl
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.events import DAY, EventLog
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.methods.engine_targets import SOURCE, task_and_target
from bench.evaluation.ranking import fill_up, popular_items, seen_pairs

DEFAULT_BUDGET_SECONDS, QUICK_BUDGET_SECONDS = 120.0, 15.0
MAX_TOP_K = 4000


class Engine:
    """The engine of this project, importable as `monad`."""

    name = "engine"
    kinds = ("binary", "regression", "recommendation")
    environment = "engine"
    seeded = True
    leave_one_out = True
    label_share = 1.0
    from_scratch = False

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Pretrain (once for all tasks), fine-tune, predict at the cut-off."""
        import monad
        from monad.config import EntityIds, OutputType, TestingParams, TrainingParams
        from monad.ui.module import load_from_foundation_model

        quick = QUICK_BUDGET_SECONDS if effort.quick else DEFAULT_BUDGET_SECONDS
        budget = effort.budget_seconds or quick
        work = Path(effort.work_dir)
        shared = foundation_dir(problem, effort, budget, getattr(monad, "__version__", "0"))
        pretrain_budget, pretrain_seconds = budget, pretrained(problem, shared, budget, effort.seed)
        began = time.perf_counter()
        task, target_fn = task_and_target(problem.task, self.label_share)
        module = load_from_foundation_model(
            checkpoint_path=shared / "foundation_model",
            downstream_task=task,
            target_fn=target_fn,
        )
        if self.from_scratch:
            module.start_over(effort.seed)
            budget += pretrain_budget
        module.fit(
            TrainingParams(
                checkpoint_dir=work / f"checkpoints-{time.time_ns()}",
                time_budget_seconds=budget,
                seed=effort.seed,
            )
        )
        fit_seconds = time.perf_counter() - began
        fields: dict[str, Any] = {}
        if problem.task.kind == "recommendation":
            fields["top_k"] = top_k(problem)
        file = work / f"predictions-{time.time_ns()}.tsv"
        module.predict(
            TestingParams(
                output_type=OutputType.DECODED,
                local_save_location=file,
                prediction_date=datetime.fromtimestamp(problem.cutoff, UTC).replace(tzinfo=None),
                entity_ids=EntityIds(ids=problem.log.entity_ids[problem.population].tolist()),
                **fields,
            )
        )
        values, answered = read_predictions(file, problem)
        facts = {
            "budget_seconds": budget,
            "pretrain_seconds": pretrain_seconds,
            "fit_seconds": fit_seconds,
            "label_share": self.label_share,
            "from_scratch": self.from_scratch,
            "predict_seconds": time.perf_counter() - began - fit_seconds,
            "answered": answered,
            "engine": getattr(monad, "__version__", "unknown"),
        }
        return Prediction(values, facts)


class EngineLabels1(Engine):
    """The engine with one label in a hundred."""

    name = "engine-labels-1"
    kinds = ("binary",)
    leave_one_out = False
    label_share = 0.01


class EngineLabels10(EngineLabels1):
    """The engine with one label in ten."""

    name = "engine-labels-10"
    label_share = 0.1


class EngineFromScratch(EngineLabels1):
    """The same network without what pretraining taught it, with pretraining's time on top."""

    name = "engine-from-scratch"
    label_share = 1.0
    from_scratch = True


class EngineFromScratchLabels1(EngineFromScratch):
    """The network from scratch with one label in a hundred."""

    name = "engine-from-scratch-labels-1"
    label_share = 0.01


class EngineFromScratchLabels10(EngineFromScratch):
    """The network from scratch with one label in ten."""

    name = "engine-from-scratch-labels-10"
    label_share = 0.1


def top_k(problem: Problem) -> int:
    """Return how many items to ask for, so that k are left once seen ones are taken out."""
    if not problem.task.filter_seen:
        return problem.task.k
    longest = int(np.bincount(problem.log.entity).max())
    return min(problem.task.k + longest, problem.log.num_items, MAX_TOP_K)


def foundation_dir(problem: Problem, effort: Effort, budget: float, version: str) -> Path:
    """Return the folder of the foundation model that the tasks of a cut-off share."""
    name = f"engine-{version}-{problem.task.view}-{effort.seed}-{budget:g}"
    return Path(effort.work_dir).parents[1] / "foundation" / name


def pretrained(problem: Problem, folder: Path, budget: float, seed: int) -> float:
    """Train the foundation model in *folder* unless it is there, and return its seconds."""
    done = folder / "seconds.json"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # cells that share it may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return float(json.loads(done.read_text()))
        return _pretrained(problem, folder, budget, seed)


def _pretrained(problem: Problem, folder: Path, budget: float, seed: int) -> float:
    from monad.ui import pretrain

    write_tables(problem.log, folder)
    config = folder / "fm_config.yaml"
    config.write_text(json.dumps(configuration(problem, folder, budget, seed), indent=1))
    began = time.perf_counter()
    pretrain(config_path=config, output_path=folder / "foundation_model", overwrite=True)
    seconds = time.perf_counter() - began
    (folder / "seconds.json").write_text(json.dumps(seconds))
    return seconds


def write_tables(log: EventLog, folder: Path) -> None:
    """Write events and attributes as Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def texts(name: str, codes: np.ndarray) -> pa.Array:
        labels = np.append(log.labels[name], "")
        return pa.array(labels[codes], mask=codes < 0)

    columns: dict[str, Any] = {
        "entity_id": log.entity_ids[log.entity],
        "item_id": log.item_ids[log.item],
        "event_time": pa.array(log.time.astype("datetime64[s]")).cast(pa.timestamp("us")),
        "basket_id": np.char.add("b", log.basket.astype(str)),
        "amount": log.amount,
        **log.numeric,
    }
    columns |= {name: texts(name, codes) for name, codes in log.category.items()}
    pq.write_table(pa.table(columns), folder / "events.parquet")
    sides = (
        ("items", "item_id", log.item_ids, log.item_attributes),
        ("entities", "entity_id", log.entity_ids, log.entity_attributes),
    )
    for name, key, ids, attributes in sides:
        if attributes:
            table = {key: ids} | {n: texts(n, codes) for n, codes in attributes.items()}
            pq.write_table(pa.table(table), folder / f"{name}.parquet")


def configuration(problem: Problem, folder: Path, budget: float, seed: int) -> dict[str, Any]:
    """Return the foundation model's configuration (JSON is YAML)."""
    log = problem.log

    def location(name: str) -> dict[str, Any]:
        path = str(folder / f"{name}.parquet")
        return {"database_type": "parquet", "connection_params": {"path": path}, "table_name": name}

    events: dict[str, Any] = {
        "type": "event",
        "name": SOURCE,
        "main_entity_column": "entity_id",
        "date_column": {"name": "event_time"},
        "data_location": location("events"),
    }
    sources = [events]
    if log.item_attributes:
        join = {"name": "items", "join_on": [["item_id", "item_id"]]}
        events["joined_data_sources"] = [join]
        sources.append({"type": "attribute", "name": "items", "data_location": location("items")})
    if log.entity_attributes:
        entity = {"type": "main_entity_attribute", "name": "entities"}
        entity |= {"main_entity_column": "entity_id", "data_location": location("entities")}
        sources.append(entity)
    return {
        "data_sources": sources,
        "data_params": {
            "data_start_date": datetime.fromtimestamp(log.start, UTC).strftime("%Y-%m-%d"),
            "training_end_date": training_end(log, problem.cutoff),
        },
        "training_params": {"time_budget_seconds": budget, "seed": seed},
    }


def training_end(log: EventLog, cutoff: int) -> str:
    """Return the last day of training; data of whole days include the cut-off's own day."""
    whole_days = not (log.time % DAY).any()
    last = cutoff if whole_days or cutoff % DAY else cutoff - 1
    text = "%Y-%m-%d" if whole_days or cutoff % DAY == 0 else "%Y-%m-%d %H:%M:%S"
    return datetime.fromtimestamp(last, UTC).strftime(text)


def read_predictions(file: Path, problem: Problem) -> tuple[np.ndarray, int]:
    """Return the predictions in the order of the population, and how many rows were answered.

    Rows without an answer get the mean probability, zero, or the popular items.
    """
    place = {str(problem.log.entity_ids[e]): row for row, e in enumerate(problem.population)}
    with file.open(encoding="utf-8") as stream:
        header = next(stream).rstrip("\n").split("\t")
        rows = [line.rstrip("\n").split("\t") for line in stream]
    rows = [row for row in rows if row[0] in place]
    if problem.task.kind == "recommendation":
        return read_lists(header, rows, place, problem), len(rows)
    values = np.full(len(place), np.nan)
    for row in rows:
        values[place[row[0]]] = float(row[1])
    neutral = float(np.nanmean(values)) if problem.task.kind == "binary" and rows else 0.0
    return np.where(np.isfinite(values), values, neutral), len(rows)


def read_lists(
    header: list[str], rows: list[list[str]], place: dict[str, int], problem: Problem
) -> np.ndarray:
    """Return item lists (rows x k), seen items taken out where the task says so."""
    columns = [index for index, name in enumerate(header) if name.startswith("item_")]
    code = {str(name): index for index, name in enumerate(problem.log.item_ids)}
    seen, k = seen_pairs(problem), problem.task.k
    lists = np.full((len(place), k), -1, np.int64)
    for row in rows:
        at = place[row[0]]
        items = [code[row[i]] for i in columns if i < len(row) and row[i] in code]
        if seen is not None:
            items = [item for item in items if (at << 32) + item not in seen]
        lists[at, : len(items[:k])] = items[:k]
    return fill_up(lists, popular_items(problem), seen)
