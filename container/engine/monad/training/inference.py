"""Inference over rows: batches, precision, decoded values, and the files they are written to."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monad.config.params import TestingParams
from monad.errors import CheckpointError, problem
from monad.io.predictions import DEFAULT_TOP_K, PredictionFile, Ranked, header, manifest_name
from monad.io.tables import PredictionsTable, rows_of_file, table_columns
from monad.io.writer import publish, scratch_directory
from monad.logs import run_logger
from monad.model.head import Head
from monad.training.parts import Scenario
from monad.training.rows import Rows
from monad.training.scenario import ScenarioBatches, infer, ranked_and_wanted
from monad.training.settings import training_params, uses_gpu

_ROWS = 128  # of one inference batch: small enough for the processor's caches
_TOKENS = 65_536
_NAMED = ("target_rows", "target_items")


@dataclasses.dataclass
class Inferred:
    """What was inferred.

    Attributes:
        rows: The rows, in the order of what follows.
        batches: What read them.
        predictions: Decoded values (rows, outputs) or each row's ranked items, where rows have targets.
        wanted: Each row's target items, of recommendations.
    """

    rows: Rows
    batches: ScenarioBatches
    predictions: Any
    wanted: list[np.ndarray]


def infer_rows(scenario: Scenario, params: TestingParams, rows: Rows) -> Inferred:
    """Infer over *rows*, writing files and tables where they are asked for.

    Raises:
        CheckpointError: The scenario is not trained.
    """
    if scenario.head is None:
        raise CheckpointError(
            problem("This scenario is not trained", do="Call fit, or load a scenario checkpoint")
        )
    batches = ScenarioBatches(scenario.reader(), scenario.task, scenario.item_position, _TOKENS)
    if scenario.next_item:
        batches.pair_features, batches.most_events = False, None
    order = np.argsort(batches.reader.lengths(rows.entities, rows.stamps), kind="stable")
    ordered = _taken(rows, order)
    with scratch_directory() as scratch:
        file = _file(scenario, params, scratch)
        done, made = 0, []
        for output, batch in _outputs(scenario, params, batches, ordered):
            shown, decoded = _decoded(scenario, scenario.head, output, params, batches)
            done += len(output)
            if rows.targets is not None:  # of a batch only what names its targets: it may be large
                made.append((decoded, {k: batch[k] for k in _NAMED if k in batch}))
            if file is not None:
                _add(file, scenario.store.entity_ids[batch["entities"].numpy()].tolist(), shown)
        if file is not None:
            file.close()
            _publish(scenario, file, scratch, params, int(rows.stamps[0]))
    used = _taken(ordered, np.arange(done))
    if scenario.task.kind == "recommendation":
        return Inferred(used, batches, *ranked_and_wanted(made))
    values = np.concatenate([decoded for decoded, _ in made]) if made else np.zeros(0)
    return Inferred(used, batches, values, [])


def _taken(rows: Rows, chosen: np.ndarray) -> Rows:
    if rows.targets is None:
        return Rows(rows.entities[chosen], rows.stamps[chosen], None)
    return rows.take(chosen)


def _file(scenario: Scenario, params: TestingParams, scratch: Path) -> PredictionFile | None:
    """Prepare what is to be written, so that an unusable table is found before any work."""
    columns = header(scenario.task, params.top_k)
    if params.remote_save_location is not None:
        with PredictionsTable(params.remote_save_location) as table:
            table.prepare(table_columns(columns))
    if params.local_save_location is None and params.remote_save_location is None:
        return None
    return PredictionFile(scratch / "predictions.tsv", columns)


def _outputs(
    scenario: Scenario, params: TestingParams, batches: ScenarioBatches, rows: Rows
) -> Iterator[Any]:
    """Yield (raw output on the CPU, batch) in the precision asked for."""
    assert scenario.head is not None
    parts = (
        batches.read(_taken(rows, np.arange(at, min(at + _ROWS, len(rows)))))
        for number, at in enumerate(range(0, len(rows), _ROWS))
        if params.limit_test_batches is None or number < params.limit_test_batches
    )
    timed = training_params(scenario.checkpoint.config).time_budget_seconds is not None
    outputs = infer(scenario.network, scenario.head, parts, _device(params), timed)
    return _autocast(outputs, params)


def _add(file: PredictionFile, ids: list[str], shown: Any) -> None:
    if isinstance(shown, Ranked):
        file.add_ranked(ids, shown)
    else:
        file.add(ids, shown)


def _decoded(
    scenario: Scenario,
    head: Head,
    output: torch.Tensor,
    params: TestingParams,
    batches: ScenarioBatches,
) -> tuple[Any, Any]:
    """Return the file's rows, and the values that metrics need."""
    if scenario.task.kind == "recommendation":
        k = params.top_k or DEFAULT_TOP_K
        known = len(batches.item_field.values) + 2
        best = torch.topk(output[:, :known], min(k, known - 2))
        ranked = Ranked(batches.item_names, best.indices.numpy(), best.values.numpy(), k)
        return ranked, best.indices.numpy()
    raw = params.output_type == "raw" and scenario.task.kind != "regression"
    decoded = head.decode(output)
    shown: Any = output.numpy() if raw else decoded
    if params.predictions_threshold is not None and scenario.task.kind in ("binary", "multilabel"):
        shown = (decoded >= params.predictions_threshold).astype(int)
    if params.top_k is not None and scenario.task.kind == "multilabel":
        best = np.argsort(-decoded, axis=1, kind="stable")[:, : params.top_k]
        shown = np.zeros(decoded.shape, dtype=int)
        np.put_along_axis(shown, best, 1, axis=1)
    return shown, decoded


def _publish(
    scenario: Scenario, file: PredictionFile, scratch: Path, params: TestingParams, stamp: int
) -> None:
    """Save what was written to a table, and to a file with its manifest."""
    if params.remote_save_location is not None:
        columns = table_columns(header(scenario.task, params.top_k))
        saved = rows_of_file(scratch / "predictions.tsv", columns)
        with PredictionsTable(params.remote_save_location) as table:
            table.replace(columns, saved, stamp)
    if params.local_save_location is None:
        return
    target = Path(str(params.local_save_location))
    if target.name != "predictions.tsv":
        (scratch / "predictions.tsv").rename(scratch / target.name)
    manifest = {
        "kind": "predictions",
        "config": scenario.checkpoint.config.raw,
        "source_tables": scenario.store.facts["source_tables"],
        "metrics": {"rows": file.rows},
    }
    publish(scratch, target.parent, manifest, manifest_name(target))
    run_logger.info("Wrote %d predictions to %s", file.rows, target)


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
