"""SHOW and DESCRIBE of tables, views, columns, warehouses, roles and users."""

from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.engine import access
from monad_dagster.local.engine.information_schema import column_type, table_rows
from monad_dagster.local.protocol.results import ResultSet, number, table, text, timestamp
from monad_dagster.local.sql.handlers import statement
from monad_dagster.local.sql.show_options import matches_like, parse_show, yes_no
from monad_dagster.local.sql.statements import ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session


_TABLE_COLUMNS = [
    timestamp("created_on"), text("name"), text("database_name"), text("schema_name"),
    text("kind"), text("comment"), text("cluster_by"), number("rows"), number("bytes"),
    text("owner"), text("retention_time"), text("automatic_clustering"), text("change_tracking"),
    text("is_external"), text("enable_schema_evolution"), text("owner_role_type"), text("is_event"),
    text("is_hybrid"), text("is_iceberg"), text("is_dynamic"), text("is_immutable"),
]  # fmt: skip


@statement("SHOW TABLES")
def show_tables(session: "Session", statement: Statement) -> ResultSet:
    """List visible tables with exact row counts."""
    options = parse_show(session, statement.cursor)
    facts = [
        f for f in table_rows(session, options.database, options.schema) if f["kind"] == "TABLE"
    ]
    rows = [
        (f["object"].created_on, f["object"].name, f["object"].database, f["object"].schema,
         "TABLE", f["object"].properties.get("COMMENT", ""), "", f["rows"], (f["rows"] or 0) * 8,
         f["object"].owner, "1", "OFF", "OFF", "N", "N", "ROLE",
         yes_no(f["object"].database == "SNOWFLAKE"), "N", "N", "N", "N")
        for f in options.select(facts, lambda f: f["object"].name)
    ]  # fmt: skip
    return table(_TABLE_COLUMNS, rows)


@statement("SHOW VIEWS")
def show_views(session: "Session", statement: Statement) -> ResultSet:
    """List visible views."""
    options = parse_show(session, statement.cursor)
    columns = [
        timestamp("created_on"), text("name"), text("reserved"), text("database_name"),
        text("schema_name"), text("owner"), text("comment"), text("text"), text("is_secure"),
        text("is_materialized"), text("owner_role_type"), text("change_tracking"),
    ]  # fmt: skip
    found = session.visible("VIEW", options.database, options.schema)
    rows = [
        (v.created_on, v.name, "", v.database, v.schema, v.owner, v.properties.get("COMMENT", ""),
         "", "false", "false", "ROLE", "OFF")
        for v in options.select(found, lambda v: v.name)
    ]  # fmt: skip
    return table(columns, rows)


@statement("SHOW OBJECTS")
def show_objects(session: "Session", statement: Statement) -> ResultSet:
    """List visible tables and views."""
    options = parse_show(session, statement.cursor)
    columns = [
        timestamp("created_on"), text("name"), text("database_name"), text("schema_name"),
        text("kind"), text("comment"), text("cluster_by"), number("rows"), number("bytes"),
        text("owner"), text("retention_time"), text("owner_role_type"),
    ]  # fmt: skip
    facts = table_rows(session, options.database, options.schema)
    rows = [
        (f["object"].created_on, f["object"].name, f["object"].database, f["object"].schema,
         f["kind"], "", "", f["rows"], None, f["object"].owner, "1", "ROLE")
        for f in options.select(facts, lambda f: f["object"].name)
    ]  # fmt: skip
    return table(columns, rows)


def _table(session: "Session", name: ObjectName, *kinds: str) -> Any:
    database, schema, last = session.qualify(name)
    for kind in kinds:
        found = session.catalog.get(kind, last, database, schema)
        if found is not None and session.can_see(found):
            return found
    raise errors.does_not_exist(kinds[0], str(name))


def _shown_type(duck: str) -> str:
    kind, precision, scale, length = column_type(duck)
    if kind == "NUMBER":
        return f"NUMBER({precision},{scale})"
    if kind == "TEXT":
        return f"VARCHAR({length})"
    if kind == "BINARY":
        return "BINARY(8388608)"
    return f"{kind}(9)" if kind.startswith("TIME") else kind


@statement("DESCRIBE TABLE", "DESCRIBE VIEW")
def describe_table(session: "Session", statement: Statement) -> ResultSet:
    """Describe a table's or view's columns."""
    name = statement.cursor.name()
    columns = [
        text("name"), text("type"), text("kind"), text("null?"), text("default"),
        text("primary key"), text("unique key"), text("check"), text("expression"),
        text("comment"), text("policy name"), text("privacy domain"),
    ]  # fmt: skip
    ref = access.TableRef(*session.qualify(name), str(name))
    if ("TABLE", *ref.key) in session.temporary:
        described = session.account.engine.session_columns(session, ref.key)
    else:
        found = _table(session, name, "TABLE", "VIEW")
        described = session.account.engine.columns(found.database, found.schema, found.name)
    rows = [
        (column, _shown_type(duck), "COLUMN", yes_no(nullable), default, "N", "N", None, None,
         None, None, None)
        for column, duck, nullable, default in described
    ]  # fmt: skip
    return table(columns, rows)


@statement("SHOW COLUMNS")
def show_columns(session: "Session", statement: Statement) -> ResultSet:
    """List the columns of a table, or of every table in scope."""
    cursor = statement.cursor
    like = cursor.string() if cursor.accept("LIKE") else None
    if cursor.accept("IN TABLE") or cursor.accept("IN VIEW"):
        found = [_table(session, cursor.name(), "TABLE", "VIEW")]
    else:
        options = parse_show(session, cursor)
        found = session.visible("TABLE", options.database, options.schema)
    columns = [
        text("table_name"), text("schema_name"), text("column_name"), text("data_type"),
        text("null?"), text("default"), text("kind"), text("expression"), text("comment"),
        text("database_name"), text("autoincrement"),
    ]  # fmt: skip
    rows = []
    for item in found:
        described = session.account.engine.columns(item.database, item.schema, item.name)
        for column, duck, nullable, default in described:
            if like is None or matches_like(column, like):
                kind, precision, scale, _ = column_type(duck)
                data_type = {
                    "type": "FIXED" if kind == "NUMBER" else kind,
                    "nullable": bool(nullable),
                }
                if precision is not None:
                    data_type |= {"precision": precision, "scale": scale}
                rows.append(
                    (item.name, item.schema, column, data_type, str(bool(nullable)).lower(),
                     default or "", "COLUMN", "", "", item.database, "")
                )  # fmt: skip
    return table(columns, rows)


@statement("SHOW WAREHOUSES")
def show_warehouses(session: "Session", statement: Statement) -> ResultSet:
    """List visible warehouses."""
    options = parse_show(session, statement.cursor, level="ACCOUNT")
    columns = [
        text("name"), text("state"), text("type"), text("size"), number("min_cluster_count"),
        number("max_cluster_count"), number("started_clusters"), number("running"),
        number("queued"), text("is_default"), text("is_current"), number("auto_suspend"),
        text("auto_resume"), text("available"), text("provisioning"), text("quiescing"),
        text("other"), timestamp("created_on"), timestamp("resumed_on"), timestamp("updated_on"),
        text("owner"), text("comment"), text("enable_query_acceleration"),
        number("query_acceleration_max_scale_factor"), text("resource_monitor"),
        number("actives"), number("pendings"), number("failed"), number("suspended"),
        text("uuid"), text("scaling_policy"), text("budget"), text("owner_role_type"),
    ]  # fmt: skip
    rows = [
        (w.name, w.properties.get("STATE", "STARTED"), w.properties.get("WAREHOUSE_TYPE", "STANDARD"),
         _size(w.properties.get("WAREHOUSE_SIZE", "XSMALL")),
         w.properties.get("MIN_CLUSTER_COUNT", 1), w.properties.get("MAX_CLUSTER_COUNT", 1),
         int(_is_started(w)), 0, 0, "N",
         yes_no(w.name == session.warehouse), w.properties.get("AUTO_SUSPEND", 600),
         str(w.properties.get("AUTO_RESUME", True)).lower(), "100" if _is_started(w) else "",
         "0" if _is_started(w) else "", "0" if _is_started(w) else "",
         "0" if _is_started(w) else "", w.created_on, w.updated_on,
         w.updated_on, w.owner, w.properties.get("COMMENT", ""),
         str(bool(w.properties.get("ENABLE_QUERY_ACCELERATION"))).lower(),
         w.properties.get("QUERY_ACCELERATION_MAX_SCALE_FACTOR", 8), "null",
         0, 0, 0, 0, str(w.id), w.properties.get("SCALING_POLICY", "STANDARD"), None, "ROLE")
        for w in options.select(session.visible("WAREHOUSE"), lambda w: w.name)
    ]  # fmt: skip
    return table(columns, rows)


def _is_started(warehouse: CatalogObject) -> bool:
    return warehouse.properties.get("STATE", "STARTED") == "STARTED"


def _size(stored: str) -> str:
    names = {"XSMALL": "X-Small", "SMALL": "Small", "MEDIUM": "Medium", "LARGE": "Large",
             "XLARGE": "X-Large", "XXLARGE": "2X-Large", "XXXLARGE": "3X-Large"}  # fmt: skip
    return names.get(stored, stored)


@statement("SHOW ROLES")
def show_roles(session: "Session", statement: Statement) -> ResultSet:
    """List roles."""
    options = parse_show(session, statement.cursor, level="ACCOUNT")
    columns = [
        timestamp("created_on"), text("name"), text("is_default"), text("is_current"),
        text("is_inherited"), number("assigned_to_users"), number("granted_to_roles"),
        number("granted_roles"), text("owner"), text("comment"),
    ]  # fmt: skip
    inherited = session.catalog.roles_of(session.role)
    rows = []
    for role in options.select(session.visible("ROLE"), lambda r: r.name):
        holders = [
            g for g in session.catalog.grants_on("ROLE", role.name) if g.privilege == "USAGE"
        ]
        users = sum(g.grantee_kind == "USER" for g in holders)
        held = [
            g
            for g in session.catalog.grants_to(role.name)
            if g.kind == "ROLE" and g.privilege == "USAGE"
        ]
        rows.append(
            (role.created_on, role.name, "N", yes_no(role.name == session.role),
             yes_no(role.name in inherited and role.name != session.role), users,
             len(holders) - users, len(held), role.owner, role.properties.get("COMMENT", ""))
        )  # fmt: skip
    return table(columns, rows)


@statement("SHOW USERS")
def show_users(session: "Session", statement: Statement) -> ResultSet:
    """List users."""
    options = parse_show(session, statement.cursor, level="ACCOUNT")
    session.require_account("MANAGE GRANTS", "CREATE USER")
    columns = [
        text("name"), timestamp("created_on"), text("login_name"), text("display_name"),
        text("disabled"), text("default_warehouse"), text("default_namespace"),
        text("default_role"), text("owner"), text("has_password"), text("comment"), text("type"),
    ]  # fmt: skip
    rows = [
        (u.name, u.created_on, u.name, u.name, str(bool(u.properties.get("DISABLED"))).lower(),
         u.properties.get("DEFAULT_WAREHOUSE"), u.properties.get("DEFAULT_NAMESPACE"),
         u.properties.get("DEFAULT_ROLE"), u.owner,
         str("PASSWORD" in u.properties).lower(), u.properties.get("COMMENT", ""),
         u.properties.get("TYPE", "PERSON"))
        for u in options.select(session.visible("USER"), lambda u: u.name)
    ]  # fmt: skip
    return table(columns, rows)


@statement("DESCRIBE USER")
def describe_user(session: "Session", statement: Statement) -> ResultSet:
    """Describe a user's properties; the password is never shown."""
    found = session.lookup("USER", statement.cursor.name())
    hidden = {"PASSWORD": "********"}
    rows = [
        (key, str(hidden.get(key, value)), None, "")
        for key, value in sorted({"NAME": found.name, **found.properties}.items())
    ]
    return table([text("property"), text("value"), text("default"), text("description")], rows)
