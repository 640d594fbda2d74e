"""`MonadModuleImpl`: a scenario that can be fitted, tested and used for predictions."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monad.config.params import EntityIds, TestingParams, TrainingParams
from monad.config.support import warn_no_effect
from monad.config.time_range import DAY_SECONDS, DataMode, TimeRange, before, end_of, to_timestamp
from monad.config.values import instance
from monad.data.batches import RowReader
from monad.data.cache import open_store
from monad.data.pairs import feature_names
from monad.data.store import Store
from monad.errors import CheckpointError, ConfigError, DataError, problem
from monad.evaluation.baselines import item_baselines, vector_baselines
from monad.evaluation.catalogue import check_metrics, check_monitored, extra_metrics
from monad.evaluation.metrics import ranking, vector_metrics
from monad.io.checkpoint import (
    Checkpoint,
    check_trained,
    load_target_fn,
    load_weights,
    write_checkpoint,
)
from monad.io.predictions import DEFAULT_TOP_K, PredictionFile, Ranked, check_place, header
from monad.io.tables import PredictionsTable, rows_of_file, table_columns
from monad.io.writer import prepare_output, publish, scratch_directory
from monad.logs import configure_logging, log_metrics, run_logger
from monad.model.build import build_head
from monad.model.head import Head
from monad.model.items import ItemField
from monad.model.network import Network
from monad.tasks import Task
from monad.training.fitting import fit_scenario
from monad.training.refusals import clear_refusals
from monad.training.resume import Attempt
from monad.training.rows import Labeler, Rows, active_entities, chosen_entities, whereabouts
from monad.training.scenario import ScenarioBatches, infer
from monad.training.settings import training_end, training_params, uses_gpu

TargetFn = Callable[..., Any]
_ROWS = 128  # of one inference batch: small enough for the processor's caches


class MonadModuleImpl:
    """A task on top of a foundation model, or a loaded scenario."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        target_fn: TargetFn | None,
        *,
        trust_target_fn: bool = False,
        split: dict[DataMode, TimeRange] | None = None,
        entity_ids: Any = None,
    ) -> None:
        configure_logging()
        self.checkpoint = checkpoint
        self.task = task
        self.split = split or {}
        self.entity_ids = None
        if entity_ids is not None:
            self.entity_ids = instance(EntityIds, entity_ids, "entity_ids")
        self._target_fn = target_fn
        self._trust = trust_target_fn
        self._store: Store | None = None
        self.item_position = int(checkpoint.extra.get("item_position", -1))
        self.next_item = bool(checkpoint.extra.get("next_item", False))
        self.network = Network(checkpoint.representation, checkpoint.size)
        load_weights(self.network, checkpoint.network, checkpoint.path)
        self.pretrained = True
        self.head: Head | None = None
        if checkpoint.task is not None and checkpoint.head:
            self.head = self.make_head()
            load_weights(self.head, checkpoint.head, checkpoint.path)

    @property
    def store(self) -> Store:
        """The data, read on first use with the representation's column types."""
        if self._store is None:
            representation = self.checkpoint.representation
            config = self.checkpoint.config
            end = training_end(config)
            self._store, _ = open_store(config, end, representation.column_plans())
        return self._store

    @property
    def target_fn(self) -> TargetFn:
        """The target function; a stored one is unpickled here, with trust only."""
        if self._target_fn is None:
            self._target_fn = load_target_fn(self.checkpoint.path, self._trust)
        return self._target_fn

    def make_head(self) -> Head:
        """Build an untrained head for the task."""
        fields = self.checkpoint.representation.categories()
        if self.task.kind == "recommendation" and not fields:
            raise DataError(
                problem("A recommendation needs items", "the data has no categorical column")
            )
        if self.item_position < 0:
            self.item_position = self.checkpoint.representation.item_field()
        items = None
        if self.task.kind == "recommendation":
            field, names = fields[self.item_position], self.pair_names
            items = ItemField(self.item_position, field.size, names[0] + names[1], *map(len, names))
        return build_head(self.task, self.network, items, self.next_item)

    @property
    def pair_names(self) -> tuple[list[str], list[str]]:
        """Names of pair and of item features, which depend on the item table's number columns."""
        representation = self.checkpoint.representation
        owner = representation.categories()[self.item_position].owner
        numbers = [f for f in representation.fields if f.owner == owner and f.kind == "number"]
        return feature_names(len(numbers))

    def reader(self) -> RowReader:
        """Return a reader of the store in the network's encoding."""
        size = self.network.size
        return RowReader(
            self.store,
            self.checkpoint.representation,
            size.max_events,
            sketch_fields=size.sketch_fields,
        )

    def start_over(self, seed: int = 0) -> None:
        """Forget what pretraining learned: random weights, all of which the next `fit` may train.

        It shows what pretraining brings; a scenario is not better for it.
        """
        torch.manual_seed(seed)
        scaling = self.network.panel.mean, self.network.panel.deviation  # measured, not learned
        self.network = Network(self.checkpoint.representation, self.checkpoint.size)
        self.network.panel.mean.copy_(scaling[0])
        self.network.panel.deviation.copy_(scaling[1])
        self.pretrained = False

    def fit(self, training_params: TrainingParams | None = None, **overrides: Any) -> None:
        """Train on the training range and write the checkpoint to `checkpoint_dir`.

        Args:
            training_params: Fields that are given win over the foundation model's.
            overrides: Single fields, as an alternative to a `TrainingParams`.
        """
        given = training_params or TrainingParams(**overrides)
        params = inherited(self.checkpoint, given)
        check_metrics(params.metrics, self.task)
        check_monitored(params.metric_to_monitor, params.metrics, self.task)
        if params.loss is not None and self.task.kind == "recommendation":
            warn_no_effect("TrainingParams.loss of a recommendation task")
        output = Path(params.checkpoint_dir) if params.checkpoint_dir is not None else None
        if output is not None and prepare_output(output, params.resume, params.overwrite):
            run_logger.info("Resume: %s is complete, nothing to do", output)
            return
        with scratch_directory() as scratch:
            attempt = None
            if output is not None:
                settings = (self.checkpoint.config.raw, self.task.to_plain(), params.plain())
                attempt = Attempt.open(output, scratch, params.resume, "scenario", *settings)
            with clear_refusals(params):
                metrics = fit_scenario(self, params, scratch, attempt)
            check_trained(metrics, self.network, self.head)
            if output is None or attempt is None:
                run_logger.warning("checkpoint_dir is not set; the scenario is in memory only")
                return
            self._write(scratch, output, metrics)
            attempt.finish()

    def _write(self, scratch: Path, output: Path, metrics: dict[str, float]) -> None:
        checkpoint = self.checkpoint
        write_checkpoint(
            scratch,
            checkpoint.config,
            checkpoint.representation,
            self.network,
            self.head,
            self.task,
            self.target_fn,
            {"item_position": self.item_position, "next_item": self.next_item},
        )
        manifest = {
            "kind": "scenario_checkpoint",
            "config": checkpoint.config.raw,
            "metrics": metrics,
            "source_tables": self.store.facts["source_tables"],
        }
        made = publish(scratch, output, manifest)
        run_logger.info("Wrote %d files to %s", len(made["files"]), output)

    def test(self, testing_params: TestingParams) -> dict[str, float]:
        """Compute and log metrics on the test range, beside naive baselines."""
        self._warn_ignored(testing_params)
        stamp, end = self._test_range(testing_params)
        entities = self._entities(testing_params, stamp)
        labeler = Labeler(self.store, self.target_fn, self.task, end, DataMode.TEST)
        rows = labeler.label(entities, np.full(len(entities), stamp, dtype=np.int64))
        if not len(rows):
            raise DataError(
                problem(
                    "No main entity has a test target",
                    f"{len(entities)} entities with history, labels until {end} (UTC seconds)",
                    "Check test_start_date, test_end_date and the target function's window",
                    whereabouts(self.target_fn),
                )
            )
        predictions, wanted, used, batches = self._run(testing_params, rows)
        if self.task.kind == "recommendation":
            k = testing_params.top_k or DEFAULT_TOP_K
            metrics = {f"{n}_0": v for n, v in ranking(predictions, wanted, k).items()}
            assert batches.pairs is not None
            metrics |= item_baselines(batches.pairs, used.entities, used.stamps, wanted, k)
            metrics |= extra_metrics(testing_params.metrics, self.task, predictions, wanted)
        else:
            metrics = vector_metrics(self.task, predictions, used.targets)
            metrics |= extra_metrics(testing_params.metrics, self.task, predictions, used.targets)
            metrics |= vector_baselines(
                self.task, self.store, used.entities, used.stamps, used.targets
            )
        found = {f"test_{name}": float(value) for name, value in metrics.items()}
        found |= self._seen_by_training(stamp)
        found["test_rows"] = float(len(used))
        undefined = [name for name, value in found.items() if not np.isfinite(value)]
        if undefined:
            run_logger.warning(
                "%s cannot be computed on %d test rows: too few, or all targets alike",
                ", ".join(undefined),
                len(used),
            )
        text = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        log_metrics(run_logger, f"Test at {stamp}: {text}", found)
        return found

    def _seen_by_training(self, stamp: int) -> dict[str, float]:
        """Warn when training has seen the time that is tested: the metrics are then too good."""
        seen = self.checkpoint.representation.training_end
        if stamp >= seen:
            return {}
        days = (seen - stamp) / DAY_SECONDS
        run_logger.warning(
            "LEAK: the test's split point lies %.1f days before the end of the training range, so"
            " that training has seen what is tested; the metrics are too good. Pretrain with a"
            " training_end_date before the test range, or test at a later date",
            days,
        )
        return {"test_seen_by_training_days": days}

    def predict(self, testing_params: TestingParams) -> int:
        """Write predictions for every main entity with history; returns their number."""
        self._warn_ignored(testing_params)
        stamp = self._prediction_stamp(testing_params)
        entities = self._entities(testing_params, stamp)
        rows = Rows(entities, np.full(len(entities), stamp, dtype=np.int64), None)
        begun = time.monotonic()
        count = self._run(testing_params, rows)[2]
        log_metrics(
            run_logger,
            f"Predicted {len(count)} main entities at {stamp} in"
            f" {time.monotonic() - begun:.1f} seconds",
            {"rows": len(count), "prediction_stamp": stamp},
        )
        return len(count)

    def _warn_ignored(self, params: TestingParams) -> None:
        """Warn of testing parameters that have no effect on this task."""
        kind = self.task.kind
        if params.top_k is not None and kind not in ("recommendation", "multilabel"):
            warn_no_effect(f"TestingParams.top_k of a {kind} task", "every score is written")
        if params.predictions_threshold is not None and kind not in ("binary", "multilabel"):
            warn_no_effect(f"TestingParams.predictions_threshold of a {kind} task")
        check_metrics(params.metrics, self.task)
        if params.local_save_location is not None:
            check_place(Path(params.local_save_location))

    def _run(self, params: TestingParams, rows: Rows) -> tuple[Any, Any, Rows, ScenarioBatches]:
        """Infer over rows, writing the file when one is asked for; keeps results with targets."""
        if self.head is None:
            raise CheckpointError(
                problem(
                    "This scenario is not trained", do="Call fit, or load a scenario checkpoint"
                )
            )
        batches = ScenarioBatches(self.reader(), self.task, self.item_position, 65_536)
        if self.next_item:
            batches.pair_features, batches.most_events = False, None
        device = _device(params)
        order = np.argsort(batches.reader.lengths(rows.entities, rows.stamps), kind="stable")
        ordered = rows if rows.targets is None else rows.take(order)
        if rows.targets is None:
            ordered = Rows(rows.entities[order], rows.stamps[order], None)
        made: list[Any] = []
        wanted: list[np.ndarray] = []
        with scratch_directory() as scratch:
            file = None
            columns = header(self.task, params.top_k)
            if params.remote_save_location is not None:
                with PredictionsTable(params.remote_save_location) as table:
                    table.prepare(table_columns(columns))
            if params.local_save_location is not None or params.remote_save_location is not None:
                file = PredictionFile(scratch / "predictions.tsv", columns)
            done = 0
            parts = self._batches(batches, ordered, params.limit_test_batches)
            timed = training_params(self.checkpoint.config).time_budget_seconds is not None
            outputs = infer(self.network, self.head, parts, device, timed)
            for output, batch in _autocast(outputs, params):
                values = self._decoded(output, params, batches)
                done += len(output)
                if rows.targets is not None:
                    made.extend(values[2])
                    if self.task.kind == "recommendation":
                        owners = batch["target_rows"].numpy()
                        items = batch["target_items"].numpy()
                        wanted.extend(items[owners == i] for i in range(len(output)))
                if file is not None:
                    ids = self.store.entity_ids[batch["entities"].numpy()]
                    if isinstance(values[0], Ranked):
                        file.add_ranked(ids.tolist(), values[0])
                    else:
                        file.add(ids.tolist(), values[0])
            used = Rows(ordered.entities[:done], ordered.stamps[:done], None)
            if rows.targets is not None:
                used = ordered.take(np.arange(done))
            if file is not None:
                file.close()
                if params.remote_save_location is not None:
                    made_columns = table_columns(columns)
                    saved = rows_of_file(scratch / "predictions.tsv", made_columns)
                    with PredictionsTable(params.remote_save_location) as table:
                        table.replace(made_columns, saved, int(rows.stamps[0]))
                if params.local_save_location is not None:
                    self._save(file, scratch, params)
        predictions = made if self.task.kind == "recommendation" else np.array(made)
        return predictions, wanted, used, batches

    def _batches(
        self, batches: ScenarioBatches, rows: Rows, limit: int | None
    ) -> Iterator[dict[str, Any]]:
        for number, at in enumerate(range(0, len(rows), _ROWS)):
            if limit is not None and number >= limit:
                return
            chosen = np.arange(at, min(at + _ROWS, len(rows)))
            if rows.targets is None:
                yield batches.read(Rows(rows.entities[chosen], rows.stamps[chosen], None))
            else:
                yield batches.read(rows.take(chosen))

    def _decoded(
        self, output: torch.Tensor, params: TestingParams, batches: ScenarioBatches
    ) -> tuple[Any, Any, Any]:
        """Return the file's rows, nothing, and the values that metrics need."""
        assert self.head is not None
        if self.task.kind == "recommendation":
            k = params.top_k or DEFAULT_TOP_K
            known = len(batches.item_field.values) + 2
            best = torch.topk(output[:, :known], min(k, known - 2))
            ranked = Ranked(batches.item_names, best.indices.numpy(), best.values.numpy(), k)
            return ranked, None, list(best.indices.numpy())
        raw = params.output_type == "raw" and self.task.kind != "regression"
        decoded = self.head.decode(output)
        shown: Any = output.numpy() if raw else decoded
        if params.predictions_threshold is not None and self.task.kind in ("binary", "multilabel"):
            shown = (decoded >= params.predictions_threshold).astype(int)
        if params.top_k is not None and self.task.kind == "multilabel":
            best = np.argsort(-decoded, axis=1, kind="stable")[:, : params.top_k]
            shown = np.zeros(decoded.shape, dtype=int)
            np.put_along_axis(shown, best, 1, axis=1)
        return shown, None, decoded

    def _save(self, file: PredictionFile, scratch: Path, params: TestingParams) -> None:
        target = Path(str(params.local_save_location))
        if target.name != "predictions.tsv":
            (scratch / "predictions.tsv").rename(scratch / target.name)
        manifest = {
            "kind": "predictions",
            "config": self.checkpoint.config.raw,
            "source_tables": self.store.facts["source_tables"],
            "metrics": {"rows": file.rows},
        }
        publish(scratch, target.parent, manifest)
        run_logger.info("Wrote %d predictions to %s", file.rows, target)

    def _entities(self, params: TestingParams, stamp: int) -> np.ndarray:
        everyone = np.arange(self.store.num_entities)
        chosen = params.entity_ids or self.entity_ids
        if chosen is not None:
            everyone = chosen_entities(self.store, chosen)
        active = active_entities(self.store, stamp, everyone)
        if chosen is not None and len(active) < len(everyone):
            run_logger.warning(
                "%d of the entity_ids have no event at or before the prediction date and get no"
                " prediction",
                len(everyone) - len(active),
            )
        if not len(active):
            raise DataError(
                problem(
                    "No main entity has an event at or before the prediction date",
                    f"prediction date {stamp}, first event {self.store.first_time} (UTC seconds)",
                    "Choose a later prediction_date or check entity_ids",
                )
            )
        return active

    def _prediction_stamp(self, params: TestingParams) -> int:
        if params.prediction_date is not None:
            stamp = to_timestamp(params.prediction_date, "prediction_date")
            if stamp > self.store.last_time + 366 * 86_400:
                raise ConfigError(
                    problem(
                        "prediction_date is more than a year after the last event",
                        f"{params.prediction_date}, last event {self.store.last_time}",
                    )
                )
            return stamp
        return self.store.last_time

    def _test_range(self, params: TestingParams) -> tuple[int, int]:
        dates = self.checkpoint.config.data_params
        given = self.split.get(DataMode.TEST)
        start = given.start_date if given else dates.test_start_date
        end = given.end_date if given else dates.test_end_date
        label_end = end_of(end, "test_end_date") if end is not None else self.store.last_time
        if params.prediction_date is not None:
            return to_timestamp(params.prediction_date, "prediction_date"), label_end
        if start is None:
            raise ConfigError(
                problem(
                    "test needs a date",
                    "neither prediction_date nor data_params.test_start_date is set",
                    "Set one of them",
                )
            )
        return before(start, "test_start_date"), label_end


def _device(params: TestingParams) -> str:
    """Return the one device that is used: the first of a list, else the current one."""
    if not uses_gpu(params):
        return "cpu"
    if isinstance(params.devices, list) and params.devices:
        return f"cuda:{int(params.devices[0])}"
    return "cuda"


def _autocast(parts: Iterator[Any], params: TestingParams) -> Iterator[Any]:
    """Run an inference in the precision asked for; each step is entered and left whole."""
    half = torch.float16 if str(params.precision) == "16-mixed" else torch.bfloat16
    kind = _device(params).partition(":")[0]
    while True:
        with torch.autocast(kind, dtype=half, enabled="mixed" in str(params.precision)):
            found = next(parts, None)
        if found is None:
            return
        yield found


def inherited(checkpoint: Checkpoint, given: TrainingParams) -> TrainingParams:
    """Return the foundation model's training parameters with *given* on top."""
    return training_params(checkpoint.config).merged(given)
