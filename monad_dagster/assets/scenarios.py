"""Scenario files: discovery, checks and partitions, without ever running their code.

A scenario is a Python file with `TASK` and `target_fn`. The code location only parses it; it runs
inside the job service.
"""

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from monad_dagster.errors import ConfigError, problem

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class ScenarioFile:
    """One scenario: its name (the partition key), its file and the file's sha256."""

    name: str
    path: Path
    sha256: str


def discover_scenarios(folder: Path) -> tuple[ScenarioFile, ...]:
    """List the scenario files of *folder*, sorted by name.

    Raises:
        ConfigError: The folder is missing or holds no scenario file.
    """
    if not folder.is_dir():
        raise ConfigError(
            problem(
                "The scenario folder does not exist",
                f"looked for {folder}",
                "Set MONAD_SCENARIOS_DIR, or run: monad-dagster init DIR",
            )
        )
    found = [
        ScenarioFile(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.glob("*.py"))
        if _NAME.fullmatch(path.stem)
    ]
    if not found:
        raise ConfigError(
            problem(
                f"The scenario folder {folder} is empty",
                "no file such as churn.py",
                "Add a file with TASK and target_fn",
                "docs/scenarios.md",
            )
        )
    return tuple(found)


def check_scenario(scenario: ScenarioFile) -> None:
    """Refuse a scenario that could not run, before any statement is sent.

    Raises:
        ConfigError: The file has a syntax error, or defines no `TASK` or `target_fn`.
    """
    try:
        tree = ast.parse(scenario.path.read_text(encoding="utf-8"), filename=str(scenario.path))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(
            problem(
                f"Scenario file {scenario.path} cannot be parsed",
                f"{error.args[0]}" + (f" in line {line}" if line else ""),
                "Correct the file and materialize stage_contents again",
            )
        ) from error
    defined = _top_level_names(tree)
    missing = [name for name in ("TASK", "target_fn") if name not in defined]
    if missing:
        raise ConfigError(
            problem(
                f"Scenario file {scenario.path} is incomplete",
                f"it defines no {' and no '.join(missing)}",
                "Add TASK = BinaryClassificationTask() (or another task) and "
                "def target_fn(history, future, attributes, ctx)",
                "docs/scenarios.md",
            )
        )


def _top_level_names(tree: ast.Module) -> set[str]:
    """Collect the names that a module binds at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names.update(leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def scenario_partitions(scenarios: tuple[ScenarioFile, ...]) -> dg.StaticPartitionsDefinition:
    """Return one partition for each scenario file."""
    return dg.StaticPartitionsDefinition([scenario.name for scenario in scenarios])
