"""The checkpoint directory: the documented files, tensors and plain values only.

    best_model.ckpt         best weights, the representation and the network's size
    lightning_checkpoints/  Lightning's own checkpoints
    data.yaml, dataloader.yaml, task.yaml
    target_fn.bin           the target function, by value; scenario only
    lineage.json            the manifest, written last

`best_model.ckpt` loads with `weights_only=True`. `target_fn.bin` is code: it is unpickled only on
request and only with trust given.
"""

import dataclasses
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch
import yaml

from monad.config import environment
from monad.config.loading import parse_config
from monad.config.schema import FoundationModelConfig
from monad.data.representation import Representation
from monad.errors import CheckpointError, problem
from monad.model.network import Network, Size
from monad.tasks import Task, task_from_plain

FORMAT = 2
BEST = "best_model.ckpt"


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint directory holds, without any code.

    Attributes:
        head: The state of the task's head, empty for a foundation model.
        extra: Plain values of the head, such as the item column.
    """

    path: Path
    config: FoundationModelConfig
    representation: Representation
    size: Size
    network: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    task: Task | None
    extra: dict[str, Any]


def write_checkpoint(
    directory: Path,
    config: FoundationModelConfig,
    representation: Representation,
    network: Network,
    head: torch.nn.Module | None,
    task: Task | None,
    target_fn: Callable[..., Any] | None,
    extra: dict[str, Any],
) -> None:
    """Write the files of a checkpoint into *directory*, which is on scratch."""
    content = {
        "format": FORMAT,
        "size": dataclasses.asdict(network.size),
        "representation": representation.to_plain(),
        "network": {k: v.detach().cpu() for k, v in network.state_dict().items()},
        "head": {k: v.detach().cpu() for k, v in head.state_dict().items()} if head else {},
        "extra": extra,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lightning_checkpoints").mkdir(exist_ok=True)
    torch.save(content, directory / BEST)
    raw = {k: v for k, v in config.raw.items() if k != "data_loader_params"}
    _dump(directory / "data.yaml", raw)
    _dump(
        directory / "dataloader.yaml",
        {
            "data_loader_params": dataclasses.asdict(config.data_loader_params),
            "max_history_events": network.size.max_events,
        },
    )
    described = task.to_plain() if task else {"task": "FoundationModel", "params": {}}
    _dump(directory / "task.yaml", described)
    if target_fn is not None:
        (directory / "target_fn.bin").write_bytes(pickled_by_value(target_fn))


def _dump(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint directory; no code is loaded."""
    path = Path(path)
    if not (path / BEST).is_file():
        near = [p.parent for p in path.glob("*/" + BEST)] if path.is_dir() else []
        hint = f"Use {near[0]}" if near else "Give the directory that pretrain or fit wrote"
        raise CheckpointError(problem(f"{path} is not a checkpoint directory", f"no {BEST}", hint))
    try:
        content = torch.load(path / BEST, map_location="cpu", weights_only=True)
        raw = yaml.safe_load((path / "data.yaml").read_text(encoding="utf-8"))
        described = yaml.safe_load((path / "task.yaml").read_text(encoding="utf-8"))
        loaders = yaml.safe_load((path / "dataloader.yaml").read_text(encoding="utf-8"))
    except (OSError, RuntimeError, EOFError, yaml.YAMLError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            problem(f"The checkpoint {path} cannot be read", first, "Write it again")
        ) from error
    if content.get("format") != FORMAT:
        raise CheckpointError(
            problem(f"The checkpoint {path} has format {content.get('format')}", f"known: {FORMAT}")
        )
    raw["data_loader_params"] = loaders.get("data_loader_params") or {}
    task = None if described.get("task") == "FoundationModel" else task_from_plain(described)
    return Checkpoint(
        path=path,
        config=parse_config(raw, "data.yaml"),
        representation=Representation.from_plain(content["representation"]),
        size=Size(**content["size"]),
        network=content["network"],
        head=content["head"],
        task=task,
        extra=content["extra"],
    )


def pickled_by_value(function: Callable[..., Any]) -> bytes:
    """Pickle a function together with the code of its own modules, but not of libraries."""
    own = [m for m in (inspect.getmodule(function),) if m is not None and _is_user_code(m)]
    for value in getattr(function, "__globals__", {}).values():
        found = inspect.getmodule(value)
        if found is not None and _is_user_code(found) and found not in own:
            own.append(found)
    registered = []
    try:
        for module in own:
            if module.__name__ in sys.modules:
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        return cloudpickle.dumps(function)
    except Exception as error:
        raise CheckpointError(
            problem(
                "The target function cannot be stored",
                f"{type(error).__name__}: {error}",
                "Do not refer to open files, locks or connections in it",
            )
        ) from error
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _is_user_code(module: Any) -> bool:
    name = module.__name__.split(".")[0]
    if name in {"monad", "numpy", "builtins", "torch"} or name in sys.stdlib_module_names:
        return name == "__main__"
    file = getattr(module, "__file__", None)
    if file is None:
        return name == "__main__"
    site = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return not any(file.startswith(place) for place in site)


def load_target_fn(path: Path, trust: bool) -> Callable[..., Any]:
    """Unpickle `target_fn.bin`, which runs code: only with trust given."""
    file = path / "target_fn.bin"
    if not file.is_file():
        raise CheckpointError(problem(f"{path} holds no target_fn.bin", do="Pass target_fn"))
    if not (trust or environment.trust_target_fn()):
        raise CheckpointError(
            problem(
                f"{file} is code and is not trusted",
                "fit and test need labels, and labels need the target function",
                "Pass trust_target_fn=True, or set MONAD_TRUST_TARGET_FN=1, for checkpoints"
                " that you or your pipeline wrote; predict does not need it",
            )
        )
    importlib.invalidate_caches()
    return cloudpickle.loads(file.read_bytes())
