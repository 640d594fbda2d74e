"""Changes to parsed queries that fakesnow does not make on their way to DuckDB."""

from typing import Any

from monad_dagster.local.engine import date_formats, table_functions

TYPED = "memory.main._monad_typed"
# Snowflake's date functions return the type of their argument; DuckDB's return a timestamp.
TYPED_MACRO = (
    f"CREATE OR REPLACE MACRO {TYPED}"
    "(given DATE, result) AS CAST(result AS DATE), (given TIMESTAMP, result) AS result,"
    " (given TIMESTAMP WITH TIME ZONE, result) AS result, (given VARCHAR, result) AS result,"
    " (given TIME, result) AS result"
)
TRY_TIMESTAMP = "memory.main._monad_try_timestamp"
MACROS = (
    TYPED_MACRO,
    table_functions.SPLIT_MACRO,
    f"CREATE OR REPLACE MACRO {TRY_TIMESTAMP}(given) AS TRY_CAST(given AS TIMESTAMP)",
)
_WHOLE_DAYS = frozenset({"DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
_VARIANT_TYPES = """
CASE json_type({value}::JSON) WHEN 'UBIGINT' THEN 'INTEGER' WHEN 'BIGINT' THEN 'INTEGER'
WHEN 'HUGEINT' THEN 'INTEGER' WHEN 'DOUBLE' THEN 'DECIMAL' WHEN 'NULL' THEN 'NULL_VALUE'
ELSE json_type({value}::JSON) END
"""


def adjusted(expression: Any) -> Any:
    """Change a statement in place, before fakesnow transforms it, and return it."""
    _convert_time_zones(expression)
    _name_arrays(expression)
    _keep_trying(expression)
    table_functions.adjust_sources(expression)
    date_formats.format_times(expression)
    return expression


def adjusted_after(expression: Any) -> Any:
    """Change a statement in place, after fakesnow transformed it, and return it."""
    _keep_date_types(expression)
    _name_variant_types(expression)
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


def _keep_trying(expression: Any) -> None:
    """Let TRY_CAST and TRY_TO_TIMESTAMP be NULL for what is no timestamp."""
    from sqlglot import exp

    kinds = (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.TIMESTAMPNTZ)
    for node in list(expression.find_all(exp.TryCast)):
        if node.to.this in kinds:
            node.replace(exp.Anonymous(this=TRY_TIMESTAMP, expressions=[node.this]))


def _keep_date_types(expression: Any) -> None:
    """Let DATEADD, DATE_TRUNC and ADD_MONTHS of a date be a date."""
    from sqlglot import exp

    kinds = (exp.DateAdd, exp.DateTrunc, exp.TimestampTrunc, exp.AddMonths)
    for node in list(expression.find_all(*kinds)):
        unit = node.args.get("unit")
        is_fine = isinstance(node, exp.DateAdd) and unit.name.upper() not in _WHOLE_DAYS
        given = node.this
        if is_fine or isinstance(given, exp.Literal | exp.Null) or given.find(exp.Placeholder):
            continue
        wrapped = exp.Anonymous(this=TYPED, expressions=[given.copy(), node.copy()])
        node.replace(wrapped)


def _name_variant_types(expression: Any) -> None:
    """Let TYPEOF say what a variant holds."""
    from sqlglot import exp, parse_one

    for node in list(expression.find_all(exp.Typeof)):
        value = node.this.sql(dialect="duckdb")
        node.replace(parse_one(_VARIANT_TYPES.format(value=value), read="duckdb"))
