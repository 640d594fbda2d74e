"""Translates the SQL engine's exceptions into Snowflake's numbers, SQL states and wording."""

import re

from monad_dagster.local import errors
from monad_dagster.local.errors import StatementError

_MISSING = re.compile(
    r"(?:Table|View|Object|Sequence) with name \"?([^\"!\s]+)\"? does not exist", re.IGNORECASE
)
_MISSING_SCHEMA = re.compile(r"(?:Schema|Catalog) with name \"?([^\"!\s]+)\"?", re.IGNORECASE)
_EXISTS = re.compile(r"with name \"?([^\"!]+?)\"? already exists", re.IGNORECASE)
_COLUMN = re.compile(
    r"(?:Referenced (?:column|table) \"([^\"]+)\" not found"
    r"|does not have a column (?:named|with name) \"([^\"]+)\""
    r"|column \"?([^\"\s]+)\"? (?:does not exist|not found))",
    re.IGNORECASE,
)
_FUNCTION = re.compile(
    r"(?:Scalar|Table|Aggregate|Macro)? ?Function with name (\S+) does not exist", re.I
)
_CONVERSION = re.compile(
    r"Could not convert (?:string )?['\"]?(.*?)['\"]? to '?(\w+)", re.IGNORECASE
)
_SYNTAX = re.compile(r"syntax error at or near \"([^\"]*)\"", re.IGNORECASE)


_FIELD = re.compile(r"invalid (date|timestamp|time) field format: \"(.*?)\"", re.IGNORECASE)
# Functions of Snowflake that neither the parser nor the engine knows by name.
_SNOWFLAKE_ONLY = frozenset(
    {"CONDITIONAL_CHANGE_EVENT", "CONDITIONAL_TRUE_EVENT", "CURRENT_STATEMENT", "GET_DDL",
     "GET_PRESIGNED_URL", "BUILD_SCOPED_FILE_URL", "BUILD_STAGE_FILE_URL", "VALIDATE"}
)  # fmt: skip


def translate(error: Exception) -> StatementError:
    """Return Snowflake's error for an exception of fakesnow, sqlglot or DuckDB."""
    text = str(getattr(error, "msg", None) or error)
    kind = type(error).__name__
    cause = type(error.__cause__).__name__ if error.__cause__ else ""
    for match in (_by_text, _by_kind):
        found = match(text, f"{kind} {cause}", error)
        if found is not None:
            return found
    return StatementError(100183, "P0000", f"Execution error: {_first_line(text)}")


def _by_text(text: str, kind: str, error: Exception) -> StatementError | None:
    if "INTERRUPT" in text.upper() and "Interrupt" in kind + text:
        return errors.canceled()
    if text.startswith("Session variable"):
        return errors.compilation_error(2211, "02000", text)
    if "Values were not provided for the following parameters" in text:
        return errors.compilation_error(2049, "42601", "Bind variable ? not set.")
    if "Division by zero" in text:
        return StatementError(100051, "22012", "Division by zero")
    if match := _FUNCTION.search(text):
        return _missing_function(match.group(1).upper().split(".")[-1])
    if match := _EXISTS.search(text):
        return errors.already_exists(match.group(1))
    if match := _MISSING.search(text):
        return errors.does_not_exist("Object", match.group(1))
    if match := _COLUMN.search(text):
        name = next(group for group in match.groups() if group)
        return errors.compilation_error(
            904, "42000", f"error line 1 at position 0\ninvalid identifier '{name.upper()}'"
        )
    if match := _SYNTAX.search(text):
        return errors.syntax_error(match.group(1))
    if match := _FIELD.search(text):
        return _conversion(match.group(2), match.group(1))
    if match := _CONVERSION.search(text):
        return _conversion(match.group(1), match.group(2))
    if "Maximum line size" in text:
        return StatementError(
            100082, "22000", "Max LOB size (16777216) exceeded by a line of a staged file"
        )
    if "Missing column" in text or "must appear in the GROUP BY" in text:
        return errors.compilation_error(
            979, "42601", f"[{_first_line(text)}] is not a valid group by expression"
        )
    return None


def _by_kind(text: str, kind: str, error: Exception) -> StatementError | None:
    errno = getattr(error, "errno", None)
    if errno in {90105, 90106}:
        return StatementError(errno, "22000", text)
    if "ConversionException" in kind:
        return StatementError(100035, "22007", _first_line(text))
    if "ConstraintException" in kind:
        return StatementError(
            100072, "22000", f"NULL result in a non-nullable column: {_first_line(text)}"
        )
    if "ParserException" in kind or "ParseError" in kind or errno == 1003:
        return errors.compilation_error(1003, "42000", f"syntax error {_first_line(text)}")
    if "NotImplemented" in kind or errno == 9999:
        return errors.unsupported(_first_line(text))
    if "BinderException" in kind:
        return errors.compilation_error(2043, "02000", _first_line(text))
    if "CatalogException" in kind:
        return errors.compilation_error(2003, "02000", f"{_first_line(text)} or not authorized.")
    if "OutOfMemory" in kind or "IOException" in kind:
        return StatementError(603, "XX000", f"SQL execution internal error:\n{_first_line(text)}")
    return None


def _missing_function(name: str) -> StatementError:
    """Return the error for a function that is unknown, or that only Snowflake knows."""
    from sqlglot import exp

    if name in exp.FUNCTION_BY_NAME or name in _SNOWFLAKE_ONLY:
        return errors.unsupported(f"function {name}")
    return errors.compilation_error(2140, "42601", f"Unknown function {name}")


def _conversion(value: str, target: str) -> StatementError:
    target = target.upper()
    if target in {"INT32", "INT64", "INT128", "DOUBLE", "DECIMAL", "BIGINT", "HUGEINT", "FLOAT"}:
        return StatementError(100038, "22018", f"Numeric value '{value}' is not recognized")
    if target == "BOOL":
        return StatementError(100037, "22018", f"Boolean value '{value}' is not recognized")
    if target == "DATE":
        return StatementError(100040, "22007", f"Date '{value}' is not recognized")
    return StatementError(100035, "22007", f"Timestamp '{value}' is not recognized")


def _first_line(text: str) -> str:
    return text.split("\n", maxsplit=1)[0].strip()
