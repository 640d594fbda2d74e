"""A logged-in session: who it is, what is current, and what its role may see and do.

Name resolution and privilege checks live here, so every room refuses in the same words.
"""

import datetime as dt
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.engine.holding import Holding
from monad_dagster.local.sql.statements import ObjectName, quote_identifier
from monad_dagster.local.sql.variables import Variable

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

# Kinds that live in the account itself; databases hold schemas, schemas hold the rest.
ACCOUNT_KINDS = frozenset(
    {"DATABASE", "WAREHOUSE", "ROLE", "USER", "COMPUTE POOL", "INTEGRATION", "ACCOUNT"}
)
_MAX_QUERY_IDS = 10_000
_TABLE_LIKE = frozenset({"TABLE", "VIEW"})


class Session:
    """One client session.

    Attributes:
        role: The current role; None only before login chose one.
        lock: Held while a statement uses the session's engine connection.
        holding: Which statement that is.
        is_job: True for a container that logged in with a job token.
    """

    def __init__(
        self,
        account: "Account",
        session_id: int,
        user: str,
        role: str,
        *,
        is_job: bool = False,
        client: str = "",
        client_version: str = "",
    ) -> None:
        self.account = account
        self.id = session_id
        self.user = user
        self.role = role
        self.database: str | None = None
        self.schema: str | None = None
        self.warehouse: str | None = None
        self.parameters: dict[str, Any] = {}
        self.variables: dict[str, Variable] = {}
        self.lock = threading.RLock()
        self.holding = Holding()
        self.is_job = is_job
        self.client = client
        self.client_version = client_version
        # The only role besides PUBLIC that a job service or a restricted access token may take.
        self.only_role: str | None = None
        self.query_ids: deque[str] = deque(maxlen=_MAX_QUERY_IDS)
        self.temporary: set[tuple[str, str, str, str]] = set()  # (kind, database, schema, name)
        self.connection: Any = None  # the engine's connection, opened on first use

    @property
    def catalog(self) -> Any:
        """The account's catalog."""
        return self.account.catalog

    def now(self) -> dt.datetime:
        """The account's clock."""
        return self.account.clock()

    def query_id_at(self, number: int) -> str | None:
        """Return the id of a statement of this session: -1 is the last one, 1 the first."""
        at = number - 1 if number > 0 else number
        try:
            return self.query_ids[at] if number else None
        except IndexError:
            return None

    # Names

    def qualify(self, name: ObjectName) -> tuple[str, str, str]:
        """Return (database, schema, name) of a schema-level object."""
        parts = name.parts
        if len(parts) > 3:
            raise errors.syntax_error(str(name))
        if len(parts) == 3:
            return parts[0], parts[1], parts[2]
        if self.database is None:
            raise errors.no_current_database()
        if len(parts) == 2:
            return self.database, parts[0], parts[1]
        if self.schema is None:
            raise errors.no_current_schema()
        return self.database, self.schema, name.name

    def qualify_schema(self, name: ObjectName) -> tuple[str, str]:
        """Return (database, schema) of a schema's name."""
        if len(name.parts) == 2:
            return name.parts[0], name.parts[1]
        if len(name.parts) > 2:
            raise errors.syntax_error(str(name))
        if self.database is None:
            raise errors.no_current_database()
        return self.database, name.name

    def locate(self, kind: str, name: ObjectName) -> tuple[str, str, str]:
        """Return (database, schema, name) as the catalog stores an object of *kind*."""
        if kind in ACCOUNT_KINDS:
            if len(name.parts) > 1:
                raise errors.syntax_error(str(name))
            return "", "", name.name
        if kind == "SCHEMA":
            database, schema = self.qualify_schema(name)
            return database, "", schema
        return self.qualify(name)

    # Privileges

    def privileges(self, found: CatalogObject) -> frozenset[str]:
        """Return what the current role may do with an object."""
        return self.catalog.privileges(
            self.role, found.kind, found.name, database=found.database, schema=found.schema
        )

    def has_privilege(self, found: CatalogObject, *privileges: str) -> bool:
        """Tell whether the role owns the object or holds one of *privileges*."""
        held = self.privileges(found)
        return bool(held & {"OWNERSHIP", "ALL", *privileges})

    def can_see(self, found: CatalogObject) -> bool:
        """Tell whether the role holds any privilege on the object and its parents."""
        if found.kind == "ROLE" or found.kind == "USER":
            return True
        if not self.privileges(found):
            return found.kind in {"DATABASE", "SCHEMA"} and self._owns_parent(found)
        return self._can_use_parents(found)

    def _owns_parent(self, found: CatalogObject) -> bool:
        return False if found.kind == "DATABASE" else self.role == found.owner

    def _can_use_parents(self, found: CatalogObject) -> bool:
        if not found.database:
            return True
        database = self.catalog.get("DATABASE", found.database)
        if database is None or not self.privileges(database):
            return False
        if not found.schema:
            return True
        schema = self.catalog.get("SCHEMA", found.schema, found.database)
        return schema is not None and bool(self.privileges(schema))

    def find(self, kind: str, name: ObjectName) -> CatalogObject | None:
        """Return a visible object or None."""
        database, schema, last = self.locate(kind, name)
        found = self.catalog.get(kind, last, database, schema)
        if found is None or not self.can_see(found):
            return None
        return found

    def lookup(
        self, kind: str, name: ObjectName, *privileges: str, label: str | None = None
    ) -> CatalogObject:
        """Return an object the role may use, or refuse as Snowflake does.

        Args:
            kind: Catalog kind, such as "STAGE".
            name: The name as written.
            privileges: Any one of these (or ownership) is enough; none means visibility.
            label: The kind as the error names it.

        Raises:
            StatementError: 2003 when missing or invisible, 3001 when a privilege lacks.
        """
        found = self.find(kind, name)
        if found is None:
            fqn = ".".join(quote_identifier(part) for part in self.locate(kind, name) if part)
            raise errors.does_not_exist(label or kind, fqn)
        if privileges and not self.has_privilege(found, *privileges):
            raise errors.insufficient_privileges(label or kind, quote_identifier(found.name))
        return found

    def require_schema(self, database: str, schema: str, *privileges: str) -> CatalogObject:
        """Return a schema in which the role may do one of *privileges*, such as CREATE STAGE."""
        found_database = self.catalog.get("DATABASE", database)
        if found_database is None or not self.can_see(found_database):
            raise errors.does_not_exist("Database", quote_identifier(database))
        found = self.catalog.get("SCHEMA", schema, database)
        fqn = f"{quote_identifier(database)}.{quote_identifier(schema)}"
        if found is None or not self.can_see(found):
            raise errors.does_not_exist("Schema", fqn)
        if privileges and not self.has_privilege(found, *privileges):
            raise errors.insufficient_privileges("schema", quote_identifier(schema))
        return found

    def require_warehouse(self) -> None:
        """Refuse what needs computing unless the current warehouse may be used."""
        found = self.catalog.get("WAREHOUSE", self.warehouse) if self.warehouse else None
        if found is None or not self.has_privilege(found, "USAGE"):
            raise errors.no_warehouse()

    def has_account_privilege(self, *privileges: str) -> bool:
        """Tell whether the role holds a privilege on the account, such as CREATE DATABASE."""
        held = self.catalog.privileges(self.role, "ACCOUNT", self.account.name)
        return bool(held & {"OWNERSHIP", "ALL", *privileges})

    def require_account(self, *privileges: str) -> None:
        """Refuse unless the role holds one of *privileges* on the account."""
        if not self.has_account_privilege(*privileges):
            raise errors.insufficient_privileges("account", self.account.name)

    def require_ownership(
        self, kind: str, name: ObjectName, label: str | None = None
    ) -> CatalogObject:
        """Return an object the role owns (directly or by inheritance)."""
        found = self.lookup(kind, name, label=label)
        if not self.has_privilege(found, "OWNERSHIP"):
            raise errors.insufficient_privileges(label or kind, quote_identifier(found.name))
        return found

    def create_object(
        self,
        kind: str,
        name: ObjectName,
        *,
        replace: bool = False,
        properties: dict[str, Any] | None = None,
    ) -> CatalogObject:
        """Create a schema-level or account-level object owned by the current role.

        The right to create must have been checked.

        Raises:
            StatementError: 2002 when the name is held.
        """
        database, schema, last = self.locate(kind, name)
        try:
            return self.catalog.create(
                kind, last, self.role, database=database, schema=schema,
                properties=properties, replace=replace,
            )  # fmt: skip
        except KeyError:
            raise errors.already_exists(quote_identifier(last)) from None

    def visible(
        self, kind: str, database: str | None = None, schema: str | None = None
    ) -> list[CatalogObject]:
        """Return the objects of *kind* that SHOW may list."""
        return [
            found
            for found in self.catalog.list_objects(kind, database, schema)
            if self.can_see(found)
        ]
