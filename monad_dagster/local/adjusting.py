"""Changes to parsed queries that fakesnow does not make on their way to DuckDB."""

from typing import Any


def adjusted(expression: Any) -> Any:
    """Change a query in place, before fakesnow transforms it, and return it."""
    _compare_variants(expression)
    _convert_time_zones(expression)
    _name_arrays(expression)
    return expression


def _compare_variants(expression: Any) -> None:
    """Compare a path into a VARIANT with text as text; DuckDB would read the text as JSON."""
    from sqlglot import exp

    for node in list(expression.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)):
        for side, other in (("this", "expression"), ("expression", "this")):
            if _is_path(node.args[side]) and _is_text(node.args[other]):
                node.set(side, exp.cast(node.args[side], "varchar"))
    for node in list(expression.find_all(exp.Like, exp.ILike, exp.In)):
        values = node.expressions if isinstance(node, exp.In) else [node.expression]
        if _is_path(node.this) and values and all(map(_is_text, values)):
            node.set("this", exp.cast(node.this, "varchar"))


def _is_path(node: Any) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.JSONExtract | exp.Bracket)


def _is_text(node: Any) -> bool:
    from sqlglot import exp

    return (isinstance(node, exp.Literal) and node.is_string) or isinstance(
        node, exp.Upper | exp.Lower
    )


def _convert_time_zones(expression: Any) -> None:
    """Make CONVERT_TIMEZONE(zone, time) a time with a zone; deviation: clients see it in UTC."""
    from sqlglot import exp

    for node in list(expression.find_all(exp.ConvertTimezone)):
        if node.args.get("source_tz") is None:
            node.replace(exp.cast(node.args["timestamp"], "timestamptz"))


def _name_arrays(expression: Any) -> None:
    """Let `ARRAY_CONSTRUCT(...) AS name` hold values of several types, as it does without AS."""
    from sqlglot import exp

    for node in list(expression.find_all(exp.Array)):
        alias = node.parent
        if isinstance(alias, exp.Alias) and isinstance(alias.parent, exp.Select):
            node.replace(exp.Anonymous(this="json_array", expressions=node.expressions))
