"""Comparisons of variants with text, as Snowflake makes them.

On Snowflake `attributes:"name" = 'x'` compares the text that the variant holds. DuckDB would read
'x' as JSON and fail, so the extraction is made one of text.
"""

from typing import Any


def compare_as_text(expression: Any) -> Any:
    """Return a DuckDB query whose variant extractions are text where text is beside them."""
    from sqlglot import exp

    comparisons = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.ILike)
    for node in expression.find_all(*comparisons):
        sides = (node.this, node.expression)
        for side, other in (sides, sides[::-1]):
            if _is_text(other):
                _make_text(side)
    for node in expression.find_all(exp.In):
        if node.expressions and all(_is_text(item) for item in node.expressions):
            _make_text(node.this)
    return expression


def _make_text(node: Any) -> None:
    from sqlglot import exp

    found = node.unnest()
    if type(found) is exp.JSONExtract:
        scalar = exp.JSONExtractScalar(this=found.this, expression=found.expression)
        found.replace(scalar)


def _is_text(node: Any) -> bool:
    from sqlglot import exp

    found = node.unnest()
    if isinstance(found, exp.Literal):
        return found.is_string
    if isinstance(found, exp.Cast):
        return found.to.is_type(*exp.DataType.TEXT_TYPES)
    kinds = (exp.Placeholder, exp.Parameter, exp.Upper, exp.Lower, exp.Concat, exp.Trim)
    return isinstance(found, kinds)
