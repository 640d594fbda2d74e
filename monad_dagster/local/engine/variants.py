"""Comparisons and order of variants as Snowflake makes them.

On Snowflake `attributes:"name" = 'x'` compares the text that the variant holds, `v:n > 2` the
number, and a variant beside a column whatever that column holds. DuckDB would read 'x' as JSON and
fail, or round the variant to the other side's type. Extractions and FLATTEN's VALUE are variants.
"""

from typing import Any

_OPERATORS = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ")
_NUMBERS = "^(U?TINYINT|U?SMALLINT|U?INTEGER|U?BIGINT|U?HUGEINT|FLOAT|DOUBLE|DECIMAL.*)$"
# Which of the three comparisons holds is known only when the other side's type is bound.
_BY_TYPE = """
CASE WHEN regexp_matches(TYPEOF({other}), '{numbers}')
THEN CAST({variant} ->> '{path}' AS DOUBLE) {operator} TRY_CAST(CAST({other} AS VARCHAR) AS DOUBLE)
WHEN TYPEOF({other}) = 'JSON'
THEN CAST({variant} -> '{path}' AS VARCHAR) {operator} CAST({other} AS VARCHAR)
ELSE {variant} ->> '{path}' {operator} CAST({other} AS VARCHAR) END
"""


def compare_as_text(expression: Any) -> Any:
    """Return a DuckDB statement whose variants are compared as what stands beside them."""
    from sqlglot import exp

    flattened = _flattened(expression)
    operators = tuple(getattr(exp, name) for name in _OPERATORS)
    for node in list(expression.find_all(*operators, exp.Like, exp.ILike)):
        sides = (node.this, node.expression)
        for side, other in (sides, sides[::-1]):
            variant = _variant(side, flattened)
            if variant is None:
                continue
            if _is_text(other):
                side.replace(_text(variant))
            elif _is_number(other):
                side.replace(exp.cast(_text(variant), "double"))
            elif (
                isinstance(other.unnest(), exp.Column)
                and isinstance(node, operators)
                and _variant(other, flattened) is None
            ):
                _compare_by_type(node, side, other, variant)
                break
    for node in expression.find_all(exp.In):
        variant = _variant(node.this, flattened)
        if variant is not None and node.expressions:
            if all(_is_text(item) for item in node.expressions):
                node.this.replace(_text(variant))
            elif all(_is_number(item) for item in node.expressions):
                node.this.replace(exp.cast(_text(variant), "double"))
    _order_by_value(expression, flattened)
    _extremes_by_value(expression, flattened)
    return expression


def _flattened(expression: Any) -> set[str]:
    """Return the names of the tables that FLATTEN makes."""
    from sqlglot import exp

    found = set()
    for node in expression.find_all(exp.Lateral, exp.Table, exp.TableFromRows):
        function = node.this
        if "_FS_FLATTEN" in str(getattr(function, "this", "")).upper() or (
            isinstance(function, exp.Anonymous) and "FLATTEN" in function.name.upper()
        ):
            found.add(node.alias_or_name.upper())
    return found


def _variant(node: Any, flattened: set[str]) -> tuple[Any, Any] | None:
    """Return (JSON expression, path) of a variant, or None for anything else."""
    from sqlglot import exp

    found = node.unnest()
    if type(found) is exp.JSONExtract:
        return found.this, found.expression
    is_value = isinstance(found, exp.Column) and found.name.upper() == "VALUE"
    if is_value and flattened and found.table.upper() in flattened | {""}:
        return found, exp.JSONPath(expressions=[exp.JSONPathRoot()])
    return None


def _text(variant: tuple[Any, Any]) -> Any:
    from sqlglot import exp

    return exp.Paren(
        this=exp.JSONExtractScalar(this=variant[0].copy(), expression=variant[1].copy())
    )


def _compare_by_type(node: Any, side: Any, other: Any, variant: tuple[Any, Any]) -> None:
    from sqlglot import exp, parse_one

    scalar = exp.JSONExtractScalar(this=variant[0].copy(), expression=variant[1].copy())
    text = scalar.sql(dialect="duckdb")
    value, _, path = text.rpartition(" ->> ")
    operator = {"NullSafeEQ": "IS NOT DISTINCT FROM", "NullSafeNEQ": "IS DISTINCT FROM"}.get(
        type(node).__name__
    ) or _symbol(node, swapped=node.this is not side)
    sql = _BY_TYPE.format(
        other=other.sql(dialect="duckdb"), variant=value, path=path[1:-1], operator=operator,
        numbers=_NUMBERS,
    )  # fmt: skip
    node.replace(exp.Paren(this=parse_one(sql, read="duckdb")))


def _symbol(node: Any, *, swapped: bool) -> str:
    symbols = {"EQ": "=", "NEQ": "<>", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}
    symbol = symbols[type(node).__name__]
    return symbol.translate(str.maketrans("<>", "><")) if swapped and symbol != "<>" else symbol


def _order_by_value(expression: Any, flattened: set[str]) -> None:
    """Sort variants that hold numbers as numbers."""
    from sqlglot import exp

    for order in expression.find_all(exp.Order):
        query = order.parent
        if isinstance(query, exp.Select) and query.args.get("distinct"):
            continue  # only selected expressions may sort there
        items = []
        for item in order.expressions:
            inner = item.this if isinstance(item, exp.Ordered) else item
            variant = _variant(inner, flattened)
            if variant is not None:
                number = exp.TryCast(this=_text(variant), to=exp.DataType.build("double"))
                first = item.copy()
                if isinstance(first, exp.Ordered):
                    first.set("this", number)
                else:
                    first = number
                items.append(first)
            items.append(item)
        order.set("expressions", items)


def _extremes_by_value(expression: Any, flattened: set[str]) -> None:
    """Let MAX and MIN of variants that hold numbers be those of the numbers."""
    from sqlglot import exp

    for node in list(expression.find_all(exp.Max, exp.Min)):
        variant = _variant(node.this, flattened)
        if variant is None or node.expressions or isinstance(node.parent, exp.Window):
            continue
        kind = exp.ArgMax if isinstance(node, exp.Max) else exp.ArgMin
        number = exp.TryCast(this=_text(variant), to=exp.DataType.build("double"))
        chosen = kind(this=node.this.copy(), expression=number)
        node.replace(exp.Coalesce(this=chosen, expressions=[node.copy()]))


def _is_number(node: Any) -> bool:
    from sqlglot import exp

    found = node.unnest()
    if isinstance(found, exp.Neg):
        found = found.this.unnest()
    if isinstance(found, exp.Cast):
        return found.to.is_type(*exp.DataType.NUMERIC_TYPES)
    return isinstance(found, exp.Literal) and not found.is_string


def _is_text(node: Any) -> bool:
    from sqlglot import exp

    found = node.unnest()
    if isinstance(found, exp.Literal):
        return found.is_string
    if isinstance(found, exp.Cast):
        return found.to.is_type(*exp.DataType.TEXT_TYPES)
    kinds = (exp.Placeholder, exp.Parameter, exp.Upper, exp.Lower, exp.Concat, exp.Trim)
    return isinstance(found, kinds)
