"""Modules form no import circle, imports inside functions included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# package -> the folder its dotted names start from
PACKAGES = {"monad_dagster": ROOT, "monad": ROOT / "container" / "engine"}


def _is_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(path, package, base):
    """Return the modules of the package that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(n) for node in ast.walk(tree) if _is_for_types(node) for n in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.ImportFrom):
            continue
        if (node.module or "").partition(".")[0] != package:
            continue
        for name in node.names:
            inner = f"{node.module}.{name.name}"
            is_module = (base / Path(*inner.split("."))).with_suffix(".py").is_file()
            found.add(inner if is_module else node.module)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circles(package):
    """Every module can be imported first: none reaches itself."""
    base = PACKAGES[package]
    graph = {
        ".".join(path.relative_to(base).with_suffix("").parts): imports(path, package, base)
        for path in sorted((base / package).rglob("*.py"))
    }
    assert len(graph) > 50
    for start, imported in graph.items():
        seen, waiting = set(), list(imported)
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph.get(module, ())
        assert start not in seen, f"{start} imports itself through {sorted(seen)}"
