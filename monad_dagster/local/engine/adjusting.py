"""Changes to parsed queries that fakesnow does not make on their way to DuckDB."""

from typing import Any


def adjusted(expression: Any) -> Any:
    """Change a query in place, before fakesnow transforms it, and return it."""
    _convert_time_zones(expression)
    _name_arrays(expression)
    return expression


def is_constant(expression: Any) -> bool:
    """Tell whether a query has nothing but numbers, plain text and names of its own.

    fakesnow's rewrites, each of which walks the tree, have nothing to do then; many clients send
    such a query to see whether a connection lives.
    """
    from sqlglot import exp

    plain = (exp.Select, exp.Alias, exp.Literal, exp.Boolean, exp.Null)
    return all(
        isinstance(node, plain)
        or (isinstance(node, exp.Identifier) and bool(node.args.get("quoted")))
        for node in expression.walk()
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
