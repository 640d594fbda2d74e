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
import json
import math
import sys
import sysconfig
import warnings
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
from monad.errors import CheckpointError, ConfigError, problem
from monad.io.writer import MANIFEST, file_digest
from monad.logs import run_logger
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
    check_file(path, BEST)
    content = _read(path, BEST, lambda file: torch.load(file, "cpu", weights_only=True))
    raw, described, loaders = (
        _read(path, name, lambda file: yaml.safe_load(file.read_text(encoding="utf-8")))
        for name in ("data.yaml", "task.yaml", "dataloader.yaml")
    )
    if content.get("format") != FORMAT:
        raise CheckpointError(
            problem(f"The checkpoint {path} has format {content.get('format')}", f"known: {FORMAT}")
        )
    raw["data_loader_params"] = loaders.get("data_loader_params") or {}
    task = None if described.get("task") == "FoundationModel" else task_from_plain(described)
    config = parse_config(raw, "data.yaml")
    try:
        made = Checkpoint(
            path=path,
            config=config,
            representation=Representation.from_plain(content["representation"]),
            size=Size(**content["size"]),
            network=content["network"],
            head=content["head"],
            task=task,
            extra=content["extra"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, BEST, error) from error
    for name, weights in {**made.network, **made.head}.items():
        if torch.isnan(weights.float()).any():
            raise _unreadable(path, BEST, ValueError(f"weights {name} are not numbers"))
    return made


def _read(path: Path, name: str, how: Callable[[Path], Any]) -> dict[str, Any]:
    """Read one file of a checkpoint, which is a mapping."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of files that it did not write
            found = how(path / name)
    except Exception as error:  # damaged and foreign files raise of many kinds
        raise _unreadable(path, name, error) from error
    if not isinstance(found, dict):
        raise _unreadable(path, name, TypeError(f"it holds {type(found).__name__}, not a mapping"))
    return found


def _unreadable(path: Path, name: str, error: Exception) -> CheckpointError:
    first = (str(error).splitlines() or [""])[0][:200]
    return CheckpointError(
        problem(
            f"The checkpoint {path} cannot be read",
            f"{name}: {type(error).__name__} {first}",
            "It is damaged, incomplete or not of this engine: copy it again, or train it again with"
            " overwrite",
        )
    )


def check_file(path: Path, name: str) -> None:
    """Compare a file of a checkpoint with its manifest: a damaged weight is still a number.

    Raises:
        CheckpointError: A file is not the one that was written.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        digests = {str(e["path"]): (str(e["sha256"]), int(e["size"])) for e in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        run_logger.warning(
            "The checkpoint %s has no readable %s (%s): it is an unfinished one or a copy of some"
            " files, and damage cannot be told",
            path,
            MANIFEST,
            type(error).__name__,
        )
        return
    file = path / name
    if name in digests and file.is_file() and file_digest(file) != digests[name]:
        raise _unreadable(path, name, ValueError(f"differs from what {MANIFEST} says of it"))


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Give *module* the weights of a checkpoint.

    Raises:
        CheckpointError: They are another module's.
    """
    try:
        module.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(
            problem(
                f"The weights of checkpoint {path} do not fit its settings",
                (lines[1] if len(lines) > 1 else lines[0])[:200],
                "Its files are of several checkpoints: copy them again from one",
            )
        ) from error


def check_trained(metrics: dict[str, float], *modules: torch.nn.Module | None) -> None:
    """Refuse a validation loss, or weights, that are not numbers any more.

    Raises:
        ConfigError: Training diverged.
    """
    seen = [f"{k} is {v}" for k, v in metrics.items() if k == "val_loss" and not math.isfinite(v)]
    for module in modules:
        for name, weights in module.named_parameters() if module is not None else ():
            if not torch.isfinite(weights.detach().float()).all():
                seen.append(f"weights {name} are not finite")
    if seen:
        raise ConfigError(
            problem(
                "Training diverged, and nothing was written",
                seen[0],
                "Lower training_params.learning_rate, or look for extreme values in the targets and"
                " in what a loss of your own returns",
            )
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
    check_file(path, file.name)
    importlib.invalidate_caches()
    try:
        found = cloudpickle.loads(file.read_bytes())
    except Exception as error:  # unpickling runs whatever the file says
        raise CheckpointError(
            problem(
                f"{file} cannot be loaded",
                f"{type(error).__name__}: {str(error)[:200]}",
                "Install the modules that the target function needs, or pass target_fn",
            )
        ) from error
    if not callable(found):
        raise CheckpointError(
            problem(f"{file} holds no function", f"got {type(found).__name__}", "Pass target_fn")
        )
    return found
