"""FLATTEN's options, SPLIT_TO_TABLE and $1: what fakesnow leaves out or does not know.

Options of FLATTEN that it would drop without a word are made here or refused.
"""

from typing import Any

from monad_dagster.local import errors

SPLIT = "memory.main._monad_split_to_table"
SPLIT_MACRO = (
    f"CREATE OR REPLACE MACRO {SPLIT}(given, delimiter) AS TABLE"
    " SELECT hash(given)::UBIGINT AS SEQ, (row_number() OVER ())::BIGINT AS INDEX,"
    " piece AS VALUE FROM (SELECT unnest(string_split(given, delimiter)) AS piece)"
)


def adjust_sources(expression: Any) -> None:
    """Change table functions of a parsed statement in place, before fakesnow transforms it.

    Raises:
        StatementError: 2 for options that cannot be made here.
    """
    from sqlglot import exp

    for node in list(expression.find_all(exp.Explode)):
        _flatten_options(node)
    for node in list(expression.find_all(exp.SplitToTable)):
        source = node.parent
        if isinstance(source, exp.Lateral | exp.TableFromRows):
            made = exp.Anonymous(this=SPLIT, expressions=[node.this, node.expression])
            source.replace(exp.Table(this=made, alias=source.args.get("alias")))
    for node in list(expression.find_all(exp.Parameter)):
        _positional_column(node)


def _flatten_options(node: Any) -> None:
    from sqlglot import exp

    options = {}
    inputs = [node.this, *node.expressions]
    for item in inputs:
        if isinstance(item, exp.Kwarg):
            options[item.this.name.upper()] = item.expression
    given = options.pop("INPUT", node.this)
    path = options.pop("PATH", None)
    if path is not None and path.name:
        given = exp.JSONExtract(this=given.copy(), expression=_json_path(path.name))
    join = node.find_ancestor(exp.Join)
    if join is not None and join.side == "LEFT" and join.args.get("on") is None:
        join.set("on", exp.true())
    outer = options.pop("OUTER", None)
    if _is_true(outer):
        _join_outer(node)
    if _is_true(options.pop("RECURSIVE", None)):
        raise errors.unsupported("FLATTEN with RECURSIVE")
    mode = options.pop("MODE", None)
    if mode is not None and mode.name.upper() != "BOTH":
        raise errors.unsupported(f"FLATTEN with MODE {mode.name.upper()}")
    node.set("this", given)
    node.set("expressions", [])


def _json_path(text: str) -> Any:
    from sqlglot import exp

    parts: list[Any] = [exp.JSONPathRoot()]
    for part in text.replace("[", ".[").split("."):
        if part.startswith("[") and part[1:-1].isdigit():
            parts.append(exp.JSONPathSubscript(this=int(part[1:-1])))
        elif part:
            parts.append(exp.JSONPathKey(this=part.strip("[]'\"")))
    return exp.JSONPath(expressions=parts)


def _is_true(node: Any) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.Boolean) and bool(node.this)


def _join_outer(node: Any) -> None:
    """Keep the rows whose value has nothing to flatten."""
    from sqlglot import exp

    join = node.find_ancestor(exp.Join)
    if join is None or node.find_ancestor(exp.Select) is not join.find_ancestor(exp.Select):
        raise errors.unsupported("FLATTEN with OUTER that joins no table")
    join.set("side", "LEFT")
    join.set("kind", None)
    join.set("on", exp.true())


def _positional_column(node: Any) -> None:
    """Read $1 of VALUES as its first column."""
    from sqlglot import exp

    number = node.this
    if not isinstance(number, exp.Literal) or not number.is_int:
        return
    query = node.find_ancestor(exp.Select)
    source = query and query.args.get("from_")
    if source is None or not isinstance(source.this, exp.Values):
        raise errors.unsupported(f"${number.name}, the column of a query by its position")
    node.replace(exp.column(f"COLUMN{number.name}", quoted=True))
