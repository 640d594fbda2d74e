"""Privileges and catalog effects of statements the SQL engine executes.

The parsed statement says which tables it reads and writes; the session's role must be allowed
to. After execution the catalog follows: new tables get their owner, changed ones their time.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.engine import information_schema
from monad_dagster.local.pools import pool_usage
from monad_dagster.local.sql.statements import quote_identifier

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

_ACCOUNT_USAGE = ("SNOWFLAKE", pool_usage.SCHEMA)
_WRITES = {"Insert": ("INSERT",), "Update": ("UPDATE",), "Delete": ("DELETE",)}


@dataclass(frozen=True)
class TableRef:
    """A table as a statement names it."""

    database: str | None
    schema: str | None
    name: str
    written: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Database, schema and name with nothing missing."""
        return self.database or "", self.schema or "", self.name


@dataclass
class Plan:
    """What a statement reads, writes and changes in the catalog."""

    session: "Session"
    expression: Any
    reads: list[TableRef] = field(default_factory=list)
    target: TableRef | None = None
    catalog_nodes: list[Any] = field(default_factory=list)
    usage_nodes: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what the session's role may not do."""
        for ref in self.reads:
            require_table(self.session, ref, "SELECT")
        if self.target is not None:
            _check_target(self.session, self.expression, self.target)

    @property
    def computes(self) -> bool:
        """Tell whether a warehouse is needed: rows of tables are read or written."""
        changes_rows = type(self.expression).__name__ in {"Insert", "Update", "Delete", "Merge"}
        return bool(self.reads) or changes_rows

    def prepare_information_schema(self, made: list[str]) -> None:
        """Replace information schema and account usage tables by what the role may see of them."""
        for node in self.catalog_nodes:
            information_schema.replace(self.session, node, made)
        for node in self.usage_nodes:
            information_schema.substitute(
                self.session, node, pool_usage.view_of(self.session), made
            )

    def without_effect(self) -> str | None:
        """Return what DDL with IF [NOT] EXISTS says when it has nothing to do, or None."""
        key = type(self.expression).__name__
        if self.target is None or not self.expression.args.get("exists"):
            return None
        database, schema, name = self.target.key
        is_there = _is_temporary(self.session, self.target) or any(
            self.session.catalog.get(kind, name, database, schema) for kind in ("TABLE", "VIEW")
        )
        if key == "Create" and is_there:
            return f"{name} already exists, statement succeeded."
        if key == "Drop" and not is_there:
            return f"Drop statement executed successfully ({name} already dropped)."
        return None

    def apply(self) -> None:
        """Let the catalog follow the statement."""
        if self.target is not None:
            _apply(self.session, self.expression, self.target)


def analyze(session: "Session", expression: Any) -> Plan:
    """Find the tables of a parsed statement."""
    from sqlglot import exp

    plan = Plan(session, expression)
    target = _target_node(expression)
    if target is not None:
        plan.target = _resolve(session, target)
    ctes = {cte.alias_or_name.upper() for cte in expression.find_all(exp.CTE)}
    for node in expression.find_all(exp.Table):
        if node is target or not isinstance(node.this, exp.Identifier) or _is_ours(node):
            continue
        if node.name.startswith("@"):
            raise errors.unsupported("SELECT from a stage")
        if not node.args.get("db") and node.name.upper() in ctes:
            continue
        if _part(node.args.get("db")) == "INFORMATION_SCHEMA" or (
            not node.args.get("db") and session.schema == "INFORMATION_SCHEMA"
        ):
            plan.catalog_nodes.append(node)
        elif (_part(node.args.get("catalog")), _part(node.args.get("db"))) == _ACCOUNT_USAGE:
            plan.reads.append(_resolve(session, node))
            plan.usage_nodes.append(node)
        elif not isinstance(expression, exp.Use | exp.Show | exp.Drop | exp.Alter):
            plan.reads.append(_resolve(session, node))
    return plan


def _is_ours(node: Any) -> bool:
    return _part(node.args.get("catalog")) == "TEMP" and node.name.upper().startswith("_MONAD_")


def _part(node: Any) -> str | None:
    if node is None:
        return None
    return node.name if node.args.get("quoted") else node.name.upper()


def _resolve(session: "Session", node: Any) -> TableRef:
    parts = [_part(node.args.get(key)) for key in ("catalog", "db", "this")]
    written = ".".join(quote_identifier(part) for part in parts if part)
    database, schema, name = parts
    if database is None:
        if session.database is None:
            raise errors.no_current_database()
        database = session.database
        if schema is None:
            if session.schema is None:
                raise errors.no_current_schema()
            schema = session.schema
    return TableRef(database, schema or "PUBLIC", name or "", written)


def _target_node(expression: Any) -> Any:
    """Return the table a statement changes, if it changes one."""
    from sqlglot import exp

    if isinstance(expression, exp.Drop) and expression.args.get("tables"):
        return expression.args["tables"][0]
    if isinstance(expression, exp.TruncateTable):
        return expression.expressions[0] if expression.expressions else None
    kinds = exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Create | exp.Drop | exp.Alter
    if not isinstance(expression, kinds) and not isinstance(expression, exp.Describe):
        return None
    kind = str(expression.args.get("kind") or "").upper()
    if isinstance(expression, exp.Create | exp.Drop) and kind not in {"TABLE", "VIEW"}:
        return None
    node = expression.this
    if isinstance(node, exp.Schema):
        node = node.this
    return node if isinstance(node, exp.Table) else None


def find_table(session: "Session", ref: TableRef) -> Any:
    """Return the catalog object of a table or view the role can see, or None."""
    database, schema, name = ref.key
    for kind in ("TABLE", "VIEW"):
        found = session.catalog.get(kind, name, database, schema)
        if found is not None and session.can_see(found):
            return found
    return None


def _is_temporary(session: "Session", ref: TableRef) -> bool:
    return ("TABLE", *ref.key) in session.temporary


def require_table(session: "Session", ref: TableRef, *privileges: str) -> Any:
    """Return a table or view the role may use for one of *privileges*, or refuse."""
    if _is_temporary(session, ref):
        return None
    found = find_table(session, ref)
    if found is None:
        _explain_missing(session, ref)
        raise errors.does_not_exist("Object", ref.written)
    if not session.has_privilege(found, *privileges):
        raise errors.insufficient_privileges(
            "table" if found.kind == "TABLE" else "view", found.name
        )
    return found


def _explain_missing(session: "Session", ref: TableRef) -> None:
    """Name the database or schema when that is what is missing."""
    database, schema, _ = ref.key
    found = session.catalog.get("DATABASE", database)
    if found is None or not session.can_see(found):
        raise errors.does_not_exist("Database", quote_identifier(database))
    inner = session.catalog.get("SCHEMA", schema, database)
    if inner is None or not session.can_see(inner):
        raise errors.does_not_exist(
            "Schema", f"{quote_identifier(database)}.{quote_identifier(schema)}"
        )


def _check_target(session: "Session", expression: Any, ref: TableRef) -> None:
    key = type(expression).__name__
    if key == "Create":
        _check_create(session, expression, ref)
    elif key in {"Drop", "Alter"}:
        _check_change(session, expression, ref)
    elif key == "Merge":
        _require_all(session, ref, _merge_privileges(expression))
    elif key == "TruncateTable":
        require_table(session, ref, "DELETE", "TRUNCATE")
    elif key == "Describe":
        require_table(session, ref, "SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES")
    else:
        privileges = _WRITES[key]
        if key == "Insert" and expression.args.get("overwrite"):
            privileges = ("INSERT", "DELETE")
        _require_all(session, ref, privileges)


def _require_all(session: "Session", ref: TableRef, privileges: tuple[str, ...]) -> None:
    for privilege in privileges:
        require_table(session, ref, privilege)


def _merge_privileges(expression: Any) -> tuple[str, ...]:
    from sqlglot import exp

    kinds = {exp.Insert: "INSERT", exp.Update: "UPDATE"}
    whens = expression.args.get("whens")
    actions = [when.args.get("then") for when in (whens.expressions if whens else [])]
    return tuple({kinds.get(type(action), "DELETE") for action in actions} | {"SELECT"})


def _check_create(session: "Session", expression: Any, ref: TableRef) -> None:
    database, schema, name = ref.key
    kind = str(expression.args["kind"]).upper()
    temporary = is_temporary(expression)
    privilege = ("CREATE TEMPORARY TABLE", "CREATE TABLE") if temporary else (f"CREATE {kind}",)
    session.require_schema(database, schema, *privilege)
    found = find_table(session, ref)
    if found is None or temporary:
        return
    if expression.args.get("replace"):
        if not session.has_privilege(found, "OWNERSHIP"):
            raise errors.insufficient_privileges(found.kind, found.name)
    elif not expression.args.get("exists"):
        raise errors.already_exists(quote_identifier(name))


def _check_change(session: "Session", expression: Any, ref: TableRef) -> None:
    if _is_temporary(session, ref):
        return
    found = find_table(session, ref)
    if found is None:
        if expression.args.get("exists"):
            return
        kind = str(expression.args.get("kind") or "TABLE")
        raise errors.does_not_exist(kind, ref.written)
    if not session.has_privilege(found, "OWNERSHIP"):
        raise errors.insufficient_privileges(found.kind, found.name)


def is_temporary(expression: Any) -> bool:
    """Tell whether a CREATE makes a temporary table."""
    from sqlglot import exp

    properties = expression.args.get("properties")
    return bool(properties) and any(
        isinstance(item, exp.TemporaryProperty) for item in properties.expressions
    )


def _apply(session: "Session", expression: Any, ref: TableRef) -> None:
    key = type(expression).__name__
    database, schema, name = ref.key
    if key == "Create":
        _apply_create(session, expression, ref)
    elif key == "Drop":
        session.temporary.discard(("TABLE", *ref.key))
        for kind in ("TABLE", "VIEW"):
            session.catalog.drop(kind, name, database=database, schema=schema)
    elif key == "Alter":
        _apply_alter(session, expression, ref)
    elif key != "Describe" and not _is_temporary(session, ref):
        touch(session, ref)


def touch(session: "Session", ref: TableRef) -> None:
    """Record that a table's rows changed."""
    database, schema, name = ref.key
    if session.catalog.get("TABLE", name, database, schema) is not None:
        session.catalog.update("TABLE", name, database=database, schema=schema)


def _apply_create(session: "Session", expression: Any, ref: TableRef) -> None:
    database, schema, name = ref.key
    kind = str(expression.args["kind"]).upper()
    if is_temporary(expression):
        session.temporary.add(("TABLE", *ref.key))
        return
    if expression.args.get("exists") and session.catalog.get(kind, name, database, schema):
        return
    session.catalog.create(kind, name, session.role, database=database, schema=schema, replace=True)


def _apply_alter(session: "Session", expression: Any, ref: TableRef) -> None:
    from sqlglot import exp

    renames = [a for a in expression.args.get("actions") or [] if isinstance(a, exp.AlterRename)]
    if not renames:
        touch(session, ref)
        return
    new = _resolve(session, renames[0].this)
    database, schema, name = ref.key
    old = session.catalog.get("TABLE", name, database, schema)
    owner = old.owner if old else session.role
    session.catalog.drop("TABLE", name, database=database, schema=schema)
    session.catalog.create("TABLE", new.name, owner, database=database, schema=schema, replace=True)


def name_columns(expression: Any, names: dict[str, str], texts: list[str]) -> None:
    """Name unaliased result columns as Snowflake does: the expression's text in upper case.

    Args:
        expression: The parsed query.
        names: Texts of literals that stand for calls, and those calls.
        texts: The items of the select list as they were written, where they could be told apart.
    """
    from sqlglot import exp

    while isinstance(expression, exp.SetOperation):
        expression = expression.this
    if not isinstance(expression, exp.Select):
        return
    written = texts if len(texts) == len(expression.expressions) else []
    named = (exp.Alias, exp.Column, exp.Star, exp.Aliases, exp.Identifier, exp.Subquery)
    for index, item in enumerate(expression.expressions):
        if isinstance(item, named) or item.find(exp.Star) is item:
            continue
        text = _source_text(item)
        text = written[index] if written else names.get(text, text)
        expression.expressions[index].replace(exp.alias_(item.copy(), text, quoted=True))


def _source_text(item: Any) -> str:
    from sqlglot import exp

    if isinstance(item, exp.Literal):
        return f"'{item.this.upper()}'" if item.is_string else item.this
    if isinstance(item, exp.Placeholder):
        return "?"
    if isinstance(item, exp.Cast):
        return f"{_source_text(item.this)}::{item.to.sql(dialect='snowflake')}".upper()
    text = item.sql(dialect="snowflake").upper()
    # A bare CURRENT_DATE would be read as the column of that name.
    return f"{text}()" if isinstance(item, exp.Func) and text.isidentifier() else text
