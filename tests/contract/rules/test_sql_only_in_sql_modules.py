"""SQL text exists only in the `sql*.py` modules of `spcs`."""

import ast
import re
from pathlib import Path

import pytest

import monad_dagster

ROOT = Path(monad_dagster.__file__).parent
ALLOWED = {"spcs/sql.py", "spcs/sql_lineage.py", "spcs/sql_setup.py", "spcs/sql_tables.py"}
STATEMENT = re.compile(
    r"^\s*(SELECT\s+\S|INSERT INTO|UPDATE \w+ SET|DELETE FROM|MERGE INTO|COPY (INTO|FILES)"
    r"|(CREATE|ALTER|DROP|SHOW|DESC|DESCRIBE|EXECUTE|UNDROP|TRUNCATE) "
    r"(OR|IF|JOB|SERVICE|SERVICES|COMPUTE|IMAGE|STAGE|STAGES|TABLE|TABLES|SCHEMA|DATABASE|ROLE"
    r"|WAREHOUSE|WAREHOUSES|SESSION|GRANTS|USER|TASK|VIEW|PARAMETERS|NODES|IMAGES) \S"
    r"|(GRANT|REVOKE) [A-Z, ]+ (ON|TO)\b|CALL \S+!|(PUT|GET) .*(@|file:)|(LIST|LS|REMOVE|RM) @"
    r"|USE (ROLE|WAREHOUSE|DATABASE|SCHEMA)\b)"
)


def modules():
    """List the modules the rule covers."""
    names = (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.rglob("*.py")))
    return [name for name in names if name not in ALLOWED and not name.startswith("local/")]


def strings_of(tree):
    """Yield the text of every string and formatted string that is not a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(str(part) for part in parts)


@pytest.mark.parametrize("module", modules())
def test_no_statement_outside_the_sql_modules(module):
    """No string of another module begins like a statement."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    found = [(line, text[:60]) for line, text in strings_of(tree) if STATEMENT.match(text)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "DROP SERVICE X",
        "SELECT 1",
        "GRANT READ ON STAGE X TO ROLE Y",
        "EXECUTE JOB SERVICE IN COMPUTE POOL P",
        "PUT 'file:///x' @s",
        "CALL D.S.J!SPCS_CANCEL_JOB()",
    ],
)
def test_the_rule_sees_statements(text):
    """The pattern recognises what it is there to find."""
    assert STATEMENT.match(text)
