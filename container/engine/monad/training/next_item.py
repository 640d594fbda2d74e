"""Fit a recommendation of what follows: learn the next item at every event, not once a row."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from monad.config.params import TrainingParams
from monad.data.batches import Batch, RowReader
from monad.data.transitions import followers
from monad.logs import run_logger
from monad.model.followers import WEIGHTS
from monad.model.head import Head
from monad.model.heads import to_device
from monad.model.items import NextItemHead
from monad.training.loop import run_trainer, take_best
from monad.training.parts import Scenario
from monad.training.pretraining import NextItemModule
from monad.training.question import REPEATED
from monad.training.resume import Attempt
from monad.training.rows import chosen_entities
from monad.training.sequences import Histories, SequenceBatches, histories, hold_out_last
from monad.training.settings import (
    AFTERWARDS,
    AVERAGED,
    LAST_EVENTS,
    Settings,
    history_rate,
    learned_until,
    log_choices,
    most_steps,
    settings,
    shape_of,
    softmax_of,
    uses_gpu,
)
from monad.training.streams import Plan, loader
from monad.training.threads import fastest_threads

_RATE_SHARE = 0.5  # of the rate that pretraining begins with: what it ends with, REST
_ASKED_ROWS = 128
_WEIGHING = 2.0  # reading held-out histories to weigh the counts, in validations
_COUNTING = 1e-6  # seconds that counting takes for each event
_RANKING = 3e-9  # and, on the CPU, ranking with one weight for each held-out event and item
_NOBODY = np.zeros(0, dtype=np.int64)


def count_followers(
    module: Scenario,
    head: NextItemHead,
    reader: RowReader,
    known: Histories,
    device: torch.device,
) -> None:
    """Count which items follow which in the histories that training knew."""
    size = known.end - known.begin
    owner = np.repeat(np.arange(len(known)), size)
    first = np.cumsum(size) - size
    rows = np.arange(int(size.sum())) + np.repeat(known.begin - first, size)
    position = module.item_position
    codes = reader.codes(position, rows)
    table = module.network.events.vectors(position)
    head.followers.know(*followers(codes, owner, len(table), device=device))


@torch.inference_mode()
def gains_by_weight(
    module: Scenario,
    head: NextItemHead,
    reader: RowReader,
    asked: Histories,
    device: torch.device,
    new: bool,
) -> torch.Tensor:
    """Return NDCG@10 of held-out last events by how much the counts weigh.

    Items of the history are left out where the answers are *new* ones as a rule.
    """
    network, position = module.network, module.item_position
    gains = torch.zeros(len(WEIGHTS), dtype=torch.float64, device=device)
    for at in range(0, len(asked), _ASKED_ROWS):
        end = asked.end[at : at + _ASKED_ROWS]
        begin = np.maximum(asked.begin[at : at + _ASKED_ROWS], end - 1 - reader.max_events)
        batch = to_device(reader.sequences(begin, end - 1), device)
        target = torch.from_numpy(reader.codes(position, end - 1)).to(device)
        codes, row = batch["codes"][position], torch.arange(len(target), device=device)
        table = network.events.vectors(position)
        plain = network.following.scores(position, network.last_states(batch), table).float()
        counted = head.followers(codes, batch["length"])
        if new:
            kept = plain[row, target]
            plain.scatter_(1, codes, -torch.inf)
            plain[row, target] = kept
        scores = torch.empty_like(plain)
        for k, weight in enumerate(WEIGHTS):
            torch.add(plain, counted, alpha=weight, out=scores)
            rank = (scores > scores[row, target][:, None]).sum(1)
            gains[k] += torch.where(rank < 10, 1 / torch.log2(rank + 2.0), 0.0).sum()
    return gains.cpu() / len(asked)


def answers_are_new(reader: RowReader, position: int, asked: Histories) -> bool:
    """Tell whether held-out last items are, as a rule, none of those read before them."""
    repeats = 0
    for first, end in zip(asked.begin.tolist(), asked.end.tolist(), strict=True):
        begin = max(first, end - 1 - reader.max_events)
        codes = reader.codes(position, np.arange(begin, end))
        repeats += int((codes[:-1] == codes[-1]).any())
    return repeats < REPEATED * len(asked)


def choose_weights(
    module: Scenario,
    head: NextItemHead,
    reader: RowReader,
    asked: Histories,
    device: torch.device,
    before: dict[str, torch.Tensor],
) -> None:
    """Choose how much the counts weigh, and whether the network stays as it was *before*.

    Both by the ranks of held-out last events: a network that pretraining has brought as far as the
    data go only gets worse by more of it.
    """
    network = module.network.eval().to(device)
    head.to(device)
    new = answers_are_new(reader, module.item_position, asked)
    found = gains_by_weight(module, head, reader, asked, device, new)
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(before)
    earlier = gains_by_weight(module, head, reader, asked, device, new)
    kept = "the scenario's"
    if float(earlier.max()) > float(found.max()):
        found, kept = earlier, "the foundation model's"
    else:
        network.load_state_dict(trained)
    best = int(found.argmax())
    head.followers.weight.fill_(WEIGHTS[best])
    run_logger.info(
        "Counts of what follows weigh %.1f beside the network, whose weights are %s: NDCG@10 %.4f,"
        " without the counts %.4f%s",
        WEIGHTS[best],
        kept,
        float(found[best]),
        float(found[0]),
        ", items of the history left out" if new else "",
    )


def _plan(params: TrainingParams, chosen: Settings, steps: int, begun: float) -> Plan:
    """Return the plan of a training whose epoch has that many *steps*."""
    budget = params.time_budget_seconds
    return Plan(
        epochs=chosen.epochs,
        steps_per_epoch=steps,
        learning_rate=chosen.learning_rate,
        started=begun,
        label="Training",
        deadline=None if budget is None else begun + float(budget),
        timed_epochs=budget is not None and "epochs" not in params.given,
        most_steps=most_steps(params, steps, AFTERWARDS),
        seed=params.seed,
        averaged=budget is not None and AVERAGED,
    )


def _closing_seconds(events: float, ranked: int) -> float:
    """Return how long counting *events* and weighing the counts takes, validations aside."""
    passes = 2.0 * len(WEIGHTS)  # each weight, for the network of before, too
    return _COUNTING * events + _RANKING * passes * ranked


def fit_next_item(
    module: Scenario,
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
    end = learned_until(config, store)
    reader = module.reader()
    learned = np.arange(store.num_entities)
    if params.entity_ids is not None:
        learned = chosen_entities(store, params.entity_ids)
    train, validation = hold_out_last(histories(reader, learned, end), LAST_EVENTS, params.seed)
    batches = SequenceBatches(reader, train, chosen.tokens, chosen.rows)
    checks = SequenceBatches(reader, validation, 4 * chosen.tokens, chosen.rows)
    run_logger.info(
        "Learning the next item at every event of %d main entities, %d last events held out",
        len(train),
        len(validation),
    )
    plan = _plan(params, chosen, batches.num_batches(), begun)
    softmax = softmax_of(chosen.gpu, adapts)
    items = len(representation.categories()[module.item_position].values)
    log_choices(run_logger, module.network.size, softmax, items)
    lightning_module = NextItemModule(
        module.network, plan, module.item_position, softmax, run_logger
    )
    if chosen.gpu and adapts:
        lightning_module.cut_on_device(reader, batches, checks)
    asked = validation if adapts and isinstance(head, NextItemHead) else validation.take(_NOBODY)
    if len(asked):
        lightning_module.closing_validations = _WEIGHING
        ranked = 0 if chosen.gpu else len(asked) * items
        lightning_module.closing_seconds = _closing_seconds(float(train.counts.sum()), ranked)
    lightning_module.validation_steps = 0.5 * checks.total_events() / chosen.tokens

    def epoch(number: int, skip: int) -> Iterator[Batch]:
        return islice(batches.epoch((params.seed + 2, number)), skip, None)

    before = {name: value.detach().clone() for name, value in module.network.state_dict().items()}
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
    if len(asked):
        assert isinstance(head, NextItemHead)
        device = lightning_module.trained_on
        with fastest_threads():  # where cores are shared, more threads may take far longer
            count_followers(module, head, reader, train, device)
            choose_weights(module, head, reader, asked, device, before)
    module.network.cpu()
    head.cpu()
    run_logger.info("Next-item training took %.1f seconds", time.monotonic() - begun)
    return lightning_module
