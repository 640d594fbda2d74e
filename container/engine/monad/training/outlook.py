"""Pretraining of the aggregates' branch: what happens in the windows after weekly split points.

The branch reads aggregates alone, so its rows cost a hundredth of a history's. It learns from all
entities at once what scenarios ask for later: whether they come back, how often, for how much.
"""

import time

import numpy as np
import torch
from torch.nn import functional

from monad.config.params import TrainingParams
from monad.config.time_range import DAY_SECONDS
from monad.data.batches import RowReader
from monad.data.outlook import OUTLOOK_DAYS, outlook
from monad.logs import log_metrics, pretrain_logger
from monad.model.panel import Panel
from monad.training.ranks import apart, leave_gpus_alone, several_devices
from monad.training.rows import active_entities, split_points

SHARE = 0.35  # of a budget, at most
_MOST_ROWS, _PASSES, _FEWEST_STEPS, _ROWS = 100_000, 2, 100, 256
_RATE, _DECAY, _WARM_UP, _FLOOR, _CLIP = 1e-3, 0.5, 0.03, 0.02, 1.0
_READ_SHARE, _CHUNK = 0.5, 8_192
_ACTIVE_DAYS = 180  # rows of entities that were away for longer say little


def learn_outlook(
    panel: Panel,
    reader: RowReader,
    entities: np.ndarray,
    end: int,
    params: TrainingParams,
    device: str,
    begun: float,
) -> None:
    """Pretrain the branch within its share of a budget; the rest of pretraining leaves it alone."""
    budget = params.time_budget_seconds
    deadline = None if budget is None else begun + SHARE * budget
    most = None if params.limit_train_batches is None else _PASSES * params.limit_train_batches

    def learned() -> tuple[int, dict[str, np.ndarray]]:
        panel.to(device)
        steps = pretrain_panel(panel, reader, entities, end, params.seed, deadline, most)
        return steps, {name: value.numpy() for name, value in panel.cpu().state_dict().items()}

    steps, found = apart(learned) if several_devices(params.devices) else learned()
    panel.load_state_dict({name: torch.from_numpy(value) for name, value in found.items()})
    panel.requires_grad_(not steps)


def pretrain_panel(
    panel: Panel,
    reader: RowReader,
    entities: np.ndarray,
    end: int,
    seed: int,
    deadline: float | None,
    most_steps: int | None = None,
) -> int:
    """Train *panel* in place on rows of *entities*; returns the number of steps.

    Args:
        panel: The branch, on the device to train on.
        reader: Reads aggregates and what follows.
        entities: Entities to learn from.
        end: Last second of the training range.
        seed: Decides which rows there are, and their order.
        deadline: `time.monotonic()` at which to stop, or None to make the whole passes.
        most_steps: Most steps, whatever the rows would ask for.
    """
    begun = time.monotonic()
    random = np.random.default_rng(seed)
    who, when = _pairs(reader, entities, end, random)
    if not len(who):
        return 0
    device = panel.mean.device
    read = _read(reader, who, when, begun, deadline)
    who, when = who[: len(read)], when[: len(read)]
    inputs = torch.from_numpy(read).to(device)
    found, known = outlook(reader.aggregates, who, when, end)
    wanted, mask = torch.from_numpy(found).to(device), torch.from_numpy(known).to(device)
    usual = (wanted * mask).sum(0) / mask.sum(0).clamp(min=1.0)
    with torch.no_grad():
        panel.outlook.bias.copy_(usual.expand_as(panel.outlook.bias))
    panel.scale_by(inputs)
    steps = max(_PASSES * len(who) // _ROWS, _FEWEST_STEPS)
    steps = steps if most_steps is None else min(steps, most_steps)
    matrices = [p for p in panel.parameters() if p.ndim > 1]
    others = [p for p in panel.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, betas=(0.9, 0.98))
    if device.type == "cpu":
        leave_gpus_alone(optimizer)
    trained = time.monotonic()
    whole = max((deadline or trained) - trained, 1e-6)
    panel.train()
    order, at, step, total = random.permutation(len(who)), 0, 0, 0.0
    while step < steps:
        done = step / steps
        if deadline is not None:
            done = max(done, (time.monotonic() - trained) / whole)
            if done >= 1.0 and step:
                break
        if at >= len(order):
            order, at = random.permutation(len(who)), 0
        chosen = torch.from_numpy(order[at : at + _ROWS]).to(device)
        at += _ROWS
        warm = min((step + 1) / max(_WARM_UP * steps, 10.0), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * warm * max(_FLOOR, 1.0 - done)
        loss = _loss(panel, inputs[chosen], wanted[chosen], mask[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(panel.parameters(), _CLIP)
        optimizer.step()
        total += float(loss.detach())
        step += 1
    seconds = time.monotonic() - begun
    log_metrics(
        pretrain_logger,
        f"Aggregates' branch pretrained on {len(who)} rows: {step} steps, loss"
        f" {total / step:.4f}, {seconds:.1f} seconds",
        {"outlook_rows": len(who), "outlook_steps": step, "outlook_loss": total / step},
    )
    return step


def _read(
    reader: RowReader, who: np.ndarray, when: np.ndarray, begun: float, deadline: float | None
) -> np.ndarray:
    """Return the aggregates of the first rows, as many as half of the time allows."""
    upto = None if deadline is None else begun + _READ_SHARE * (deadline - begun)
    parts = []
    for at in range(0, len(who), _CHUNK):
        if parts and upto is not None and time.monotonic() > upto:
            break
        parts.append(reader.aggregates.read(who[at : at + _CHUNK], when[at : at + _CHUNK]))
    return np.concatenate(parts)


def _loss(
    panel: Panel, inputs: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return the mean error of the outcomes that are known; each member learns for itself."""
    made = panel.outlook(panel(inputs))
    error = functional.smooth_l1_loss(made, wanted[:, None].expand_as(made), reduction="none")
    return (error.mean(1) * mask).sum() / mask.sum().clamp(min=1.0)


def _pairs(
    reader: RowReader, entities: np.ndarray, end: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw entities that were active lately, at weekly split points."""
    store = reader.store
    last = end - OUTLOOK_DAYS[0] * DAY_SECONDS
    if last <= store.first_time:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    who, when = [], []
    for point in split_points(store.first_time, last):
        active = active_entities(store, int(point), entities)
        begun = np.full(len(active), point - _ACTIVE_DAYS * DAY_SECONDS)
        recent = np.zeros(len(active), dtype=bool)
        for table in store.tables:
            now = table.position(active, np.full(len(active), point))
            recent |= now > table.position(active, begun)
        who.append(active[recent])
        when.append(np.full(int(recent.sum()), point))
    entities, stamps = np.concatenate(who), np.concatenate(when)
    chosen = random.permutation(len(entities))[:_MOST_ROWS]
    return entities[chosen], stamps[chosen]
