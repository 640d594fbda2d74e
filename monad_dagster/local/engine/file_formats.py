"""File formats: named objects and the options COPY INTO and INFER_SCHEMA read."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.protocol.results import ResultSet, status, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.show_options import parse_show
from monad_dagster.local.sql.statements import ObjectName, Statement, parse_name

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_TYPES = frozenset({"CSV", "PARQUET", "JSON", "AVRO", "ORC", "XML"})
_READABLE = frozenset({"CSV", "PARQUET"})


@statement("CREATE FILE FORMAT")
def create_file_format(session: "Session", statement: Statement) -> ResultSet:
    """Create a named file format."""
    cursor = statement.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    options = cursor.properties()
    kind = str(options.get("TYPE", "CSV")).upper()
    if kind not in _TYPES:
        raise errors.invalid_value(kind, "TYPE")
    database, schema, last = session.qualify(name)
    temporary = "TEMPORARY" in statement.modifiers
    session.require_schema(database, schema, *(() if temporary else ("CREATE FILE FORMAT",)))
    if if_not_exists and session.catalog.get("FILE FORMAT", last, database, schema):
        return status(f"{last} already exists, statement succeeded.")
    replace = "OR REPLACE" in statement.modifiers
    options |= {"TEMPORARY": True} if temporary else {}
    session.create_object(
        "FILE FORMAT", name, replace=replace, properties={**options, "TYPE": kind}
    )
    if temporary:
        session.temporary.add(("FILE FORMAT", database, schema, last))
    return status(f"File format {last} successfully created.")


@drop_statement("FILE FORMAT")
def drop_file_format(session: "Session", found: CatalogObject) -> None:
    """Drop a named file format."""
    session.catalog.drop("FILE FORMAT", found.name, database=found.database, schema=found.schema)


@statement("SHOW FILE FORMATS")
def show_file_formats(session: "Session", statement: Statement) -> ResultSet:
    """List visible file formats."""
    options = parse_show(session, statement.cursor)
    columns = [
        timestamp("created_on"), text("name"), text("database_name"), text("schema_name"),
        text("type"), text("owner"), text("comment"), text("format_options"),
        text("owner_role_type"),
    ]  # fmt: skip
    found = session.visible("FILE FORMAT", options.database, options.schema)
    rows = [
        (f.created_on, f.name, f.database, f.schema, f.properties["TYPE"], f.owner,
         f.properties.get("COMMENT", ""), f.properties, "ROLE")
        for f in options.select(found, lambda f: f.name)
    ]  # fmt: skip
    return table(columns, rows)


def resolve(session: "Session", given: Any) -> dict[str, Any]:
    """Return the options of FILE_FORMAT = (...) or of a format's name.

    Raises:
        StatementError: The format does not exist or its type cannot be read here.
    """
    options = dict(given) if isinstance(given, dict) else {"FORMAT_NAME": given}
    if name := options.get("FORMAT_NAME"):
        wanted = name if isinstance(name, ObjectName) else parse_name(str(name))
        options = dict(
            session.lookup("FILE FORMAT", wanted, "USAGE", label="File format").properties
        )
    options.pop("TEMPORARY", None)
    options["TYPE"] = str(options.get("TYPE", "CSV")).upper()
    if options["TYPE"] not in _READABLE:
        raise errors.unsupported(f"file format type {options['TYPE']}")
    return options


_CSV_KNOWN = frozenset(
    {"TYPE", "COMPRESSION", "FIELD_DELIMITER", "SKIP_HEADER", "PARSE_HEADER", "COMMENT",
     "FIELD_OPTIONALLY_ENCLOSED_BY", "NULL_IF", "EMPTY_FIELD_AS_NULL", "TRIM_SPACE", "ESCAPE",
     "ESCAPE_UNENCLOSED_FIELD", "DATE_FORMAT", "TIMESTAMP_FORMAT", "TIME_FORMAT", "ENCODING",
     "RECORD_DELIMITER", "ERROR_ON_COLUMN_COUNT_MISMATCH", "SKIP_BLANK_LINES",
     "REPLACE_INVALID_CHARACTERS", "BINARY_FORMAT", "MULTI_LINE"}
)  # fmt: skip


def reader(path: str, options: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the engine's table function for one file, with its arguments bound."""
    if options["TYPE"] == "PARQUET":
        return "read_parquet(?)", [path]
    unknown = set(options) - _CSV_KNOWN
    if unknown:
        raise errors.unsupported(f"file format option {sorted(unknown)[0]}")
    delimiter = str(options.get("FIELD_DELIMITER", ","))
    parse_header = bool(options.get("PARSE_HEADER", False))
    skip = 0 if parse_header else int(options.get("SKIP_HEADER", 0))
    quote = str(options.get("FIELD_OPTIONALLY_ENCLOSED_BY") or "")
    quote = "" if quote.upper() == "NONE" else quote
    nulls = options.get("NULL_IF", ["\\N"])
    nulls = [str(n) for n in (nulls if isinstance(nulls, list) else [nulls])]
    if options.get("EMPTY_FIELD_AS_NULL", True):
        nulls.append("")
    compression = "gzip" if path.endswith(".gz") else "none"
    sql = (
        "read_csv(?, delim=?, quote=?, escape=?, header=?, skip=?, nullstr=?, compression=?,"
        " all_varchar=true, auto_detect=?, null_padding=true, strict_mode=false)"
    )
    return sql, [path, delimiter, quote, quote, parse_header, skip, nulls, compression, True]
