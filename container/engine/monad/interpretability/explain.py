"""`interpret` and `interpret_entity`: which inputs moved the predictions."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monad.config.support import not_built, warn_no_effect
from monad.config.time_range import DAY_SECONDS, shown, to_timestamp
from monad.errors import CheckpointError, ConfigError, DataError, nearest, problem
from monad.interpretability.attribution import attribute, background, check_method, chosen_index
from monad.interpretability.importance import Importance
from monad.interpretability.inputs import EVENT, TIME, Entries, InputNames
from monad.io.writer import copy_once, publish, scratch_directory
from monad.logs import log_metrics, run_logger
from monad.model.gates import References
from monad.model.heads import to_device
from monad.training.module import MonadModuleImpl
from monad.training.rows import Rows, active_entities
from monad.training.scenario import ScenarioBatches

_STALE_DAYS = 60
_BACKGROUND = 256
_MULTIPLE = ("multiclass", "multilabel")


def interpret(
    predictions_path: Path | str,
    output_path: Path | str,
    checkpoint_path: Path | str,
    device: str,
    prediction_date: datetime | None = None,
    limit_batches: int | None = None,
    target_index: int | None = None,
    classification_resample: bool = False,
    recommended_value: Any = None,
    group_size: int = 500,
    method: str = "integrated_gradients",
    save_shap_plots: bool = False,
) -> None:
    """Attribute the predictions of many entities to sources, columns and values.

    Args:
        predictions_path: The predictions; their main entities are explained.
        output_path: Directory of the result; what it holds is replaced file by file.
        checkpoint_path: The scenario's checkpoint directory.
        device: `cpu` or `cuda`.
        prediction_date: The history's cut-off; now when left out.
        limit_batches: Groups of entities to read at most.
        target_index: The class or target to explain; each row's largest when left out.
        classification_resample: Take as many entities of each predicted class.
        recommended_value: The item to explain; needed for recommendations.
        group_size: Entities in a group.
        method: `integrated_gradients` or `gradient_shap`.
        save_shap_plots: Not built: raises when set.
    """
    if save_shap_plots:
        raise not_built(
            "save_shap_plots is not built in this engine",
            "the SHAP report is not part of it",
            "Leave it out; the JSON files hold the same numbers",
        )
    check_method(method)
    if group_size < 1:
        raise ConfigError(problem("group_size must be positive", f"got {group_size}"))
    if limit_batches is not None and limit_batches < 1:
        raise ConfigError(problem("limit_batches must be positive", f"got {limit_batches}"))
    explainer = Explainer(checkpoint_path, device, prediction_date)
    explainer.choose(target_index, recommended_value)
    if classification_resample and explainer.module.task.kind not in ("binary", *_MULTIPLE):
        warn_no_effect(f"classification_resample of {explainer.module.task!r}")
    ids, scores = read_predictions(predictions_path)
    if classification_resample:
        ids = resampled(ids, scores, explainer.module.task.kind)
    entities = explainer.entities(ids)
    found = Importance()
    for number, at in enumerate(range(0, len(entities), group_size)):
        if limit_batches is not None and number >= limit_batches:
            break
        group = entities[at : at + group_size]
        found.add(list(explainer.entries(group, method)), len(group))
    facts = {
        "method": method,
        "prediction_date": _written(explainer.stamp),
        "task": explainer.module.task.to_plain()["task"],
        "target_index": None if target_index is None else int(target_index),
        "recommended_value": getattr(recommended_value, "tolist", lambda: recommended_value)(),
    }
    with scratch_directory() as scratch:
        found.write(scratch, facts)
        publish(scratch, Path(output_path), explainer.manifest("interpretation"))
    shares = found.sources()
    log_metrics(
        run_logger,
        f"Explained {found.rows} main entities at {shown(explainer.stamp)}: "
        + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()),
        {"rows": found.rows},
    )


def interpret_entity(
    output_path: Path | str,
    checkpoint_path: Path | str,
    predictions_path: Path | str,
    main_entity_id: Any,
    device: str,
    prediction_date: datetime | None = None,
    target_index: int | None = None,
) -> None:
    """Attribute one main entity's prediction to its events and attributes, as JSON.

    For recommendations the entity's first recommended item is explained. *output_path* is the
    file, or the directory in which `entity_<id>.json` is written.
    """
    explainer = Explainer(checkpoint_path, device, prediction_date)
    ids, _ = read_predictions(predictions_path)
    if str(main_entity_id) not in set(ids):
        raise DataError(
            problem(
                f"Main entity {main_entity_id} is not in the predictions",
                f"{len(ids)} predictions in {predictions_path}",
                nearest(str(main_entity_id), ids),
            )
        )
    explainer.choose(target_index, None, first_item=True)
    entities = explainer.entities([str(main_entity_id)])
    made = by_event(explainer, list(explainer.entries(entities, "integrated_gradients")))
    target = Path(output_path)
    if target.suffix != ".json":
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in str(main_entity_id))
        target = target / f"entity_{safe}.json"
    with scratch_directory() as scratch:
        file = scratch / target.name
        file.write_text(json.dumps(made, indent=1), encoding="utf-8")
        copy_once(file, target)
    run_logger.info("Wrote the explanation of main entity %s to %s", main_entity_id, target)


def _written(stamp: float) -> str:
    return datetime.fromtimestamp(float(stamp), UTC).strftime("%d-%m-%Y, %H:%M:%S")


def read_predictions(path: Path | str) -> tuple[list[str], np.ndarray]:
    """Return the ids and the numeric columns of a predictions file."""
    path = Path(path)
    if path.is_dir():
        path = path / "predictions.tsv"
    if not path.is_file():
        raise DataError(
            problem("The predictions do not exist", f"path {path}", "Give the .tsv of predict")
        )
    with path.open(encoding="utf-8") as lines:
        header = next(lines, "").rstrip("\n").split("\t")
        if header[0] != "main_entity_id":
            raise DataError(
                problem(
                    f"{path} is not a predictions file",
                    f"its first column is `{header[0]}`, not `main_entity_id`",
                    "Give the .tsv that predict wrote",
                )
            )
        cells = [line.rstrip("\n").split("\t") for line in lines]
    ids = [row[0] for row in cells]
    try:
        scores = np.array([row[1:] for row in cells], dtype=np.float64)
    except ValueError:  # item ids that are no numbers
        scores = np.zeros((len(ids), 0))
    return ids, scores


def resampled(ids: list[str], scores: np.ndarray, kind: str) -> list[str]:
    """Return as many ids of each predicted class: above and below 0.5, or the best class."""
    if kind not in ("binary", *_MULTIPLE) or not scores.size:
        return ids
    classes = (scores[:, 0] >= 0.5).astype(int) if kind == "binary" else scores.argmax(1)
    found, counts = np.unique(classes, return_counts=True)
    random = np.random.default_rng(0)
    chosen = [
        random.choice(np.flatnonzero(classes == one), counts.min(), replace=False) for one in found
    ]
    return [ids[i] for i in np.sort(np.concatenate(chosen))]


class Explainer:
    """A scenario with its data, and what of its output is explained."""

    def __init__(
        self, checkpoint_path: Path | str, device: str, prediction_date: datetime | None
    ) -> None:
        from monad.ui.module import load_from_checkpoint

        if str(device) not in ("cpu", "cuda"):
            raise ConfigError(problem(f"device is `{device}`", do="Use cpu or cuda"))
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(problem("device is cuda and there is no GPU", do="Use cpu"))
        self.device = str(device)
        self.module: MonadModuleImpl = load_from_checkpoint(checkpoint_path)
        if self.module.head is None:
            raise CheckpointError(problem(f"{checkpoint_path} holds no trained head"))
        self.module.network.to(self.device)
        self.module.head.to(self.device)
        self.stamp = to_timestamp(prediction_date or datetime.now(UTC), "prediction_date")
        late = (self.stamp - self.module.store.last_time) / DAY_SECONDS
        if late > _STALE_DAYS:
            run_logger.warning(
                "The last event lies %.0f days before the prediction date %s; give the"
                " prediction_date of the predictions",
                late,
                _written(self.stamp),
            )
        task, position = self.module.task, self.module.item_position
        self.batches = ScenarioBatches(self.module.reader(), task, position, 65_536)
        self.names = InputNames(
            self.batches.reader, position if task.kind == "recommendation" else -1
        )
        self._references = self._background()
        self._target: int | None = None
        self._item: int | None = None

    def _background(self) -> References:
        store = self.module.store
        active = active_entities(store, self.stamp, np.arange(store.num_entities))
        if not len(active):
            raise self._nobody(f"first event {_written(store.first_time)}")
        random = np.random.default_rng(0)
        chosen = np.sort(random.choice(active, min(_BACKGROUND, len(active)), replace=False))
        stamps = np.full(len(chosen), self.stamp, dtype=np.int64)
        batch = to_device(self.batches.reader.read(chosen, stamps), self.device)
        return background(self.module.network, batch)

    def _nobody(self, observed: str) -> DataError:
        return DataError(
            problem(
                "None of the predictions' main entities has history",
                f"{observed}, prediction date {_written(self.stamp)}",
                "Check predictions_path and prediction_date",
            )
        )

    def choose(
        self, target_index: int | None, recommended_value: Any, first_item: bool = False
    ) -> None:
        """Set which output is explained."""
        task = self.module.task
        if task.kind == "recommendation" and target_index is not None:
            warn_no_effect(f"target_index of {task!r}", "recommended_value is the item")
        if task.kind != "recommendation" and recommended_value is not None:
            warn_no_effect(f"recommended_value of {task!r}", "target_index is the output")
        if task.kind == "recommendation":
            if recommended_value is None and not first_item:
                raise ConfigError(
                    problem(
                        "recommended_value is required for a recommendation",
                        do="Give the item whose score is to be explained",
                    )
                )
            if recommended_value is not None:
                code = int(self.batches.item_codes(np.array([recommended_value]))[0])
                if not code:
                    raise ConfigError(
                        problem(
                            f"recommended_value {recommended_value} is not a known item",
                            nearest(str(recommended_value), self.batches.item_field.values),
                        )
                    )
                self._item = code
            return
        if target_index is not None and not (
            isinstance(target_index, (int, np.integer)) and 0 <= target_index < task.num_outputs
        ):
            raise ConfigError(
                problem(
                    f"target_index is {target_index!r}",
                    f"{task!r} has {task.num_outputs} outputs",
                    f"Give 0 to {task.num_outputs - 1}",
                )
            )
        self._target = target_index

    def entities(self, ids: list[str]) -> np.ndarray:
        """Return the entities of *ids* that have history."""
        store = self.module.store
        index = {str(name): i for i, name in enumerate(store.entity_ids.tolist())}
        known = np.array([index[name] for name in ids if name in index], dtype=np.int64)
        active = active_entities(store, self.stamp, known) if len(known) else known
        if not len(active):
            raise self._nobody(f"{len(ids)} predictions, {len(known)} of them in the data")
        return active

    def entries(self, group: np.ndarray, method: str) -> Iterator[Entries]:
        """Yield the attributions of a group of entities."""
        rows = Rows(group, np.full(len(group), self.stamp, dtype=np.int64), None)
        batch = to_device(self.batches.read(rows), self.device)
        assert self.module.head is not None
        network, head = self.module.network, self.module.head
        index = chosen_index(head, network, batch, self._target, self._item)
        found = attribute(network, head, batch, index, self._references, method)
        yield from self.names.entries(batch, found)

    def manifest(self, kind: str) -> dict[str, Any]:
        """Return the manifest's content."""
        return {
            "kind": kind,
            "config": self.module.checkpoint.config.raw,
            "source_tables": self.module.store.facts["source_tables"],
        }


def by_event(explainer: Explainer, entries: list[Entries]) -> dict[str, list[dict[str, Any]]]:
    """Lay one row's attributions out by source and event, oldest first.

    What belongs to no event (aggregates, attributes) stands in a last entry of its source, at
    the prediction date.
    """
    times = explainer.batches.reader.store.stream.times
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for item in entries:
        for place, value, amount in zip(
            item.places.tolist(), item.values(), item.amounts.tolist(), strict=True
        ):
            inner = found.setdefault((item.source, place), {})
            entry = inner.setdefault(
                item.name,
                {
                    "data_source_name": item.source,
                    "name": item.name,
                    "value": item.source if item.name == EVENT else value,
                    "attribution": 0.0,
                },
            )
            entry["attribution"] += amount
    made: dict[str, list[dict[str, Any]]] = {}
    for (source, place), inner in sorted(found.items(), key=lambda kv: _order(kv[0])):
        stamp = _written(times[place] if place >= 0 else explainer.stamp)
        if TIME in inner:
            inner[TIME]["value"] = stamp
        made.setdefault(source, []).append(
            {"timestamp": stamp, "modality_attributions": list(inner.values())}
        )
    return made


def _order(key: tuple[str, int]) -> tuple[str, float]:
    return key[0], float("inf") if key[1] < 0 else float(key[1])
