"""Scripts and shipped scenarios use only documented `monad` names."""

import ast
from pathlib import Path

import pytest

CONTAINER = Path(__file__).resolve().parents[3] / "container"
DOCUMENTED = {
    "monad.ui": {"pretrain"},
    "monad.config": {"DataLocation", "OutputType", "TestingParams", "TrainingParams"},
    "monad.ui.module": {
        "BinaryClassificationTask",
        "MulticlassClassificationTask",
        "MultilabelClassificationTask",
        "OneHotRecommendationTask",
        "RecommendationTask",
        "RegressionTask",
        "load_from_checkpoint",
        "load_from_foundation_model",
    },
    "monad.ui.target_function": {
        "Attributes",
        "Events",
        "SPLIT_TIMESTAMP",
        "Sketch",
        "has_incomplete_training_window",
        "sequential_decay",
        "sketch",
        "time_decay",
    },
}
FILES = sorted([*CONTAINER.glob("scripts/*.py"), *CONTAINER.glob("scenarios/**/*.py")])


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_only_documented_names_are_imported(file):
    """Every import from monad names something that the documentation publishes."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "monad" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "monad":
            names = {alias.name for alias in node.names}
            assert names <= DOCUMENTED.get(node.module or "", set())
