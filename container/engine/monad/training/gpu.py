"""What a GPU needs before training: a context, loaded kernels, compiled layers."""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from monad.model.network import compiled_through

_COMPILES = False  # layers, within a budget


class SetUp(Callback):
    """Sets the GPU up once the trainer has taken it.

    Not before: on taking a GPU, Lightning frees the work spaces of libraries, and graphs that were
    captured earlier would go on writing there.
    """

    def __init__(self, validation: DataLoader | None) -> None:
        self.validation = validation

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Set up with a batch of the validation."""
        _set_up(pl_module, self.validation, trainer)


def _set_up(module: Any, validation: DataLoader | None, trainer: Any) -> None:
    """Do a step on the GPU without learning from it, before the budget's clock runs.

    The first step makes a context, loads kernels and puts columns on the device: seconds that depend
    on the machine and not on the data.
    """
    if module.plan.deadline is None or validation is None or trainer.world_size > 1:
        return
    device = trainer.strategy.root_device
    if device.type != "cuda":
        return
    begun = time.monotonic()
    half = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(str(trainer.precision))
    batch = next(iter(validation), None)
    if batch is None:
        return
    module.to(device)

    def step() -> None:
        moved = module.transfer_batch_to_device(batch, device, 0)
        with torch.autocast("cuda", dtype=half, enabled=half is not None):
            loss = module.training_step(moved, 0)
        loss.backward()
        module.zero_grad()
        torch.cuda.synchronize(device)

    step()
    _compile(module, step)
    if getattr(module, "shapes", None) and half is not torch.float16:  # whose loss is scaled
        _capture(module, device, half)
    module.setup_seconds = time.monotonic() - begun
    module.plan.started += module.setup_seconds
    module.plan.deadline += module.setup_seconds
    module.lines.info("Set up %s in %.1f seconds, before the budget", device, module.setup_seconds)


def release(module: Any) -> None:
    """Give back what setting up made, however training ended."""
    if getattr(module, "graphs", None) is not None:
        module.graphs = None
    if getattr(module, "network", None) is not None:
        module.network.through = None


def _capture(module: Any, device: torch.device, half: torch.dtype | None) -> None:
    """Capture steps as graphs, or go on without where that does not work."""
    module.train()
    try:
        module.make_graphs(device, half)
    except Exception as error:  # of any kind: an operation of a custom part may not be captured
        module.graphs = None
        module.zero_grad()
        module.lines.warning(
            "Steps could not be captured as CUDA graphs, training is slower without: %s: %s",
            type(error).__name__,
            error,
        )


def _compile(module: Any, step: Callable[[], None]) -> None:
    """Compile the trunk's layers, or go on without that where it does not work."""
    network = getattr(module, "network", None)
    if not _COMPILES or network is None:
        return
    network.train()
    network.through = compiled_through()
    try:
        step()
        step()
    except Exception as error:  # a compiler may fail in any way; training does not need it
        network.through = None
        first = (str(error).splitlines() or [""])[0]
        module.lines.warning(
            "Layers are not compiled, training is slower: %s: %s", type(error).__name__, first
        )
