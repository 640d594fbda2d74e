"""`MonadModuleImpl`: a scenario that can be fitted, tested and used for predictions."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from monad.config.params import TestingParams, TrainingParams
from monad.config.support import warn_no_effect
from monad.config.time_range import DAY_SECONDS, DataMode, shown
from monad.errors import DataError, problem
from monad.evaluation.baselines import item_baselines, vector_baselines
from monad.evaluation.catalogue import check_metrics, check_monitored, extra_metrics
from monad.evaluation.metrics import ranking, vector_metrics
from monad.io.checkpoint import Checkpoint, check_trained, write_checkpoint
from monad.io.predictions import DEFAULT_TOP_K, check_place
from monad.io.writer import prepare_output, publish, scratch_directory
from monad.logs import log_metrics, run_logger
from monad.training.asked import asked_entities, prediction_stamp, tested_range
from monad.training.fitting import fit_scenario
from monad.training.inference import Inferred, infer_rows
from monad.training.parts import Scenario
from monad.training.refusals import clear_refusals
from monad.training.resume import Attempt
from monad.training.rows import Labeler, Rows, whereabouts
from monad.training.settings import training_params


class MonadModuleImpl(Scenario):
    """A task on top of a foundation model, or a loaded scenario."""

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
        stamp, end = tested_range(self, testing_params)
        entities = asked_entities(self, testing_params, stamp)
        labeler = Labeler(self.store, self.target_fn, self.task, end, DataMode.TEST)
        rows = labeler.label(entities, np.full(len(entities), stamp, dtype=np.int64))
        if not len(rows):
            raise DataError(
                problem(
                    "No main entity has a test target",
                    f"{len(entities)} entities with history, labels until {shown(end)}",
                    "Check test_start_date, test_end_date and the target function's window",
                    whereabouts(self.target_fn),
                )
            )
        made = infer_rows(self, testing_params, rows)
        metrics = self._metrics(testing_params, made)
        found = {f"test_{name}": float(value) for name, value in metrics.items()}
        found |= self._seen_by_training(stamp)
        found["test_rows"] = float(len(made.rows))
        undefined = [name for name, value in found.items() if not np.isfinite(value)]
        if undefined:
            run_logger.warning(
                "%s cannot be computed on %d test rows: too few, or all targets alike",
                ", ".join(undefined),
                len(made.rows),
            )
        text = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        log_metrics(run_logger, f"Test at {shown(stamp)}: {text}", found)
        return found

    def _metrics(self, params: TestingParams, made: Inferred) -> dict[str, float]:
        """Return the metrics of what was inferred, those asked for, and those of baselines."""
        rows, predictions = made.rows, made.predictions
        if self.task.kind == "recommendation":
            k = params.top_k or DEFAULT_TOP_K
            assert made.batches.pairs is not None
            found = {f"{n}_0": v for n, v in ranking(predictions, made.wanted, k).items()}
            pairs = made.batches.pairs
            found |= item_baselines(pairs, rows.entities, rows.stamps, made.wanted, k)
            return found | extra_metrics(params.metrics, self.task, predictions, made.wanted)
        found = vector_metrics(self.task, predictions, rows.targets)
        found |= extra_metrics(params.metrics, self.task, predictions, rows.targets)
        return found | vector_baselines(
            self.task, self.store, rows.entities, rows.stamps, rows.targets
        )

    def _days_seen(self, stamp: int) -> float:
        """Return how many days *stamp* lies before the end of the training range."""
        return (self.checkpoint.representation.training_end - stamp) / DAY_SECONDS

    def _seen_by_training(self, stamp: int) -> dict[str, float]:
        """Warn when training has seen the time that is tested: the metrics are then too good."""
        days = self._days_seen(stamp)
        if days <= 0:
            return {}
        run_logger.warning(
            "LEAK: the test's split point lies %.1f days before the end of the training range, so"
            " that training has seen what is tested; the metrics are too good. Pretrain with a"
            " training_end_date before the test range, or test at a later date",
            days,
        )
        return {"test_seen_by_training_days": days}

    def _warn_of_the_past(self, stamp: int) -> None:
        """Warn of predictions of what training has seen: they look better than any will be."""
        days = self._days_seen(stamp)
        if days >= 1:  # a training range ends with a day, predictions may begin within it
            run_logger.warning(
                "LEAK: the prediction date, %s, lies %.1f days before the end of the training range,"
                " so that training has seen what is predicted. To measure how good predictions are,"
                " pretrain with a training_end_date before it",
                shown(stamp),
                days,
            )

    def predict(self, testing_params: TestingParams) -> int:
        """Write predictions for every main entity with history; returns their number."""
        self._warn_ignored(testing_params)
        stamp = prediction_stamp(self, testing_params)
        self._warn_of_the_past(stamp)
        entities = asked_entities(self, testing_params, stamp)
        rows = Rows(entities, np.full(len(entities), stamp, dtype=np.int64), None)
        begun = time.monotonic()
        count = len(infer_rows(self, testing_params, rows).rows)
        log_metrics(
            run_logger,
            f"Predicted {count} main entities at {shown(stamp)} in {time.monotonic() - begun:.1f} seconds",
            {"rows": count, "prediction_stamp": stamp},
        )
        return count

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


def inherited(checkpoint: Checkpoint, given: TrainingParams) -> TrainingParams:
    """Return the foundation model's training parameters with *given* on top."""
    return training_params(checkpoint.config).merged(given)
