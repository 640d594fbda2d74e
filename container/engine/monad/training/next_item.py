"""Fit a recommendation whose target is the next item: learn at every event, not once a row.

Whether a target function asks for the next item is found out by calling it: at random events of
random entities its target must be the item of the event that follows, and nothing else.
"""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monad.config.params import TrainingParams
from monad.data.batches import Batch
from monad.data.representation import Representation
from monad.logs import run_logger
from monad.model.head import Head
from monad.training.loop import run_trainer, take_best
from monad.training.pretraining import NextItemModule
from monad.training.resume import Attempt
from monad.training.rows import Labeler
from monad.training.sequences import SequenceBatches, histories, hold_out_last
from monad.training.settings import (
    AVERAGED,
    LAST_EVENTS,
    history_rate,
    log_choices,
    settings,
    shape_of,
    softmax_of,
    training_end,
    uses_gpu,
)
from monad.training.streams import Plan, loader

if TYPE_CHECKING:
    from monad.training.module import MonadModuleImpl

_RATE_SHARE = 0.5  # of the rate that pretraining begins with: what it ends with, REST
_ASKED = 300
_FEWEST = 20
_SHARE = 0.98


def next_item_field(
    labeler: Labeler, representation: Representation, random: np.random.Generator
) -> int:
    """Return the field whose next value the target function asks for, or -1."""
    store = labeler.store
    if len(store.tables) != 1 or not representation.categories():
        return -1
    table = store.tables[0]
    counts = np.diff(table.offsets)
    able = np.flatnonzero(counts > 1)
    if not len(able):
        return -1
    entities = random.choice(able, _ASKED)
    place = table.offsets[entities] + (random.random(_ASKED) * (counts[entities] - 1)).astype(int)
    stamps = np.asarray(table.times[place])
    order = np.unique(np.stack([entities, stamps]), axis=1)
    entities, stamps = order[0], order[1]
    rows = labeler.label(entities, stamps)
    follows = table.position(rows.entities, rows.stamps)
    until = table.position(entities, np.full(len(entities), labeler.label_end))
    possible = int((table.position(entities, stamps) < until).sum())
    if len(rows) < max(_FEWEST, _SHARE * possible):
        return -1
    position = representation.item_field(next((t.origin for t in rows.targets if t.origin), None))
    values = table.values(representation.categories()[position].column, follows)
    same = [
        len(found) == 1 and str(found[0]) == str(value) and not len(target.masked)
        for target, found, value in zip(
            rows.targets, (t.combined()[0] for t in rows.targets), values.tolist(), strict=True
        )
    ]
    return position if np.mean(same) >= _SHARE else -1


def fit_next_item(
    module: "MonadModuleImpl",
    head: Head,
    params: TrainingParams,
    scratch: Path,
    begun: float,
    attempt: Attempt | None = None,
) -> NextItemModule:
    """Go on training the network at every event; returns the Lightning module, best weights set."""
    store, config = module.store, module.checkpoint.config
    representation = module.checkpoint.representation
    adapts = params.time_budget_seconds is not None
    shape = shape_of(store, representation)
    rate = _RATE_SHARE * history_rate(uses_gpu(params), shape)
    chosen = settings(config, params, rate, run_logger, shape)
    end = training_end(config)
    end = store.last_time if end is None else end
    reader = module.reader()
    everyone = np.arange(store.num_entities)
    if params.entity_ids is not None:
        wanted = set(params.entity_ids.resolve())
        everyone = np.array([i for i in everyone if str(store.entity_ids[i]) in wanted])
    train, validation = hold_out_last(histories(reader, everyone, end), LAST_EVENTS, params.seed)
    batches = SequenceBatches(reader, train, chosen.tokens, chosen.rows)
    checks = SequenceBatches(reader, validation, 4 * chosen.tokens, chosen.rows)
    run_logger.info(
        "The target is the next item: learning at every event of %d main entities, %d last events"
        " held out",
        len(train),
        len(validation),
    )
    plan = Plan(
        epochs=chosen.epochs,
        steps_per_epoch=batches.num_batches(),
        learning_rate=chosen.learning_rate,
        started=begun,
        label="Training",
        deadline=None if not adapts else begun + float(params.time_budget_seconds or 0.0),
        timed_epochs=adapts and "epochs" not in params.given,
        seed=params.seed,
        averaged=adapts and AVERAGED,
    )
    softmax = softmax_of(chosen.gpu, adapts)
    items = len(representation.categories()[module.item_position].values)
    log_choices(run_logger, module.network.size, softmax, items)
    lightning_module = NextItemModule(
        module.network, plan, module.item_position, softmax, run_logger
    )
    if chosen.gpu and adapts:
        lightning_module.cut_on_device(reader, batches, checks)
    lightning_module.validation_steps = 0.5 * checks.total_events() / chosen.tokens

    def epoch(number: int, skip: int) -> Iterator[Batch]:
        return islice(batches.epoch((params.seed + 2, number)), skip, None)

    best = run_trainer(
        lightning_module,
        loader(epoch, plan, lightning_module),
        loader(lambda *_: checks.in_order()) if len(validation) else None,
        params,
        scratch / "lightning_checkpoints",
        ("val_ndcg@10", "max"),
        attempt,
    )
    take_best(lightning_module, best)
    module.network.cpu()
    head.cpu()
    run_logger.info("Next-item training took %.1f seconds", time.monotonic() - begun)
    return lightning_module
