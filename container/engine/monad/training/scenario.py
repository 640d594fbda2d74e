# ruff: noqa: ARG002 - Lightning's hooks have fixed signatures
"""Fine-tuning and inference of one scenario: batches with targets, the Lightning module."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from monad.data.batches import Batch, RowReader, batches_by_length
from monad.data.fields import FIRST
from monad.data.pairs import PairReader
from monad.errors import ConfigError, problem
from monad.evaluation.catalogue import extra_metrics
from monad.evaluation.metrics import ranking, vector_metrics
from monad.io.predictions import item_names
from monad.logs import log_metrics, run_logger
from monad.model.head import Head
from monad.model.heads import to_device
from monad.model.network import Network
from monad.targets.values import label
from monad.tasks import Task
from monad.training.budget import BudgetModule
from monad.training.rows import Rows
from monad.training.streams import Plan, loader
from monad.training.threads import calibrate_threads

_TRUNK_SCALE = 0.5
_PANEL_DECAY = 0.3
_CALIBRATE_SECONDS = 15.0
_SHORT_EVENTS = 8
RECENT_EVENTS = 32  # of a history; aggregates, sketch and pair features tell of the rest
_MOST_PREPARED, _PREPARED_AT_ONCE = 100_000_000, 8_192


class ScenarioBatches:
    """Reads rows with their targets; recommendation batches have one split point each."""

    def __init__(self, reader: RowReader, task: Task, item_position: int, tokens: int) -> None:
        self.reader = reader
        self.task = task
        self.tokens = tokens
        self.short_share = 0.0
        self.pair_features = True
        self.most_events: int | None = RECENT_EVENTS
        self._prepared: dict[int, np.ndarray] = {}
        self.pairs = PairReader(reader, item_position) if task.kind == "recommendation" else None
        if self.pairs is not None:
            index = reader.categories[item_position]
            self.item_field = reader.representation.fields[index]
            self.item_names = item_names(["", "", *self.item_field.values])
            self._item_index = {v: FIRST + i for i, v in enumerate(self.item_field.values)}

    def prepare(self, rows: Rows, until: float | None = None) -> Rows:
        """Compute the aggregates of training rows once instead of in every pass.

        Returns the rows to train on: those in random order that were reached before *until*
        (`time.monotonic()`), which are all without a budget.
        """
        if len(rows) * len(self.reader.representation.mean) > _MOST_PREPARED:
            return rows
        found: list[np.ndarray] = []
        for at in range(0, len(rows), _PREPARED_AT_ONCE):
            if found and until is not None and time.monotonic() > until:
                break
            some = slice(at, at + _PREPARED_AT_ONCE)
            found.append(self.reader.aggregates.read(rows.entities[some], rows.stamps[some]))
        made = np.concatenate(found) if found else np.zeros((0, 0))
        if len(made) < len(rows):
            rows = rows.take(np.arange(len(made)))
        self._prepared[id(rows)] = made
        return rows

    def aggregates(self, rows: Rows, chosen: np.ndarray) -> np.ndarray:
        """Return the aggregates of some of the rows, computed unless `prepare` has."""
        known = self._prepared.get(id(rows))
        if known is not None:
            return known[chosen]
        return self.reader.aggregates.read(rows.entities[chosen], rows.stamps[chosen])

    def epoch(
        self, rows: Rows, seed: tuple[int, int] | None, size: int, skip: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of *rows* after the first *skip*; shuffled when a seed is given."""
        random = None if seed is None else np.random.default_rng(seed)
        lengths = self.reader.lengths(rows.entities, rows.stamps)
        if self.most_events is not None:
            lengths = np.minimum(lengths, self.most_events)
        known = self._prepared.get(id(rows))
        groups = [np.arange(len(rows))]
        if self.pairs is not None:
            groups = [np.flatnonzero(rows.stamps == stamp) for stamp in np.unique(rows.stamps)]
        made = [part for group in groups for part in self._parts(group, lengths, size, random)]
        if random is not None:
            made = [made[i] for i in random.permutation(len(made))]
        short = np.zeros(len(made), dtype=bool)
        if random is not None and self.short_share > 0:
            short = random.random(len(made)) < self.short_share
        for chosen, few in list(zip(made, short, strict=True))[skip:]:
            aggregates = None if known is None else known[chosen]
            most = _SHORT_EVENTS if few else max(int(lengths[chosen].max()), 1)
            yield self.read(rows.take(chosen), most, aggregates)

    def _parts(
        self, group: np.ndarray, lengths: np.ndarray, size: int, random: np.random.Generator | None
    ) -> list[np.ndarray]:
        """Split rows into batches.

        Training rows are drawn without regard to length while histories are short: rows of one
        length are rows of one kind of entity, and a batch of one kind teaches its base rate.
        """
        if random is None or self.most_events is None:
            return [
                group[part] for part in batches_by_length(lengths[group], self.tokens, size, random)
            ]
        order = random.permutation(group)
        return [order[at : at + size] for at in range(0, len(order), size)]

    def read(
        self,
        rows: Rows,
        most_events: int | None = None,
        aggregates: np.ndarray | None = None,
    ) -> Batch:
        """Return one batch; *aggregates* are computed unless given."""
        most = most_events or self.most_events
        batch = None
        if self.pairs is not None and self.pair_features:
            batch = self.pairs.without_histories(rows.entities, rows.stamps)
        if batch is None:
            batch = self.reader.read(rows.entities, rows.stamps, most, aggregates)
        if self.pairs is not None:
            if self.pair_features:
                self.pairs.extend(batch)
            self._item_targets(batch, rows)
        elif rows.targets is not None:
            batch["target"] = torch.from_numpy(np.asarray(rows.targets, dtype=np.float32))
        return batch

    def item_codes(self, values: np.ndarray) -> np.ndarray:
        """Return item indices of values; 0 for items that are not in the vocabulary."""
        index = self._item_index
        names = ((str(v), v) for v in values.tolist())
        return np.array([index.get(n) or index.get(label(v) or "", 0) for n, v in names], np.int64)

    def _item_targets(self, batch: Batch, rows: Rows) -> None:
        parts: dict[str, list[np.ndarray]] = {"target": [], "masked": []}
        owners: dict[str, list[int]] = {"target": [], "masked": []}
        weights = []
        for i, target in enumerate(rows.targets or []):
            items, amounts = target.combined()
            codes = self.item_codes(items)
            keep = (codes > 0) & (amounts > 0)
            parts["target"].append(codes[keep])
            weights.append(amounts[keep])
            owners["target"].append(i)
            hidden = self.item_codes(np.asarray(target.masked))
            parts["masked"].append(np.setdiff1d(hidden[hidden > 0], codes[keep]))
            owners["masked"].append(i)
        for name, found in parts.items():
            counts = [len(part) for part in found]
            index = np.repeat(np.array(owners[name], dtype=np.int64), counts)
            flat = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
            batch[f"{name}_rows"] = torch.from_numpy(index)
            batch[f"{name}_items"] = torch.from_numpy(flat.astype(np.int64))
        flat = np.concatenate(weights) if weights else np.zeros(0)
        batch["target_weights"] = torch.from_numpy(flat.astype(np.float32))


class ScenarioModule(BudgetModule):
    """Lightning module of a scenario: the whole network is tuned, the trunk more slowly."""

    def __init__(
        self, network: Network, head: Head, task: Task, plan: Plan, loss: Any = None
    ) -> None:
        super().__init__(plan, run_logger)
        self.network = network
        self.head = head
        self.task = task
        self.custom_loss = loss
        self.extra: list[Any] = []
        self._outputs: list[tuple[Any, Batch, float]] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Tune events and trunk at half the rate of the rest; aggregates decay the most."""
        slow = {id(p) for m in (self.network.events, self.network.blocks) for p in m.parameters()}
        panel = {id(p) for p in self.network.panel.parameters()}
        found = [p for p in self.parameters() if p.requires_grad]
        others = [p for p in found if id(p) not in slow | panel]
        return [
            {"params": [p for p in found if id(p) in slow], "scale": _TRUNK_SCALE},
            {"params": [p for p in found if id(p) in panel], "scale": 1.0, "decay": _PANEL_DECAY},
            {"params": others, "scale": 1.0, "decay": 0.05},
        ]

    def _loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.custom_loss is not None and "target" in batch:
            if output.dim() > batch["target"].dim() + (self.task.kind == "regression"):
                output = output.mean(1)
            return self._own_loss(output, batch["target"])
        return self.head.loss(output, batch)

    def _own_loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of the user's function, or say what is wrong with it."""
        shapes = f"output of shape {tuple(output.shape)}, target of shape {tuple(target.shape)}"
        try:
            made = self.custom_loss(output, target)
        except Exception as error:
            raise ConfigError(
                problem("TrainingParams.loss raised", f"{type(error).__name__}: {error}; {shapes}")
            ) from error
        one = isinstance(made, torch.Tensor) and made.numel() == 1
        if not one or (torch.is_grad_enabled() and not made.requires_grad):
            seen = (
                f"a tensor of shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else made
            )
            raise ConfigError(
                problem(
                    "TrainingParams.loss returned no loss",
                    f"{seen!r}, for {shapes}",
                    "Return one number as a tensor that depends on the output, such as a mean",
                )
            )
        return made.reshape(())

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return self._loss(self.head.output(self.network, batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the predictions of a validation batch."""
        output = self.head.output(self.network, batch)
        loss = float(self._loss(output, batch))
        if self.task.kind == "recommendation":
            kept: Any = torch.topk(output, min(12, output.shape[1])).indices.cpu().numpy()
        else:
            kept = self.head.decode(output.float().cpu())
        small = {k: batch[k].cpu() for k in ("target", "target_rows", "target_items") if k in batch}
        self._outputs.append((kept, small, loss * len(kept)))

    def on_validation_epoch_end(self) -> None:
        """Compute and log the validation metrics."""
        rows = sum(len(kept) for kept, _, _ in self._outputs) or 1
        found = {"loss": sum(loss for _, _, loss in self._outputs) / rows}
        collected = [(k, b) for k, b, _ in self._outputs]
        found.update(collected_metrics(self.task, collected, self.extra))
        self._outputs = []
        self.validation_done()
        made = {f"val_{name}": value for name, value in found.items()}
        for name, value in made.items():
            self.log(name, value)
        text = ", ".join(f"{name} {value:.4f}" for name, value in made.items())
        log_metrics(run_logger, f"Validation: {text}", {"step": self.global_step, **made})


def row_loaders(
    batches: ScenarioBatches,
    train: Rows,
    validation: Rows,
    rows: int,
    module: BudgetModule,
) -> tuple[DataLoader, DataLoader | None]:
    """Return the loaders of shuffled training rows, *rows* a batch, and of validation rows."""
    plan = module.plan
    shuffled = loader(
        lambda epoch, skip: batches.epoch(train, (plan.seed, epoch), rows, skip), plan, module
    )
    if not len(validation):
        return shuffled, None
    return shuffled, loader(lambda *_: batches.epoch(validation, None, 512))


def ranked_and_wanted(
    outputs: Iterable[tuple[np.ndarray, Batch]],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each row's ranked items and its target items, of (ranked items, batch) pairs."""
    ranked, wanted = [], []
    for top, batch in outputs:
        owners, items = (batch[f"target_{name}"].cpu().numpy() for name in ("rows", "items"))
        ranked += list(top)
        wanted += [items[owners == row] for row in range(len(top))]
    return ranked, wanted


def collected_metrics(
    task: Task, outputs: list[tuple[Any, Batch]], extra: Any = ()
) -> dict[str, float]:
    """Return the metrics of collected (prediction, batch) pairs, and those asked for beside."""
    if task.kind == "recommendation":
        ranked, wanted = ranked_and_wanted(outputs)
        made = ranking(ranked, wanted, 12)
        made.update(ranking(ranked, wanted, 10))
        found = {f"{name}_0": value for name, value in made.items()}
        return found | extra_metrics(extra, task, ranked, wanted)
    predictions = np.concatenate([np.asarray(p) for p, _ in outputs])
    targets = np.concatenate([batch["target"].numpy() for _, batch in outputs])
    found = vector_metrics(task, predictions, targets)
    return found | extra_metrics(extra, task, predictions, targets)


def infer(
    network: Network, head: Head, batches: Iterator[Batch], device: str, timed: bool = False
) -> Iterator[Any]:
    """Return an iterator over (raw output on the CPU, batch) pairs.

    With *timed* the number of threads is chosen by measuring, as in training within a budget;
    without it, nothing depends on the clock.
    """
    # Weights that are moved in inference mode could not be trained afterwards.
    network.eval().to(device)
    head.eval().to(device)
    return _inferred(network, head, batches, device, timed)


@torch.inference_mode()
def _inferred(
    network: Network, head: Head, batches: Iterator[Batch], device: str, timed: bool
) -> Iterator[Any]:
    most = torch.get_num_threads()
    calibrated = -math.inf
    try:
        for batch in batches:
            if timed and device == "cpu" and time.monotonic() - calibrated > _CALIBRATE_SECONDS:
                calibrate_threads(most)
                calibrated = time.monotonic()
            output = head.output(network, to_device(batch, device))
            yield output.float().cpu(), batch
    finally:
        torch.set_num_threads(most)
