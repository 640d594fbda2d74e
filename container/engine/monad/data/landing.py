"""What landing a source has in common: select, filter, rename and normalise its columns.

Each source is read once. Columns become VARCHAR, BIGINT or DOUBLE, booleans text; event time becomes
`__time` in whole UTC seconds (rounded up), the main entity `__entity` as text. Dates other than
the event time and nested values are left out, as documented. An id is the same text whatever type a
table gives it: the number 1.0 is "1".
"""

import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

import duckdb

from monad.config.schema import EVENT, DataSource
from monad.errors import DataError, nearest, problem

logger = logging.getLogger("monad.fit")

CALENDAR: tuple[str, ...] = ("year", "month", "weekday", "days_before")
TEXT, INTEGER, REAL = "VARCHAR", "BIGINT", "DOUBLE"
BOOLEAN = "BOOLEAN"  # landed as the texts true and false
_INTEGERS = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
    "UHUGEINT",
}
_WIDE = {"UBIGINT", "HUGEINT", "UHUGEINT"}  # a value may pass 64 bits
_REALS = {"FLOAT", "DOUBLE", "REAL"}
_RESERVED = {"__entity", "__time", "__index", "__at", "rowid"}  # names of the scratch database
_NO_ZEROS = r"'\.0+$'"
# Dates from then on are placeholders for "never"; they would stretch every range of time.
_LAST_TIME = 7_258_118_400  # 2200-01-01
# The unit of a number that is a date follows from its size: these are 5138, in each unit.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


@dataclasses.dataclass
class Landed:
    """A source in the scratch database.

    Attributes:
        table: Name of its table there.
        columns: Its columns beside `__entity` and `__time`, with their normalised type.
        stable_order: True when the row order of the source is meaningful.
        latest: Latest time of each date column of an attribute source that has no date_column.
    """

    source: DataSource
    table: str
    columns: dict[str, str]
    rows: int
    stable_order: bool
    facts: dict[str, Any]
    latest: dict[str, int | None] = dataclasses.field(default_factory=dict)

    @property
    def dated(self) -> bool:
        """Whether an attribute source says since when its rows hold."""
        return self.source.type != EVENT and self.source.date_column is not None


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def resolve(source: DataSource, wanted: str, columns: list[str], key: str) -> str:
    """Return the table's spelling of a column that the configuration names."""
    for name in columns:
        if name.lower() == wanted.lower():
            return name
    table = source.data_location.table_name or source.data_location.connection_params.get("path")
    raise DataError(
        problem(
            f"Column `{wanted}` does not exist in data source {source.name} ({table})",
            nearest(wanted, columns),
            f"Fix {key} of data source {source.name} in the configuration",
        )
    )


def chosen_columns(source: DataSource, columns: list[str], needed: list[str]) -> list[str]:
    """Apply allowed_columns and disallowed_columns; join keys always stay."""
    known = [*columns, *(item.alias for item in source.sql_lambdas), *_calendar_names(source)]
    for name in source.allowed_columns or source.disallowed_columns or []:
        resolve(source, name, known, "allowed_columns or disallowed_columns")
    _check_named(source, columns)
    allowed = {name.lower() for name in source.allowed_columns or columns}
    denied = {name.lower() for name in source.disallowed_columns or []}
    kept = {name.lower() for name in needed}
    chosen = [n for n in columns if n.lower() in kept or (n.lower() in allowed - denied)]
    _check_free(source, chosen)
    return chosen


def _check_free(source: DataSource, chosen: list[str]) -> None:
    """Refuse names that the scratch database uses itself."""
    aliases = [item.alias for item in source.sql_lambdas]
    named = {source.main_entity_column, getattr(source.date_column, "name", None)}
    dropped = {name.lower() for name in named if name}
    for name in [*(n for n in chosen if n.lower() not in dropped), *aliases]:
        if name.lower() in _RESERVED:
            raise DataError(
                problem(
                    f"Column `{name}` of data source {source.name} has a reserved name",
                    f"reserved are {', '.join(sorted(_RESERVED))}",
                    "Leave it out with disallowed_columns and give it another name in sql_lambdas",
                )
            )


def _calendar_names(source: DataSource) -> list[str]:
    dates = [name for name, kind in source.column_type_overrides.items() if kind == "date"]
    return [f"{name}.{part}" for name in dates for part in CALENDAR]


def kept_lambdas(source: DataSource, columns: Iterable[str], read: Iterable[str]) -> list[str]:
    """Return the names of the computed columns that are wanted.

    All are computed, as one may refer to another. disallowed_columns means the table's own column where both have the name: the computed column
    then stands in its place.

    Args:
        source: The source.
        columns: All columns of the table.
        read: Those that are read.
    """
    own, taken = ({name.lower() for name in found} for found in (columns, read))
    denied = {name.lower() for name in source.disallowed_columns or []}
    kept = [x for x in source.sql_lambdas if x.alias.lower() not in denied - own]
    for item in kept:
        if item.alias.lower() in taken:
            raise DataError(
                problem(
                    f"Data source {source.name}: sql_lambdas alias `{item.alias}` is a column's name",
                    do=f"Choose another alias, or put `{item.alias}` under disallowed_columns to"
                    " use the computed column in its place",
                )
            )
    return [item.alias for item in kept]


def _check_named(source: DataSource, columns: list[str]) -> None:
    """Check that the columns of overrides and shared entities exist; computed columns do."""
    known = [*columns, *(item.alias for item in source.sql_lambdas)]
    for name in source.column_type_overrides:
        resolve(source, name, known, "column_type_overrides")
    for shared in source.shared_entities:
        for name in shared.columns:
            resolve(source, name, known, f"shared_entities `{shared.name}`")


def warn_of_overrides(source: DataSource, columns: list[str]) -> None:
    """Warn of type overrides that change nothing; *columns* are those of the table."""
    denied = {name.lower() for name in source.disallowed_columns or []}
    allowed = {name.lower() for name in source.allowed_columns or columns}
    reserved = {str(source.main_entity_column).lower()}
    if source.date_column is not None:
        reserved.add(source.date_column.name.lower())
    aliases = {item.alias.lower() for item in source.sql_lambdas}
    for name, kind in source.column_type_overrides.items():
        low, why = name.lower(), ""
        if low in reserved:
            why = "the main entity and the time of an event are no model inputs"
        elif low not in aliases and (low in denied or low not in allowed):
            why = "the column is not read"
        elif low in aliases and kind in ("date", "embedding"):
            why = f"a computed column cannot be of type {kind}"
        if why:
            logger.warning(
                "Data source %s: column_type_overrides of %s has no effect: %s",
                source.name,
                name,
                why,
            )


def _normalised(name: str, kind: str) -> tuple[str, str] | None:
    """Return the SQL and the type of a column, or None when it is left out."""
    base = kind.split("(", maxsplit=1)[0].strip().upper()
    column = quoted(name)
    if base == BOOLEAN:
        return f"CAST({column} AS VARCHAR)", BOOLEAN
    if base in {"VARCHAR", "UUID", "CHAR"} or base.startswith("ENUM"):
        return f"CAST({column} AS VARCHAR)", TEXT
    if base in _INTEGERS or (base == "DECIMAL" and kind.replace(" ", "").endswith(",0)")):
        return f"TRY_CAST({column} AS BIGINT)", INTEGER
    if base in _REALS or base == "DECIMAL":
        return f"CAST({column} AS DOUBLE)", REAL
    return None


def is_wide(kind: str) -> bool:
    """Tell whether values of an SQL type may be integers of more than 64 bits."""
    base = kind.split("(", maxsplit=1)[0].strip().upper()
    return base in _WIDE or (base == "DECIMAL" and kind.replace(" ", "").endswith(",0)"))


def as_key(column: str, kind: str) -> str:
    """Return the SQL of an id as text; whole numbers have no decimals, and NaN is no id."""
    text, base = f"CAST({column} AS VARCHAR)", kind.split("(", maxsplit=1)[0].strip().upper()
    if base == "DECIMAL":
        return f"regexp_replace({text}, {_NO_ZEROS}, '')"
    if base not in _REALS:
        return text
    whole = f"coalesce(CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR), {text})"
    return (
        f"CASE WHEN isfinite({column}) THEN"
        f" CASE WHEN {column} = trunc({column}) THEN {whole} ELSE {text} END END"
    )


def _time_sql(source: DataSource, name: str, kind: str) -> str:
    """Return the SQL of a date as whole seconds, NULL where it cannot be read."""
    assert source.date_column is not None
    column, base = quoted(name), kind.split("(", maxsplit=1)[0].strip().upper()
    pattern = (source.date_column.format or "").replace("'", "''")
    if pattern == "%s":  # seconds since 1970, as numbers are read without a format
        pattern = ""
    if base.startswith("TIMESTAMP") or base == "DATE":
        seconds = f"epoch({column if base != 'DATE' else f'CAST({column} AS TIMESTAMP)'})"
    elif base == "VARCHAR":
        # With a zone in the text the instant is meant; without one the session's zone, UTC, holds.
        seconds = f"epoch(TRY_CAST({column} AS TIMESTAMPTZ))"
        if pattern:
            seconds = f"coalesce(epoch(try_strptime({column}, '{pattern}')), {seconds})"
    elif base not in _INTEGERS | _REALS | {"DECIMAL", '"NULL"'}:
        raise DataError(
            problem(
                f"The date column `{name}` of data source {source.name} holds no dates",
                f"its type is {kind}",
                "Name a column of dates, timestamps, text or seconds since 1970 in date_column.name",
            )
        )
    elif pattern:
        seconds = f"epoch(try_strptime({as_key(column, kind)}, '{pattern}'))"
    else:
        number = f"CAST({column} AS DOUBLE)"
        cases = "".join(f" WHEN abs({number}) > {a} THEN {number} / {b}" for a, b in _UNITS)
        seconds = f"CASE{cases} ELSE {number} END"
    return f"TRY_CAST(ceil({seconds}) AS BIGINT)"


def select_columns(
    source: DataSource, types: dict[str, str], needed: list[str], kept: list[str], lambdas: bool
) -> tuple[list[str], dict[str, str]]:
    """Return SELECT expressions and the normalised columns of *kept*."""
    names = list(types)
    expressions, columns, reserved = [], {}, set()
    overrides = {key.lower(): kind for key, kind in source.column_type_overrides.items()}
    if source.main_entity_column:
        entity = resolve(source, source.main_entity_column, names, "main_entity_column")
        expressions.append(f"{as_key(quoted(entity), types[entity])} AS __entity")
        reserved.add(entity)
    if source.date_column:
        date = resolve(source, source.date_column.name, names, "date_column.name")
        expressions.append(f"{_time_sql(source, date, types[date])} AS __time")
        reserved.add(date)
    for name in kept:
        if name in reserved and name.lower() not in {n.lower() for n in needed}:
            continue
        override = overrides.get(name.lower())
        made = _normalised(name, types[name])
        if override == "date":
            expressions += _calendar(source, types, name, columns)
            continue
        if override == "embedding":
            made = f"CAST({quoted(name)} AS VARCHAR)", TEXT
        if made is None:
            logger.info(
                "Column %s.%s of type %s is not a model input", source.name, name, types[name]
            )
            continue
        expressions.append(f"{made[0]} AS {quoted(name)}")
        columns[name] = made[1]
    if lambdas:
        wanted = kept_lambdas(source, names, columns)
        for item in source.sql_lambdas:
            expressions.append(f"({item.expression}) AS {quoted(item.alias)}")
            if item.alias in wanted:
                columns[item.alias] = ""  # the type is read from the landed table
    return expressions, columns


def _calendar(
    source: DataSource, types: dict[str, str], name: str, columns: dict[str, str]
) -> list[str]:
    """Return the columns derived from a date: calendar parts, and its distance to the event."""
    base = types[name].split("(", maxsplit=1)[0].strip().upper()
    value = quoted(name)
    if not (base == "DATE" or base.startswith("TIMESTAMP")):
        value = f"TRY_CAST(CAST({value} AS VARCHAR) AS TIMESTAMP)"
    value = f"CAST({value} AS TIMESTAMP)"
    parts = (f"year({value})", f"month({value})", f"isodow({value})")
    derived = dict(zip(CALENDAR[:3], parts, strict=True))
    if source.type == EVENT and source.date_column:
        date = resolve(source, source.date_column.name, list(types), "date_column.name")
        seconds = f"{_time_sql(source, date, types[date])} - epoch({value})"
        derived[CALENDAR[3]] = f"CAST(floor(({seconds}) / 86400) AS BIGINT)"
    made = []
    denied = {item.lower() for item in source.disallowed_columns or []}
    for part, expression in derived.items():
        if f"{name}.{part}".lower() in denied:
            continue
        columns[f"{name}.{part}"] = INTEGER
        made.append(f"CAST({expression} AS BIGINT) AS {quoted(f'{name}.{part}')}")
    return made


def finish(
    connection: duckdb.DuckDBPyConnection,
    source: DataSource,
    table: str,
    columns: dict[str, str],
    seen: int,
    stable_order: bool,
    facts: dict[str, Any],
) -> Landed:
    """Check what was landed and log what was left out."""
    if seen == 0:
        raise DataError(
            problem(
                f"Data source {source.name} is empty",
                f"0 rows in {facts.get('name')}"
                + (f" where {source.where_condition}" if source.where_condition else ""),
                "Load the table, or fix where_condition",
            )
        )
    rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    if rows == 0:
        fmt = source.date_column.format if source.date_column else None
        raise DataError(
            problem(
                f"Data source {source.name} has no usable row",
                f"{seen} rows, all without an entity id, without a readable date"
                f" (format {fmt}), before data_start_date or after the year 2199",
                "Check main_entity_column, date_column.format and data_params.data_start_date",
            )
        )
    if rows < seen:
        logger.info(
            "Data source %s: %d of %d rows left out (no entity id, unreadable date, before"
            " data_start_date or after 2199)",
            source.name,
            seen - rows,
            seen,
        )
    facts["row_count"] = seen
    return Landed(source, table, columns, rows, stable_order, facts)


def row_filters(source: DataSource, start: int, end: int | None) -> str:
    """Return the WHERE of a landed source: rows with an id, and within the range."""
    tests = ["__entity IS NOT NULL"] if source.main_entity_column else []
    if source.type == EVENT:
        tests.append(f"__time >= {start} AND __time < {_LAST_TIME}")
    elif source.date_column:
        tests.append("__time IS NOT NULL" if end is None else f"__time <= {end}")
    return " WHERE " + " AND ".join(tests) if tests else ""


def fix_lambda_types(
    connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str]
) -> None:
    """Give computed columns a normalised type, or leave them out, by the type they have."""
    described = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
    for name, kind in list(columns.items()):
        if kind:
            continue
        made = _normalised(name, described[name])
        if made is None:
            logger.info("Computed column %s of type %s is not a model input", name, described[name])
            del columns[name]
            continue
        landed = TEXT if made[1] == BOOLEAN else made[1]
        connection.execute(f"ALTER TABLE {table} ALTER {quoted(name)} TYPE {landed}")
        columns[name] = made[1]
