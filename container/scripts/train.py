"""Fine-tune a foundation model for one scenario.

The scenario file gives `TASK` and `target_fn`, and optionally `TRAINING` and `TESTING`, dicts of
`TrainingParams` and `TestingParams` fields. Only documented `monad` names are used, so the script
also runs on a licensed image; fields that its `TrainingParams` does not have are left out.
"""

import argparse
import importlib.util
import inspect
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job_support import job_run

from monad.config import OutputType, TestingParams, TrainingParams
from monad.ui.module import load_from_foundation_model

logger = logging.getLogger("monad.run")
DEFAULT_SCENARIO = Path(__file__).resolve().parent.parent / "scenarios" / "churn.py"


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the documented flags and the optional ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--save-path", type=Path, required=True)
    parser.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    parser.add_argument("--time-budget-seconds", type=float, default=None)
    rerun = parser.add_mutually_exclusive_group()
    rerun.add_argument("--resume", action="store_true", default=False)
    rerun.add_argument("--overwrite", action="store_true", default=False)
    return parser.parse_args(arguments)


def load_scenario(path: Path) -> Any:
    """Import a scenario file and check that it has what a scenario needs."""
    if not path.is_file():
        raise SystemExit(f"Scenario file {path} does not exist. Check --scenario.")
    specification = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise SystemExit(f"Scenario file {path} is not a Python file. Check --scenario.")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise SystemExit(
            f"Scenario file {path} failed to import. {type(error).__name__}: {error}. Fix the file."
        ) from error
    missing = [name for name in ("TASK", "target_fn") if not hasattr(module, name)]
    if missing:
        raise SystemExit(
            f"Scenario file {path} has no {' and no '.join(missing)}. Define it there."
        )
    return module


def accepted(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the fields that the constructor of *cls* knows."""
    known = inspect.signature(cls).parameters
    for name in values:
        if name not in known:
            logger.warning("%s has no field %s; it is left out", cls.__name__, name)
    return {name: value for name, value in values.items() if name in known}


def evaluate(module: Any, scenario: Any) -> dict[str, float]:
    """Test the scenario where a test range is configured; returns its metrics, if any."""
    fields = {"output_type": next(iter(OutputType)), **getattr(scenario, "TESTING", {})}
    try:
        found = module.test(TestingParams(**accepted(TestingParams, fields)))
    except ValueError as error:
        logger.warning("The scenario was not tested: %s", error)
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune, test and report the result."""
    params = parse_args(arguments)
    checkpoints = params.save_path / "checkpoints"
    with job_run(script="train", output=params.save_path) as job:
        if params.resume and (checkpoints / "lineage.json").is_file():
            logger.info("Resume: %s is complete, nothing to do", checkpoints)
            job.finish(inner=checkpoints)
            return
        if params.overwrite and params.save_path.exists():
            shutil.rmtree(params.save_path)
        scenario = load_scenario(params.scenario)
        fields = {**getattr(scenario, "TRAINING", {}), "checkpoint_dir": checkpoints}
        if params.resume:
            fields["resume"] = True
        if params.time_budget_seconds is not None:
            fields["time_budget_seconds"] = params.time_budget_seconds
        module = load_from_foundation_model(
            checkpoint_path=params.checkpoint_dir,
            downstream_task=scenario.TASK,
            target_fn=scenario.target_fn,
        )
        module.fit(TrainingParams(**accepted(TrainingParams, fields)))
        job.finish(
            metrics=evaluate(module, scenario),
            facts={"scenario": params.scenario.stem},
            inner=checkpoints,
        )


if __name__ == "__main__":
    main()
