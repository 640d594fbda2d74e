"""COPY INTO a table from a stage, and INFER_SCHEMA.

Files are read by the engine itself, one INSERT for each, all in one transaction, so the result
rows count what each file brought. Unloading (COPY INTO @stage) is not emulated.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.engine import access, engine_errors, file_formats
from monad_dagster.local.engine.databases import ident
from monad_dagster.local.engine.engine import begin
from monad_dagster.local.protocol.results import ResultSet, number, status, table, text
from monad_dagster.local.sql.handlers import statement, table_function
from monad_dagster.local.sql.statements import (
    Arguments,
    Cursor,
    ObjectName,
    StageLocation,
    Statement,
    parse_stage_location,
)
from monad_dagster.local.stages.stage_statements import listed_name, staged_files
from monad_dagster.local.stages.stage_store import StagedFile

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

COPY = 0x3600
_OPTIONS = (
    "FILE_FORMAT", "FILES", "PATTERN", "ON_ERROR", "SIZE_LIMIT", "PURGE", "RETURN_FAILED_ONLY",
    "MATCH_BY_COLUMN_NAME", "ENFORCE_LENGTH", "TRUNCATECOLUMNS", "FORCE", "LOAD_UNCERTAIN_FILES",
    "VALIDATION_MODE",
)  # fmt: skip
_RESULT = [
    text("file"), text("status"), number("rows_parsed"), number("rows_loaded"),
    number("error_limit"), number("errors_seen"), text("first_error"), number("first_error_line"),
    number("first_error_character"), text("first_error_column_name"),
]  # fmt: skip


@dataclass
class Copy:
    """A parsed COPY INTO."""

    target: ObjectName
    columns: list[str] = field(default_factory=list)
    items: list[tuple[str, str | None]] = field(default_factory=list)  # (source, cast)
    location: StageLocation | None = None
    options: dict[str, Any] = field(default_factory=dict)


@statement("COPY INTO")
def copy_into(session: "Session", statement: Statement) -> ResultSet:
    """Load staged files into a table."""
    copy = _parse(statement.cursor)
    assert copy.location is not None
    ref = _target(session, copy)
    session.require_warehouse()
    pattern = copy.options.get("PATTERN")
    found, files = staged_files(session, copy.location, "READ", pattern=pattern)
    stage_format = found.properties.get("FILE_FORMAT")
    given = copy.options.get("FILE_FORMAT") or stage_format or {}
    formatted = file_formats.resolve(session, given)
    files = _wanted(session, copy, found, files, ref)
    if not files:
        return status("Copy executed with 0 files processed.")
    rows = _load(session, copy, ref, found, files, formatted)
    if copy.options.get("PURGE") is True:
        for file in files:
            session.account.stages.remove(found.database, found.schema, found.name, file)
    result = table(_RESULT, rows)
    result.statement_type_id = COPY
    return result


def _parse(cursor: Cursor) -> Copy:
    token = cursor.peek()
    if token is not None and (token.kind == "stage" or token.value.startswith("@")):
        raise errors.unsupported("COPY INTO location")
    copy = Copy(cursor.name())
    if cursor.accept_op("("):
        while not cursor.accept_op(")"):
            copy.columns.append(cursor.identifier())
            cursor.accept_op(",")
    cursor.expect("FROM")
    if cursor.accept_op("("):
        _parse_select(cursor, copy)
    else:
        copy.location = cursor.stage_location()
    copy.options = cursor.properties(*_OPTIONS, kind="COPY")
    if copy.options.get("VALIDATION_MODE"):
        raise errors.unsupported("VALIDATION_MODE")
    return copy


def _parse_select(cursor: Cursor, copy: Copy) -> None:
    """Read `SELECT $1:"a"::type, $2 ... FROM @stage [alias])`."""
    cursor.expect("SELECT")
    while True:
        copy.items.append(_parse_item(cursor))
        if not cursor.accept_op(","):
            break
    cursor.expect("FROM")
    copy.location = cursor.stage_location()
    if not cursor.accept_op(")"):
        cursor.identifier()
        cursor.expect_op(")")


def _parse_item(cursor: Cursor) -> tuple[str, str | None]:
    token = cursor.peek()
    if token is not None and token.kind in {"word", "name"}:
        cursor.identifier()  # the stage's alias, as in t.$1
        cursor.expect_op(".")
        token = cursor.peek()
    if token is None or token.kind != "variable":
        raise errors.unsupported("COPY INTO with this SELECT expression")
    cursor.next()
    source = f"${token.value}"
    if cursor.accept_op(":"):
        source = cursor.identifier_as_written()
    cast = None
    if cursor.accept_op("::"):
        cast = cursor.identifier()
        if cursor.accept_op("("):
            inner = [str(cursor.integer())]
            while cursor.accept_op(","):
                inner.append(str(cursor.integer()))
            cursor.expect_op(")")
            cast += f"({','.join(inner)})"
    if cursor.accept("AS"):
        cursor.identifier()
    return source, cast


def _target(session: "Session", copy: Copy) -> access.TableRef:
    ref = access.TableRef(*session.qualify(copy.target), str(copy.target))
    access.require_table(session, ref, "INSERT")
    return ref


def _wanted(
    session: "Session",
    copy: Copy,
    found: CatalogObject,
    files: list[StagedFile],
    ref: access.TableRef,
) -> list[StagedFile]:
    """Keep the files asked for that were not loaded before with the same content."""
    names = copy.options.get("FILES")
    if names:
        base = copy.location.path if copy.location else ""
        prefix = base if not base or base.endswith("/") else f"{base}/"
        chosen = {f"{prefix}{name}" for name in names}
        missing = chosen - {file.path for file in files}
        if missing:
            raise errors.StatementError(
                100016, "22000", f"Remote file '{sorted(missing)[0]}' was not found."
            )
        files = [file for file in files if file.path in chosen]
    if copy.options.get("FORCE") is True:
        return files
    loaded = session.catalog.documents(_history(session, ref))
    store = session.account.stages
    return [f for f in files if loaded.get(listed_name(found, f.path)) != store.md5(f)]


def _history(session: "Session", ref: access.TableRef) -> str:
    database, schema, name = ref.key
    known = session.catalog.get("TABLE", name, database, schema)
    return f"loads:{known.id if known else f'{session.id}.{name}'}"


def _load(
    session: "Session",
    copy: Copy,
    ref: access.TableRef,
    found: CatalogObject,
    files: list[StagedFile],
    formatted: dict[str, Any],
) -> list[tuple[Any, ...]]:
    temporary = ("TABLE", *ref.key) in session.temporary
    engine = session.account.engine
    columns = engine.session_columns(session, ref.key) if temporary else engine.columns(*ref.key)
    types = {name: type_ for name, type_, _, _ in columns}
    rows: list[tuple[Any, ...]] = []
    with engine.connection(session) as connection:
        duck = connection._duck_conn
        own = begin(duck)
        try:
            for file in files:
                count = _load_file(duck, copy, ref, file, formatted, types, temporary)
                name = listed_name(found, file.path)
                rows.append((name, "LOADED", count, count, 1, 0, None, None, None, None))
            if own:
                duck.commit()
        except Exception as error:
            if own:
                duck.rollback()
            raise _load_error(error, ref) from error
    for file in files:
        digest = session.account.stages.md5(file)
        session.catalog.put_document(_history(session, ref), listed_name(found, file.path), digest)
    access.touch(session, ref)
    return rows


def _load_error(error: Exception, ref: access.TableRef) -> errors.StatementError:
    if isinstance(error, errors.StatementError):
        return error
    translated = engine_errors.translate(error)
    return errors.StatementError(
        translated.errno, translated.sqlstate, f"{translated.message}\n  Table {ref.name}"
    )


def _load_file(
    duck: Any,
    copy: Copy,
    ref: access.TableRef,
    file: StagedFile,
    formatted: dict[str, Any],
    types: dict[str, str],
    temporary: bool,
) -> int:
    source, values = file_formats.reader(str(file.location), formatted)
    fields = [row[0] for row in duck.execute(f"DESCRIBE SELECT * FROM {source}", values).fetchall()]
    pairs = _pairs(copy, formatted, fields, list(types))
    names = ", ".join(ident(column) for column, _, _ in pairs)
    exprs = ", ".join(f"CAST({expr} AS {cast or types[column]})" for column, expr, cast in pairs)
    target = ident(ref.name) if temporary else ".".join(ident(part) for part in ref.key)
    sql = f"INSERT INTO {target} ({names}) SELECT {exprs} FROM {source}"
    return int(duck.execute(sql, values).fetchall()[0][0])


def _pairs(
    copy: Copy, formatted: dict[str, Any], fields: list[str], columns: list[str]
) -> list[tuple[str, str, str | None]]:
    """Return (table column, source expression, cast) for one file."""
    chosen = _table_columns(copy, columns)
    if copy.items:
        if len(copy.items) != len(chosen):
            raise errors.compilation_error(2020, "21S01", "Insert value list does not match column list "
                                           f"expecting {len(chosen)} but got {len(copy.items)}")  # fmt: skip
        sources = [_item_source(item, fields) for item in copy.items]
        return [(c, s, None) for c, s in zip(chosen, sources, strict=True)]
    match = str(copy.options.get("MATCH_BY_COLUMN_NAME", "NONE")).upper()
    if match != "NONE":
        fold = str.upper if match == "CASE_INSENSITIVE" else str
        by_name = {fold(name): name for name in fields}
        return [(c, ident(by_name[fold(c)]), None) for c in chosen if fold(c) in by_name]
    if formatted["TYPE"] == "PARQUET":
        if len(chosen) != 1:
            raise errors.compilation_error(
                2019, "0A000", "PARQUET file format can produce one and only one column of type "
                "variant, object, or array. Load data into separate columns using the "
                "MATCH_BY_COLUMN_NAME copy option or copy with transformation.",
            )  # fmt: skip
        packed = ", ".join(f"{ident(f)} := {ident(f)}" for f in fields)
        return [(chosen[0], f"to_json(struct_pack({packed}))", None)]
    if len(fields) < len(chosen):
        raise errors.StatementError(
            100080, "22000",
            f"Number of columns in file ({len(fields)}) does not match that of the corresponding "
            f"table ({len(chosen)}), use file format option error_on_column_count_mismatch=false to "
            "ignore this error",
        )  # fmt: skip
    return [(c, ident(f), None) for c, f in zip(chosen, fields, strict=False)]


def _table_columns(copy: Copy, columns: list[str]) -> list[str]:
    if not copy.columns:
        return columns
    by_upper = {name.upper(): name for name in columns}
    for name in copy.columns:
        if name.upper() not in by_upper:
            raise errors.compilation_error(904, "42000", f"invalid identifier '{name}'")
    return [by_upper[name.upper()] for name in copy.columns]


def _item_source(item: tuple[str, str | None], fields: list[str]) -> str:
    source, cast = item
    if re.fullmatch(r"\$\d+", source):
        index = int(source[1:]) - 1
        expression = ident(fields[index]) if index < len(fields) else "NULL"
    else:
        name = (
            source
            if source in fields
            else next((f for f in fields if f.upper() == source.upper()), None)
        )
        expression = ident(name) if name is not None else "NULL"
    return f"CAST({expression} AS {_duck_cast(cast)})" if cast else expression


def _duck_cast(cast: str) -> str:
    base = cast.split("(", maxsplit=1)[0]
    rest = cast[len(base) :]
    names = {
        "NUMBER": f"DECIMAL{rest}" if rest else "DECIMAL(38,0)", "INT": "BIGINT", "INTEGER": "BIGINT",
        "BIGINT": "BIGINT", "FLOAT": "DOUBLE", "DOUBLE": "DOUBLE", "REAL": "DOUBLE",
        "VARCHAR": "VARCHAR", "STRING": "VARCHAR", "TEXT": "VARCHAR", "DATE": "DATE",
        "BOOLEAN": "BOOLEAN", "TIMESTAMP": "TIMESTAMP", "TIMESTAMP_NTZ": "TIMESTAMP",
        "TIMESTAMP_TZ": "TIMESTAMPTZ", "TIMESTAMP_LTZ": "TIMESTAMPTZ", "VARIANT": "JSON",
    }  # fmt: skip
    if base not in names:
        raise errors.unsupported(f"cast to {cast} in COPY INTO")
    return names[base]


@table_function("INFER_SCHEMA")
def infer_schema(session: "Session", statement: Statement, args: Arguments) -> ResultSet:
    """Return the columns of staged files."""
    location = parse_stage_location(str(args.get(0, "LOCATION") or ""))
    formatted = file_formats.resolve(session, str(args.get(1, "FILE_FORMAT") or ""))
    found, files = staged_files(session, location, "READ")
    seen: dict[str, tuple[str, list[str]]] = {}
    for file in files:
        source, values = file_formats.reader(str(file.location), formatted)
        described = session.account.engine.run(session, f"DESCRIBE SELECT * FROM {source}", values)
        for name, type_, *_ in described:
            seen.setdefault(name, (_inferred_type(type_), []))[1].append(
                listed_name(found, file.path)
            )
    columns = [text("COLUMN_NAME"), text("TYPE"), text("NULLABLE"), text("EXPRESSION"),
               text("FILENAMES"), number("ORDER_ID")]  # fmt: skip
    rows = [
        (name, type_, "true", f"$1:{name}::{type_}", ", ".join(names), index)
        for index, (name, (type_, names)) in enumerate(seen.items())
    ]
    return table(columns, rows)


def _inferred_type(duck: str) -> str:
    from monad_dagster.local.engine.information_schema import column_type

    kind, precision, scale, _ = column_type(duck)
    if kind == "NUMBER":
        return f"NUMBER({precision}, {scale})"
    return {"FLOAT": "REAL"}.get(kind, kind)
