"""A checkpoint is data: reading one runs no code."""

import ast
from pathlib import Path

ENGINE = Path(__file__).parents[3] / "container" / "engine" / "monad"


def _loads(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            yield {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def test_torch_loads_weights_only():
    """Every torch.load of the engine says weights_only=True."""
    calls = [call for path in ENGINE.rglob("*.py") for call in _loads(path)]
    assert calls
    assert all(call.get("weights_only") == "True" for call in calls)
