"""INFORMATION_SCHEMA views as the session's role sees them, with exact counts and times."""

import uuid
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.engine.result_tables import result_table
from monad_dagster.local.protocol.results import Column, ResultSet, number, table, text, timestamp
from monad_dagster.local.sql.statements import quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_TABLE_COLUMNS = [
    text("TABLE_CATALOG"), text("TABLE_SCHEMA"), text("TABLE_NAME"), text("TABLE_OWNER"),
    text("TABLE_TYPE"), text("IS_TRANSIENT"), text("CLUSTERING_KEY"), number("ROW_COUNT"),
    number("BYTES"), number("RETENTION_TIME"), text("IS_INSERTABLE_INTO"), text("IS_TYPED"),
    timestamp("CREATED"), timestamp("LAST_ALTERED"), timestamp("LAST_DDL"), text("LAST_DDL_BY"),
    text("AUTO_CLUSTERING_ON"), text("COMMENT"), text("IS_TEMPORARY"), text("IS_ICEBERG"),
    text("IS_DYNAMIC"), text("IS_HYBRID"),
]  # fmt: skip
_SCHEMA_COLUMNS = [
    text("CATALOG_NAME"), text("SCHEMA_NAME"), text("SCHEMA_OWNER"), text("IS_TRANSIENT"),
    text("IS_MANAGED_ACCESS"), number("RETENTION_TIME"), timestamp("CREATED"),
    timestamp("LAST_ALTERED"), text("COMMENT"),
]  # fmt: skip
_COLUMN_COLUMNS = [
    text("TABLE_CATALOG"), text("TABLE_SCHEMA"), text("TABLE_NAME"), text("COLUMN_NAME"),
    number("ORDINAL_POSITION"), text("COLUMN_DEFAULT"), text("IS_NULLABLE"), text("DATA_TYPE"),
    number("CHARACTER_MAXIMUM_LENGTH"), number("NUMERIC_PRECISION"), number("NUMERIC_SCALE"),
    text("COMMENT"),
]  # fmt: skip


def replace(session: "Session", node: Any, made: list[str]) -> None:
    """Replace an information schema table in a parsed query by a temporary table."""
    catalog = node.args.get("catalog")
    database = session.database
    if catalog is not None:
        database = catalog.name if catalog.args.get("quoted") else catalog.name.upper()
    if database is None:
        raise errors.no_current_database()
    found = session.catalog.get("DATABASE", database)
    if found is None or not session.can_see(found):
        raise errors.does_not_exist("Database", quote_identifier(database))
    view = node.name.upper()
    build = _VIEWS.get(view)
    if build is None:
        raise errors.does_not_exist("Object", f"{database}.INFORMATION_SCHEMA.{view}")
    substitute(session, node, build(session, database), made)


def substitute(session: "Session", node: Any, rows: ResultSet, made: list[str]) -> None:
    """Put a temporary table with *rows* in the place of a table in a parsed query."""
    from sqlglot import exp

    name = f"_MONAD_{uuid.uuid4().hex.upper()}"
    session.account.engine.register(session, name, result_table(rows))
    made.append(name)
    fresh = exp.table_(name, db="MAIN", catalog="TEMP")
    fresh.set("alias", exp.TableAlias(this=exp.to_identifier(node.alias or node.name.upper())))
    for key in ("joins", "sample", "pivots"):
        if node.args.get(key):
            fresh.set(key, node.args[key])
    node.replace(fresh)


def table_rows(
    session: "Session", database: str | None, schema: str | None = None
) -> list[dict[str, Any]]:
    """Return facts of the tables and views the role can see."""
    out = []
    for kind in ("TABLE", "VIEW"):
        for found in session.visible(kind, database, schema):
            rows = None
            if kind == "TABLE":
                rows = _row_count(session, found)
            out.append({"object": found, "kind": kind, "rows": rows})
    return out


def _row_count(session: "Session", found: Any) -> int | None:
    try:
        return session.account.engine.row_count(found.database, found.schema, found.name)
    except Exception:  # the table vanished between the listing and the count
        return None


def _tables(session: "Session", database: str) -> ResultSet:
    rows = []
    for facts in table_rows(session, database):
        found = facts["object"]
        kind = "BASE TABLE" if facts["kind"] == "TABLE" else "VIEW"
        rows.append(
            (found.database, found.schema, found.name, found.owner, kind, "NO", None,
             facts["rows"], None if facts["rows"] is None else facts["rows"] * 8, 1, "YES", "YES",
             found.created_on, found.updated_on, found.created_on, found.owner, "NO",
             found.properties.get("COMMENT"), "NO", "NO", "NO", "NO")
        )  # fmt: skip
    return table(_TABLE_COLUMNS, rows)


def _schemata(session: "Session", database: str) -> ResultSet:
    rows = [
        (database, s.name, s.owner, "NO", "NO", 1, s.created_on, s.updated_on,
         s.properties.get("COMMENT"))
        for s in [*session.visible("SCHEMA", database), *information_schemas(session, database)]
    ]  # fmt: skip
    return table(_SCHEMA_COLUMNS, rows)


def information_schemas(session: "Session", database: str | None) -> list[CatalogObject]:
    """Return INFORMATION_SCHEMA of one visible database or of all: a schema without an owner."""
    return [
        CatalogObject(
            id=0, kind="SCHEMA", database=found.name, schema="", name="INFORMATION_SCHEMA", owner="",
            created_on=found.created_on, updated_on=found.created_on,
            properties={"COMMENT": "Views describing the contents of schemas in this database"},
        )
        for found in session.visible("DATABASE")
        if database in (None, found.name)
    ]  # fmt: skip


def _columns(session: "Session", database: str) -> ResultSet:
    rows: list[tuple[Any, ...]] = []
    for kind in ("TABLE", "VIEW"):
        for found in session.visible(kind, database):
            columns = session.account.engine.columns(database, found.schema, found.name)
            for position, (name, type_, nullable, default) in enumerate(columns, 1):
                data_type, precision, scale, length = column_type(type_)
                rows.append(
                    (database, found.schema, found.name, name, position, default,
                     "YES" if nullable else "NO", data_type, length, precision, scale, None)
                )  # fmt: skip
    return table(_COLUMN_COLUMNS, rows)


def _databases(session: "Session", database: str) -> ResultSet:
    columns = [text("DATABASE_NAME"), text("DATABASE_OWNER"), text("IS_TRANSIENT"), text("COMMENT"),
               timestamp("CREATED"), timestamp("LAST_ALTERED"), number("RETENTION_TIME"),
               text("TYPE")]  # fmt: skip
    rows = [
        (d.name, d.owner, "NO", d.properties.get("COMMENT"), d.created_on, d.updated_on, 1,
         "STANDARD")
        for d in session.visible("DATABASE")
    ]  # fmt: skip
    return table(columns, rows)


def _stages(session: "Session", database: str) -> ResultSet:
    columns = [text("STAGE_CATALOG"), text("STAGE_SCHEMA"), text("STAGE_NAME"), text("STAGE_URL"),
               text("STAGE_REGION"), text("STAGE_TYPE"), text("STAGE_OWNER"), text("COMMENT"),
               timestamp("CREATED"), timestamp("LAST_ALTERED")]  # fmt: skip
    rows = [
        (s.database, s.schema, s.name, "", "", "Internal Named", s.owner,
         s.properties.get("COMMENT"), s.created_on, s.updated_on)
        for s in session.visible("STAGE", database)
    ]  # fmt: skip
    return table(columns, rows)


def _views(session: "Session", database: str) -> ResultSet:
    columns: list[Column] = [text("TABLE_CATALOG"), text("TABLE_SCHEMA"), text("TABLE_NAME"),
               text("TABLE_OWNER"), timestamp("CREATED"), timestamp("LAST_ALTERED")]  # fmt: skip
    rows = [
        (v.database, v.schema, v.name, v.owner, v.created_on, v.updated_on)
        for v in session.visible("VIEW", database)
    ]
    return table(columns, rows)


_VIEWS = {
    "TABLES": _tables,
    "SCHEMATA": _schemata,
    "COLUMNS": _columns,
    "DATABASES": _databases,
    "STAGES": _stages,
    "VIEWS": _views,
}


def column_type(duck: str) -> tuple[str, int | None, int | None, int | None]:
    """Return (data type, precision, scale, length) of a DuckDB column as Snowflake names it."""
    from monad_dagster.local.protocol.arrow_results import snowflake_type

    kind, precision, scale = snowflake_type(duck)
    names = {
        "fixed": "NUMBER", "real": "FLOAT", "text": "TEXT", "boolean": "BOOLEAN", "date": "DATE",
        "time": "TIME", "variant": "VARIANT", "array": "ARRAY", "object": "OBJECT",
        "binary": "BINARY", "timestamp_ntz": "TIMESTAMP_NTZ", "timestamp_tz": "TIMESTAMP_TZ",
    }  # fmt: skip
    if kind == "fixed":
        return "NUMBER", precision, scale, None
    return names[kind], None, None, 16777216 if kind == "text" else None
