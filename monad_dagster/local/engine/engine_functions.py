"""Refuses what the SQL engine could do and Snowflake could not: read files, run nested SQL.

DuckDB reads any file and any table through functions (`read_text`, `query`, ...), past every
privilege. Only the table functions that Snowflake has, and harmless ones, may stand in FROM.
"""

from typing import Any

from monad_dagster.local import errors
from monad_dagster.local.sql.statements import quote_identifier

# RANGE and UNNEST are DuckDB's own; they compute rows and read nothing.
_TABLE_FUNCTIONS = frozenset(
    {"GENERATOR", "FLATTEN", "EXPLODE", "SPLIT_TO_TABLE", "STRTOK_SPLIT_TO_TABLE", "RANGE",
     "UNNEST"}
)  # fmt: skip
# Scalar functions of DuckDB that see or change the engine itself.
_FORBIDDEN = frozenset(
    {"CURRENT_SETTING", "CURRENT_QUERY", "CURRENT_SCHEMAS", "GETENV", "GETVARIABLE", "IN_SEARCH_PATH",
     "SET_CONFIG", "WRITE_LOG", "PARSE_DUCKDB_LOG_MESSAGE", "QUERY", "QUERY_TABLE"}
)  # fmt: skip
_FORBIDDEN_PREFIXES = ("READ_", "DUCKDB_", "PRAGMA_", "PG_", "SNIFF_", "PARQUET_")
# Statements that sqlglot does not parse and that the engine may execute nevertheless.
_COMMANDS = frozenset({"BEGIN", "START", "COMMIT", "ROLLBACK", "ALTER", "TRUNCATE"})


def check(expression: Any) -> None:
    """Refuse functions of the engine that Snowflake does not have.

    Raises:
        StatementError: 2140 for such a function, 2003 for a file name where a table goes, 2 for a
            statement that cannot be looked into.
    """
    from sqlglot import exp

    if isinstance(expression, exp.Command) and expression.name.upper() not in _COMMANDS:
        raise errors.unsupported(expression.name.upper())
    if isinstance(expression, exp.MultitableInserts):
        raise errors.unsupported("INSERT into several tables")
    for node in expression.find_all(exp.Table, exp.TableFromRows, exp.Lateral):
        _check_source(node.this)
    _check_names(expression)
    for node in expression.find_all(exp.Func):
        name = function_name(node)
        if name in _FORBIDDEN or name.startswith(_FORBIDDEN_PREFIXES):
            raise _unknown(name)


def escape_comments(expression: Any) -> str | None:
    """Return DDL with the apostrophes of its comments doubled, or None when it has none.

    fakesnow writes a comment as it is into a literal of its own SQL.
    """
    from sqlglot import exp

    places = (exp.SchemaCommentProperty, exp.CommentColumnConstraint, exp.Comment)
    changed = expression.copy()
    found = False
    for node in changed.find_all(*places):
        comment = node.expression if isinstance(node, exp.Comment) else node.this
        if isinstance(comment, exp.Literal) and "'" in comment.name:
            comment.set("this", comment.name.replace("'", "''"))
            found = True
    return changed.sql(dialect="snowflake") if found else None


def function_name(node: Any) -> str:
    """Return a function's name in upper case, also of one that sqlglot does not know."""
    from sqlglot import exp

    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return node.name.upper()  # quoted or not
    return str(node.sql_name()).upper()


def _check_names(expression: Any) -> None:
    """Refuse names with an apostrophe where fakesnow writes names into text of its own SQL."""
    from sqlglot import exp

    is_ddl = isinstance(
        expression, exp.DDL | exp.Alter | exp.Drop | exp.Comment | exp.TruncateTable
    )
    places = (exp.Identifier,) if is_ddl else (exp.Table, exp.TableAlias)
    for node in expression.find_all(*places):
        names = [node] if isinstance(node, exp.Identifier) else node.find_all(exp.Identifier)
        for name in names:
            if "'" in name.name:
                raise errors.unsupported(f"name {quote_identifier(name.name)}")


def _check_source(source: Any) -> None:
    from sqlglot import exp

    if isinstance(source, exp.Literal | exp.DynamicIdentifier):
        raise errors.does_not_exist("Object", source.name)
    if not isinstance(source, exp.Func):
        return
    name = function_name(source)
    if name not in _TABLE_FUNCTIONS:
        raise _unknown(name)


def _unknown(name: str) -> errors.StatementError:
    return errors.compilation_error(2140, "42601", f"Unknown function {name}")
